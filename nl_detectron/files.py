"""What a path leads to, told without opening it, and the files that tools write."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from .errors import UserError


def special_file(path: str | os.PathLike[str]) -> str | None:
    """Return what a pipe, socket or device is: reading it could wait for ever, or never end.

    None for regular files, folders and whatever cannot be looked at, an address for one.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write `content`, and the folder where it is missing; UserError if they cannot be."""
    make_folder(Path(path).parent)
    try:
        Path(path).write_text(json.dumps(content), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Make it and those above it; UserError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from error
