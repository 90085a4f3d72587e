"""Errors that a user can fix, which scripts report in one line, without a traceback."""

import reprlib
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from .third_party_warnings import hide_third_party_warnings

_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxdict = 8, 4
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 60


class UserError(Exception):
    """An error that the user can fix; the message names the cause, then the fix."""


class ConfigError(UserError, ValueError):
    """An unknown config key, or an invalid value of one."""


class DataError(UserError):
    """Data that cannot be used; the message names the file.

    torch raises it again from a worker process, with that process's traceback as its message. The
    last line becomes the message again, and the traceback a note.
    """

    def __init__(self, message: str) -> None:
        line = message.rstrip().rpartition(f"{type(self).__name__}: ")[2]
        super().__init__(line)
        if line != message:
            self.add_note(message)


def nearest(name: str, known: list[str], *, cutoff: float = 0.6) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to `name`, or ``""``.

    Args:
        cutoff: smallest similarity of close names, at most 1.
    """
    matches = get_close_matches(name, known, n=1, cutoff=cutoff)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def short_repr(value: Any) -> str:
    """Return any value in a few characters of one line, escaping text that cannot be encoded."""
    return " ".join(_SHORT.repr(value).split())


def one_line(error: object) -> str:
    """Return the text of an error in one line, or its type if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status.

    A `UserError` becomes one line on standard error and status 1. ``--traceback`` on the
    command line, which is removed before `main` parses it, keeps the traceback. Any other
    exception is a programming error and keeps its traceback too. Warnings about the code of other
    packages are hidden.
    """
    hide_third_party_warnings()
    show_traceback = "--traceback" in sys.argv
    if show_traceback:
        sys.argv.remove("--traceback")
    try:
        status = main()
    except UserError as error:
        if show_traceback:
            raise
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
