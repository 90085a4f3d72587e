"""Code blocks and commands of the documentation's pages, and a way to run them in turn."""

import json
import re
import shlex
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny_run

ROOT = tiny_run.ROOT
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

_BLOCK = re.compile(
    r"(?:^<!-- own data: (?P<file>\S+) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
# A command between the lines: it begins with what runs it.
_INLINE = re.compile(r"`((?:make|pip|python|torchrun|nl-detectron) [^`\n]+)`")

# Run in one process, as importing torch takes longer than what is run. From standard input: a list
# of command lines, of scripts or nl-detectron, and of Python code, each of which has to end well.
_RUNNER = """
import json, runpy, sys
sys.path.insert(0, "")
for step in json.load(sys.stdin):
    if isinstance(step, str):
        exec(compile(step, "<page>", "exec"), {"__name__": "__page__"})
        continue
    sys.argv = step
    try:
        if step[0] == "nl-detectron":
            runpy.run_module("nl_detectron", run_name="__main__")
        else:
            runpy.run_path(step[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            sys.exit(f"{step} ended with status {end.code}")
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `file` is the name that the page gives it, if any."""

    language: str
    text: str
    file: str | None


def blocks(page: Path) -> list[Block]:
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(m["language"], textwrap.dedent(m["text"]), m["file"]) for m in found]


def commands(page: Path) -> list[str]:
    """Return the shell commands of a page, in its blocks and between the lines."""
    found = []
    for block in blocks(page):
        if block.language in ("bash", "sh"):
            found += block.text.replace("\\\n", " ").splitlines()
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [c for c in [*found, *_INLINE.findall(text)] if c.strip() and not c.startswith("#")]


def words(command: str) -> list[str]:
    return shlex.split(command, comments=True)


def leaves(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of a tree of mappings by their keys, joined by dots."""
    if not isinstance(node, dict):
        return {prefix[1:]: node}
    found = [leaves(value, f"{prefix}.{name}") for name, value in node.items()]
    return {key: value for part in found for key, value in part.items()}


def page_file(name: str) -> str:
    """Return the block that a page gives as the file `name`."""
    (text,) = (b.text for page in PAGES for b in blocks(page) if b.file == name)
    return text


def run_steps(
    folder: Path,
    steps: list[list[str] | str],
    python: Path | str = sys.executable,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run scripts and code in `folder`, one after the other; fail with their output."""
    done = subprocess.run(
        [python, "-c", _RUNNER],
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=tiny_run.whole_environment(environment),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done
