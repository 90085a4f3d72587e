"""Lists of videos: ``path label[,label...]``, folders of classes, and SlowFast's frame lists."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath

from ...utils.errors import DataError, UserError
from ..video.info import FOLDER_RATE, IMAGE_SUFFIXES

VIDEO_SUFFIXES = (
    *(".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"),
    *(".ogv", ".3gp", ".gif"),
)

# The shortest path that only labels follow.
_LINE = re.compile(
    r"(?P<path>\S(.*?[^\s,])?)([ \t]+|[ \t]*,[ \t]*)(?P<labels>\d+(,\d+)*)", re.DOTALL
)
_SPACED_LABELS = re.compile(rf".*({'|'.join(map(re.escape, VIDEO_SUFFIXES))})([ \t]+\d+)+", re.I)
_FRAME_LIST = ("video_id", "frame_id", "path", "labels")


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


def read_list(file: Path, *, folder_rate: float = FOLDER_RATE) -> list[Entry]:
    """Return the videos of a list.

    A line is ``path label[,label...]``, separated by spaces, a tab or a comma; a path may have
    spaces and be in quotes. A list with the header of SlowFast's frame lists (``original_vido_id
    video_id frame_id path labels``) names a folder of frames for each video, and the labels of
    every frame.

    Args:
        folder_rate: frames per second of those folders.

    Raises:
        UserError: the file cannot be read.
        DataError: a line has another form; the message has its number.
    """
    lines = read_lines(file)
    header = lines[0][1].split() if lines else []
    if set(_FRAME_LIST) <= set(header):
        return list(_frame_list(file, header, lines[1:], folder_rate))
    entries = []
    for number, line in lines:
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


def _frame_list(
    file: Path, header: Sequence[str], lines: Sequence[tuple[int, str]], rate: float
) -> Iterator[Entry]:
    column = {name: i for i, name in enumerate(header)}
    rows = []
    for number, line in lines:
        row = next(csv.reader([line.strip()], delimiter=" ", skipinitialspace=True))
        try:
            labels = [int(label) for label in row[column["labels"]].split(",") if label]
            frame = int(row[column["frame_id"]])
            rows.append((row[column["video_id"]], frame, row[column["path"]], labels, number))
        except (IndexError, ValueError) as error:
            raise DataError(
                f"{file}, line {number}: expected '{' '.join(header)}' as in the header, got "
                f"{line.strip()[:80]!r}"
            ) from error
    for _, group in groupby(rows, key=lambda row: row[0]):
        frames = list(group)
        intervals = _runs(frames)
        yield Entry(
            path=str(PurePosixPath(frames[0][2]).parent),
            labels=tuple(sorted({label for label, _, _ in intervals})),
            intervals=tuple((label, first / rate, last / rate) for label, first, last in intervals),
            line=frames[0][4],
        )


def _runs(frames: Sequence[tuple]) -> list[tuple[int, int, int]]:
    """Return label, first and last frame of each run of frames that have the label."""
    runs: list[tuple[int, int, int]] = []
    for label, frame in sorted((label, row[1]) for row in frames for label in row[3]):
        if runs and runs[-1][0] == label and frame <= runs[-1][2] + 1:
            runs[-1] = (label, runs[-1][1], frame)
        else:
            runs.append((label, frame, frame))
    return runs


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
    """Read class names: one per line, or a JSON object that maps names to numbers."""
    if file.suffix != ".json":
        return [line.strip() for _, line in read_lines(file)]
    try:
        numbers = json.loads(file.read_text(encoding="utf-8"))
        names = {int(number): name.strip('"') for name, number in numbers.items()}
        return [names[i] for i in range(len(names))]
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{file}: expected each class name with its number from 0") from error
