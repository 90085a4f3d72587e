"""Kinds of problems of a data set, of whatever format, and the table of all of them."""

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
    """A kind of problem, what it means for a run, and how to fix it."""

    name: str
    severity: Severity
    meaning: str
    fix: str


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: its kind's name, the entry or file, and what was found there."""

    kind: str
    where: str
    detail: str


KINDS: dict[str, Kind] = {}
"""Every kind by name, in the order of the reports."""


def error(name: str, meaning: str, fix: str) -> str:
    """Add a kind that is an error to the table; return its name."""
    return _add(Kind(name, Severity.ERROR, meaning, fix))


def warning(name: str, meaning: str, fix: str) -> str:
    """Add a kind that is a warning to the table; return its name."""
    return _add(Kind(name, Severity.WARNING, meaning, fix))


def _add(kind: Kind) -> str:
    assert kind.name not in KINDS, kind.name
    KINDS[kind.name] = kind
    return kind.name


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 3, 8, 4
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


def short_repr(value: Any) -> str:
    """Return any value in a few characters of one line, also what cannot be encoded."""
    return _SHORT.repr(value)


def error_text(exception: BaseException) -> str:
    """Return an exception's type and text in one line."""
    text = " ".join(str(exception).split())
    return f"{type(exception).__name__}: {text}" if text else type(exception).__name__
