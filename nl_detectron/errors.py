"""Errors that a person can cause, and how a script reports them: one line, no traceback."""

import sys
from collections.abc import Callable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can put right; the message names the culprit and the way out."""


class ConfigError(UserError, ValueError):
    """A config key with a value that cannot work."""


class DataError(UserError):
    """Data that cannot be used; the message names the file.

    From a worker process torch hands it on with that process's traceback for a message. Its last
    line becomes the message again, and the traceback a note.
    """

    def __init__(self, message: str) -> None:
        line = message.rstrip().rpartition(f"{type(self).__name__}: ")[2]
        super().__init__(line)
        if line != message:
            self.add_note(message)


def nearest(name: str, known: list[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to `name`, or ``""``."""
    matches = get_close_matches(name, known, n=1)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status.

    A :class:`UserError` becomes one line on standard error and status 1. ``--traceback`` on the
    command line, which is removed before `main` parses it, lets the error through as it is.
    Any other exception is a programming error and keeps its traceback.
    """
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
