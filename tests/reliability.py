"""``docs/reliability.md``: a table of what the tests tried to break, written by the tests.

A test takes the fixture `tried` and calls it after its assertions:

    tried("Checkpoints", "a file cut off", said)

``pytest --reliability=docs/reliability.md`` writes the table of a whole run in which everything
passed. Any other run holds each row against that file, so the table cannot fall behind. Tests
marked `long` run with ``--long`` alone, and their rows, which hold measured figures, are not
compared.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "reliability.md"

_GROUPS: dict[str, set[str]] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reliability", metavar="FILE", help="write the table of what was tried")
    parser.addoption("--long", action="store_true", help="also run the tests marked long")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: minutes or hours of one thing; run by --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out long tests, rather than skip them: a skip would look like something missing."""
    if not config.getoption("--long"):
        items[:] = [item for item in items if item.get_closest_marker("long") is None]


@pytest.fixture
def tried(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str, str], None]:
    """Return a function that adds a row to the table: group, what was tried, what happened."""

    def add(group: str, what: str, happened: str) -> None:
        for place in (str(tmp_path) + "/", str(tmp_path), str(ROOT) + "/"):
            happened = happened.replace(place, "")
        row = f"| {_cell(what)} | {_cell(happened)} |"
        request.node.user_properties.append(("reliability", [group, row]))
        if request.config.getoption("--reliability") or request.node.get_closest_marker("long"):
            return
        assert row in TABLE.read_text(encoding="utf-8").splitlines(), (
            f"{TABLE} lacks this row, under {group}; `make reliability` writes it:\n{row}"
        )

    return add


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.passed:
        for name, value in report.user_properties:
            if name == "reliability":
                group, row = value
                _GROUPS.setdefault(group, set()).add(row)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    path = session.config.getoption("--reliability")
    if path and exitstatus == 0 and not hasattr(session.config, "workerinput"):
        Path(path).write_text(_table(_GROUPS), encoding="utf-8")


def _table(groups: dict[str, set[str]]) -> str:
    count = sum(map(len, groups.values()))
    lines = [
        "# Reliability",
        "",
        f"{count} bad inputs and errors, and what happened. `make reliability` runs them, the long "
        "ones too, and writes this page; every run of the tests holds its rows against it.",
    ]
    for group in sorted(groups):
        lines += ["", f"## {group}", "", "| tried | happened |", "|---|---|"]
        lines += sorted(groups[group])
    return "\n".join(lines) + "\n"
