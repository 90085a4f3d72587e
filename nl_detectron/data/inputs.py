"""Images of a command line: files, folders, patterns and datasets."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from detectron2.data import DatasetCatalog

from ..utils.errors import UserError
from . import check_datasets

WHAT = (
    "images, folders of them, patterns such as 'photos/*.jpg', a dataset's name, or NAME:COUNT "
    "for its first few"
)

ImageId = int | str


def list_images(inputs: Iterable[str]) -> dict[Path, ImageId | None]:
    """Return the files of `inputs`, in order, with the image ids of files from datasets.

    Reading them will show if they are images.
    """
    files: dict[Path, ImageId | None] = {}
    for item in inputs:
        name, _, count = item.partition(":")
        if name in DatasetCatalog and not os.path.exists(item):
            if count and not count.isdecimal():
                raise UserError(f"{item}: expected NAME:COUNT, got '{count}' as COUNT")
            check_datasets([name])
            records = DatasetCatalog.get(name)[: int(count) if count else None]
            found = {Path(record["file_name"]): record.get("image_id") for record in records}
        elif os.path.isdir(item):
            inside = sorted(p for p in Path(item).iterdir() if p.is_file() and p.name[0] != ".")
            found = dict.fromkeys(inside)
        else:
            names = [item] if os.path.exists(item) else sorted(glob.glob(os.path.expanduser(item)))
            found = dict.fromkeys(map(Path, names))
        if not found:
            raise UserError(f"{item}: expected a file, a folder or a dataset, got none")
        for file, number in found.items():
            files[file] = files.get(file) if number is None else number
    return files


def number_images(files: dict[Path, ImageId | None]) -> dict[Path, ImageId]:
    """Return the image id of each file: its dataset's, or a number after the largest of these.

    Without any id, the ids are the files' names if all names are numbers, as in COCO; otherwise
    they count from 0.
    """
    known = {file: number for file, number in files.items() if number is not None}
    if not known and all(file.stem.isdecimal() for file in files):
        known = {file: int(file.stem) for file in files}
        if len(set(known.values())) < len(known):
            known = {}
    first = 1 + max((number for number in known.values() if type(number) is int), default=-1)
    others = (file for file in files if file not in known)
    return known | {file: first + i for i, file in enumerate(others)}


def report_bad(bad: list[Path], count: int, *, kind: str = "images") -> None:
    """Raise UserError if any of `count` files is unreadable; `kind` names them in the message."""
    if bad:
        names = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise UserError(f"expected {count} {kind}, got {len(bad)} unreadable files: {names}")
