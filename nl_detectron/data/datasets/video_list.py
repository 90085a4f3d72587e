"""Lists of videos: ``path label[,label...]``, and folders of classes."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from ...utils.errors import DataError, UserError
from ..video.info import IMAGE_SUFFIXES

VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"),
    *(".ogv", ".3gp", ".gif"),
)

# The shortest path that only labels follow.
_LINE = re.compile(
    r"(?P<path>\S(.*?[^\s,])?)([ \t]+|[ \t]*,[ \t]*)(?P<labels>\d+(,\d+)*)", re.DOTALL
)
_SPACED_LABELS = re.compile(rf".*({'|'.join(map(re.escape, VIDEO_SUFFIXES))})([ \t]+\d+)+", re.I)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A video of a list.

    Args:
        path: path in the list.
        labels: labels of the whole video, numbers from 0, ascending.
        intervals: label, first and last second; None if the labels hold for the whole video.
        line: line of the list, from 1; 0 for a folder of classes.
    """

    path: str
    labels: tuple[int, ...]
    intervals: tuple[tuple[int, float, float], ...] | None = None
    line: int = 0


def read_list(file: Path) -> list[Entry]:
    """Return the videos of a list.

    A line is ``path label[,label...]``, separated by spaces, a tab or a comma; a path may have
    spaces and be in quotes.

    Raises:
        UserError: the file cannot be read.
        DataError: a line has another form; the message has its number.
    """
    entries = []
    for number, line in read_lines(file):
        match = _LINE.fullmatch(line.strip())
        path = match["path"].strip() if match else ""
        if len(path) > 1 and path[0] == path[-1] == '"':
            path = path[1:-1]
        elif _SPACED_LABELS.fullmatch(path):
            path = ""
        if match is None or not path:
            raise DataError(
                f"{file}, line {number}: expected 'path label[,label...]', got {line.strip()!r}"
            )
        labels = {int(label) for label in match["labels"].split(",")}
        entries.append(Entry(path=path, labels=tuple(sorted(labels)), line=number))
    if not entries:
        raise DataError(
            f"expected a line 'path label[,label...]' per video, got {file} without any"
        )
    return entries


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return the lines of a text file that are not empty, with their numbers."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "expected text in UTF-8"
        raise UserError(f"cannot read {file}: {reason}") from error
    return [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]


def read_folders(root: Path) -> tuple[list[Entry], list[str]]:
    """Return the videos and the class names of a folder with a folder for each class.

    Classes count from 0 in the order of their names. A class's folder has video files, or folders
    of frames.
    """
    try:
        classes = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
        entries = [
            Entry(path=str(path.relative_to(root)), labels=(label,))
            for label, name in enumerate(classes)
            for path in sorted((root / name).iterdir())
            if path.name[0] != "." and (path.suffix.lower() in VIDEO_SUFFIXES or path.is_dir())
        ]
    except OSError as error:
        raise UserError(f"cannot read the folder {root}: {error.strerror}") from error
    if not entries:
        images = any(p.suffix.lower() in IMAGE_SUFFIXES for p in root.rglob("*"))
        hint = "; put each video's frames into a separate folder" if images else ""
        raise DataError(f"expected a folder for each class with videos in {root}, got none{hint}")
    return entries, classes


def read_classes(file: Path) -> list[str]:
    """Read class names: one per line, or a JSON object that maps names to numbers.

    The codes in Charades' official file, such as ``c000``, are removed.
    """
    if file.suffix != ".json":
        return [re.sub(r"^c\d{3} ", "", line.strip()) for _, line in read_lines(file)]
    try:
        numbers = json.loads(file.read_text(encoding="utf-8"))
        names = {int(number): name.strip('"') for name, number in numbers.items()}
        return [names[i] for i in range(len(names))]
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{file}: expected each class name with its number from 0") from error
