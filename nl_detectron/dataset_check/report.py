"""The problems of a data set, counted, with the first examples of each kind."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from .kinds import KINDS, Kind, Problem, Severity


@dataclass
class Finding:
    """How often a kind of problem was found, and the first places."""

    kind: Kind
    count: int = 0
    examples: list[Problem] = field(default_factory=list)


@dataclass
class Report:
    """What was found in one data set.

    Attributes:
        title: name of the data set, or its file.
        facts: numbers of images, annotations, ...
        max_examples: how many problems of a kind are kept.
        findings: what was found, by kind.
    """

    title: str
    facts: dict[str, int] = field(default_factory=dict)
    max_examples: int = 3
    findings: dict[str, Finding] = field(default_factory=dict)

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            finding = self.findings.setdefault(problem.kind, Finding(KINDS[problem.kind]))
            finding.count += 1
            if len(finding.examples) < self.max_examples:
                finding.examples.append(problem)

    @property
    def errors(self) -> list[Finding]:
        return self._of(Severity.ERROR)

    @property
    def warnings(self) -> list[Finding]:
        return self._of(Severity.WARNING)

    def _of(self, severity: Severity) -> list[Finding]:
        return [
            f for name in KINDS if (f := self.findings.get(name)) and f.kind.severity is severity
        ]

    def as_text(self) -> str:
        """Return a table: errors first, each kind with its meaning, first examples and fix."""
        facts = ", ".join(f"{number} {what}" for what, number in self.facts.items())
        lines = [f"{self.title}: {facts}" if facts else self.title]
        findings = [*self.errors, *self.warnings]
        if findings:
            rows = [[f.kind.severity, f.kind.name, f.count, _cell(f)] for f in findings]
            headers = ["", "problem", "count", "what, where first, fix"]
            lines += ["", tabulate(rows, headers, disable_numparse=True), ""]
        lines.append(
            f"{_total(self.errors, 'error')} and {_total(self.warnings, 'warning')}"
            if findings
            else "nothing wrong was found"
        )
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "title": self.title,
            **self.facts,
            "problems": [
                {
                    "kind": f.kind.name,
                    "severity": str(f.kind.severity),
                    "count": f.count,
                    "meaning": f.kind.meaning,
                    "fix": f.kind.fix,
                    "examples": [{"where": p.where, "detail": p.detail} for p in f.examples],
                }
                for f in (*self.errors, *self.warnings)
            ],
        }

    def first_error(self) -> str | None:
        """Return the first error in one line, None without one."""
        if not self.errors:
            return None
        problem = self.errors[0].examples[0]
        kind = KINDS[problem.kind]
        return f"{problem.where}: {problem.detail} ({kind.meaning}); {kind.fix}"


def _cell(finding: Finding) -> str:
    rest = finding.count - len(finding.examples)
    lines = [finding.kind.meaning]
    lines += [f"  {problem.where}: {problem.detail}" for problem in finding.examples]
    lines += [f"  ... and {rest} more"] if rest else []
    return "\n".join([*lines, f"  -> {finding.kind.fix}"])


def _total(findings: list[Finding], what: str) -> str:
    total = sum(finding.count for finding in findings)
    return f"{total} {what}{'' if total == 1 else 's'}"
