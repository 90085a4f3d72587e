"""The images that a command line names: files, folders, patterns and data sets."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog

from ..utils.errors import UserError
from . import check_datasets

WHAT = (
    "images, folders of them, patterns such as 'photos/*.jpg', a data set's name, or NAME:COUNT "
    "for its first few"
)

ImageId = int | str


def list_images(inputs: Iterable[str]) -> dict[Path, ImageId | None]:
    """Return the files that are meant, in order, with the image ids of those of data sets.

    Whether they are images shows on reading.
    """
    files: dict[Path, ImageId | None] = {}
    for item in inputs:
        name, _, count = item.partition(":")
        found: dict[Path, ImageId | None]
        if name in DatasetCatalog and not os.path.exists(item):
            if count and not count.isdecimal():
                raise UserError(f"--input {item}: '{count}' is not a number")
            check_datasets([name])
            records = DatasetCatalog.get(name)[: int(count) if count else None]
            found = {Path(record["file_name"]): record.get("image_id") for record in records}
        elif os.path.isdir(item):
            inside = sorted(p for p in Path(item).iterdir() if p.is_file() and p.name[0] != ".")
            found = dict.fromkeys(inside)
        elif os.path.exists(item):
            found = {Path(item): None}
        else:
            found = dict.fromkeys(map(Path, sorted(glob.glob(os.path.expanduser(item)))))
        if not found:
            raise UserError(f"--input {item}: there is no such file, or it is an empty folder")
        for file, number in found.items():
            files[file] = files.get(file) if number is None else number
    return files


def number_images(
    files: dict[Path, ImageId | None], coco: dict[str, Any] | None = None
) -> dict[Path, ImageId]:
    """Return the image id of each file: its data set's, or that of its entry in a COCO file.

    Other files count on from the largest of these. Without any, the numbers that are the files'
    names are taken where all names are numbers, as in COCO; otherwise the files count from 0.
    """
    entries: dict[str, list[dict[str, Any]]] = {}
    for image in (coco or {}).get("images", ()):
        entries.setdefault(os.path.basename(image["file_name"]), []).append(image)
    known: dict[Path, ImageId] = {}
    for file, number in files.items():
        path = Path(os.path.abspath(file)).as_posix()
        fitting = [
            e["id"] for e in entries.get(file.name, ()) if path.endswith(f"/{e['file_name']}")
        ]
        if number is not None or len(fitting) == 1:
            known[file] = fitting[0] if number is None else number
    if not known and all(file.stem.isdecimal() for file in files):
        own = {file: int(file.stem) for file in files}
        if len(set(own.values())) == len(own):
            return dict(own)
    first = 1 + max((number for number in known.values() if type(number) is int), default=-1)
    others = (file for file in files if file not in known)
    return known | {file: first + i for i, file in enumerate(others)}


def report_bad(bad: list[Path], count: int, *, what: str = "images") -> None:
    """Raise UserError if any of `count` files could not be read as `what`."""
    if bad:
        names = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise UserError(f"{len(bad)} of {count} files are not {what}: {names}")
