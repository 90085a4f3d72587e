"""Charades: the official CSV files, whose labels are actions with times in seconds."""

import csv
from pathlib import Path

from ...utils.errors import DataError
from .video_list import Entry, read_lines, read_list

_COLUMNS = {"id", "actions"}

# Names of folders of videos or of frames, in the order of the search.
_FOLDERS = ("Charades_v1_480", "Charades_v1", "Charades_v1_rgb", "videos", "frames")


def read_csv(file: Path, root: Path) -> list[Entry]:
    """Return the videos of ``Charades_v1_{train,test}.csv``.

    ``actions`` of a row are like ``c092 11.90 21.20;c147 0.00 12.60``: class, first second, last
    second; the field may be empty.

    Args:
        root: folder with the videos, ``{id}.mp4``, or with folders of frames, ``{id}``.

    Raises:
        UserError: the file cannot be read.
        DataError: the file has another format; the message has the line.
    """
    lines = [line for _, line in read_lines(file)]
    reader = csv.DictReader(lines)
    if not set(reader.fieldnames or ()) >= _COLUMNS:
        raise DataError(f"expected columns 'id' and 'actions' as in Charades' files, got {file}")
    entries = []
    for row in reader:
        where = f"{file}, line {reader.line_num}"
        name, actions = (row["id"] or "").strip(), (row["actions"] or "").strip()
        intervals = tuple(_interval(text, where) for text in actions.split(";") if text.strip())
        as_file = f"{name}.mp4"
        is_folder = not (root / as_file).exists() and (root / name).is_dir()
        entries.append(
            Entry(
                path=name if is_folder else as_file,
                labels=tuple(sorted({label for label, _, _ in intervals})),
                intervals=intervals,
                line=reader.line_num,
            )
        )
    if not entries:
        raise DataError(f"expected a row for each video, got {file} without any")
    return entries


def read_list_or_csv(file: Path, root: Path) -> list[Entry]:
    """Return the videos of a list, or of a file with the columns of Charades' CSV files."""
    lines = read_lines(file)
    is_csv = bool(lines) and set(lines[0][1].strip().split(",")) >= _COLUMNS
    return read_csv(file, root) if is_csv else read_list(file)


def _interval(text: str, where: str) -> tuple[int, float, float]:
    try:
        name, first, last = text.split()
        if name[0] != "c" or not float(first) >= 0 or not float(last) >= 0:
            raise ValueError(text)
        return int(name[1:]), float(first), float(last)
    except ValueError as error:
        raise DataError(
            f"{where}: expected an action such as 'c092 11.90 21.20', got {text.strip()!r}"
        ) from error


def video_folder(root: Path) -> Path:
    """Return the folder under `root` that has the videos or frames."""
    found = [root / name for name in _FOLDERS if (root / name).is_dir()]
    return found[0] if found else root / _FOLDERS[0]
