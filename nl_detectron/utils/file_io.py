"""Checks of input paths, and writing of files."""

import json
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from .errors import UserError

_Path = str | os.PathLike[str]


def write_json(path: _Path, content: Any) -> None:
    """Write `content` as JSON and make its folder; raise UserError if that fails."""
    write_text(path, json.dumps(content))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file and make its folder; raise UserError if that fails."""
    make_folder(Path(path).parent)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def make_folder(path: Path) -> None:
    """Make a folder and its parents; raise UserError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path}: {error.strerror}") from error


def output_files(
    sources: Sequence[Path],
    output: _Path | None,
    suffix: str,
    *,
    endings: Collection[str] = (),
) -> list[Path]:
    """Return the file to write for each source: `output` itself, or a file in that folder.

    A file in a folder has its source's name, and a number if another one has that name. It keeps
    its source's suffix if that is among `endings`. The folder is made.

    Args:
        sources: files, or folders of frames, that are read.
        output: a folder or, for a single source, a file with one of `endings`; None for no files.
        suffix: suffix of the files to write.
        endings: suffixes of a file as `output`; () if `output` is always a folder.

    Raises:
        UserError: the folder cannot be made, or a file is one of those that are read.
    """
    if output is None:
        return []
    target = Path(output)
    is_file = bool(endings) and len(sources) == 1 and target.suffix != "" and not target.is_dir()
    if is_file and target.suffix.lower() not in endings:
        raise UserError(f"--output {target}: expected a folder or a file {', '.join(endings)}")
    make_folder(target.parent if is_file else target)
    written = [target] if is_file else []
    taken: set[str] = set()
    for source in sources[len(written) :]:
        stem = name = Path(os.path.abspath(source)).stem
        own = source.suffix if source.suffix.lower() in endings else suffix
        number = 0
        while f"{name}{own}".lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(f"{name}{own}".lower())
        written.append(target / f"{name}{own}")
    check_overwriting(written, sources)
    return written


def check_overwriting(written: Iterable[_Path], read: Iterable[_Path]) -> None:
    """Raise UserError if a file to write is among the files to read, by any path."""
    paths = [Path(path) for path in read if path]
    folders = [path for path in paths if path.is_dir()]
    sources = {path.resolve() for path in (*paths, *(p for f in folders for p in f.iterdir()))}
    for file in written:
        if Path(file).resolve() in sources:
            raise UserError(f"expected an output other than the input, got {file} for both")


def cache_root() -> Path:
    """Return the folder of generated datasets.

    It is ``NL_DETECTRON_CACHE``, else ``nl_detectron`` under ``XDG_CACHE_HOME``, else
    ``~/.cache/nl_detectron``.
    """
    if own := os.environ.get("NL_DETECTRON_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nl_detectron"
