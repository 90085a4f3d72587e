"""What can be wrong with a data set: kinds of problems, and the table that every check joins."""

import reprlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """An error stops training or evaluation, or silently loses data; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Kind:
    """A kind of problem, what it means for a run, and the way out."""

    name: str
    severity: Severity
    meaning: str
    way_out: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its kind's name, the entry or file, and what was found there."""

    kind: str
    where: str
    detail: str


KINDS: dict[str, Kind] = {}
"""Every kind by name, in the order of the reports."""


def error(name: str, meaning: str, way_out: str) -> str:
    """Add a kind that is an error to the table; return its name."""
    return _add(Kind(name, Severity.ERROR, meaning, way_out))


def warning(name: str, meaning: str, way_out: str) -> str:
    """Add a kind that is a warning to the table; return its name."""
    return _add(Kind(name, Severity.WARNING, meaning, way_out))


def _add(kind: Kind) -> str:
    assert kind.name not in KINDS, kind.name
    KINDS[kind.name] = kind
    return kind.name


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 8, 4
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


def shown(value: Any) -> str:
    """Return any value in a few characters of one line, also what cannot be encoded."""
    return _SHORT.repr(value)
