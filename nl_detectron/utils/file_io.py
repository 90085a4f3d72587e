"""Paths that are read, and files that are written."""

import itertools
import json
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from .errors import UserError

_Path = str | os.PathLike[str]


def special_file(path: _Path) -> str | None:
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


def write_json(path: _Path, content: Any) -> None:
    """Write `content`, and the folder where it is missing; UserError if they cannot be."""
    write_text(path, json.dumps(content))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file, and the folder where it is missing; UserError if they cannot be."""
    make_folder(Path(path).parent)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Make it and those above it; UserError if that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from error


def output_files(
    sources: Sequence[Path],
    output: _Path | None,
    suffixes: Sequence[str],
    *,
    endings: Collection[str] = (),
) -> list[Path]:
    """Return the file to write for each source: `output` itself, or a file in that folder.

    A file in a folder has its source's name, and a number where another one has that name. It
    keeps its source's suffix if that is among `endings`. The folder is made.

    Args:
        sources: files, or folders of frames, that are read.
        output: a folder or, for a single source, a file with one of `endings`; None for no files.
        suffixes: of the files that are written for a source; the first is returned.
        endings: of a file as `output`; () if `output` is always a folder.

    Raises:
        UserError: a file cannot be written, or is one of those that are read.
    """
    if output is None:
        return []
    target = Path(output)
    is_file = bool(endings) and len(sources) == 1 and target.suffix != "" and not target.is_dir()
    if is_file and target.suffix.lower() not in endings:
        raise UserError(f"--output {target}: expected a folder or a file {', '.join(endings)}")
    make_folder(target.parent if is_file else target)
    written: list[list[Path]] = [[target]] if is_file else []
    taken: set[str] = set()
    for source in sources[len(written) :]:
        stem = name = Path(os.path.abspath(source)).stem
        own = [source.suffix] if source.suffix.lower() in endings else suffixes
        number = 0
        while taken & (names := {f"{name}{suffix}".lower() for suffix in own}):
            number += 1
            name = f"{stem}_{number}"
        taken |= names
        written.append([target / f"{name}{suffix}" for suffix in own])
    check_overwriting(itertools.chain.from_iterable(written), sources)
    for file, *_ in written:
        is_new = not file.exists()
        try:
            file.open("ab").close()
        except OSError as error:
            raise UserError(f"cannot write {file}: {error.strerror}") from error
        if is_new:
            file.unlink()
    return [files[0] for files in written]


def check_overwriting(written: Iterable[_Path], read: Iterable[_Path]) -> None:
    """Raise UserError if a file to write is one of those that are read, by whatever path."""
    sources = {_identity(file) for path in read for file in (path, *_inside(path))} - {None}
    for file in written:
        if _identity(file) in sources:
            raise UserError(f"{file} is read: expected another folder or file to write")


def _identity(path: _Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _inside(folder: _Path) -> Iterable[Path]:
    return Path(folder).iterdir() if os.path.isdir(folder) else ()


def cache_root() -> Path:
    """Return the folder of generated data sets.

    It is ``NL_DETECTRON_CACHE``, else ``nl_detectron`` under ``XDG_CACHE_HOME``, else
    ``~/.cache/nl_detectron``.
    """
    if own := os.environ.get("NL_DETECTRON_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nl_detectron"
