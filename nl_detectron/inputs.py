"""The images that a command line names: files, folders, patterns and data sets."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from detectron2.data import DatasetCatalog

from .data import check_datasets
from .errors import UserError

WHAT = (
    "images, folders of them, patterns such as 'photos/*.jpg', a data set's name, or NAME:COUNT "
    "for its first few"
)


def list_images(inputs: Iterable[str]) -> list[Path]:
    """Return the files that are meant, in order; whether they are images shows on reading."""
    files: list[Path] = []
    for item in inputs:
        name, _, count = item.partition(":")
        if name in DatasetCatalog and not os.path.exists(item):
            if count and not count.isdecimal():
                raise UserError(f"--input {item}: '{count}' is not a number")
            check_datasets([name])
            records = DatasetCatalog.get(name)[: int(count) if count else None]
            found = [Path(record["file_name"]) for record in records]
        elif os.path.isdir(item):
            found = sorted(p for p in Path(item).iterdir() if p.is_file() and p.name[0] != ".")
        elif os.path.exists(item):
            found = [Path(item)]
        else:
            found = sorted(Path(name) for name in glob.glob(os.path.expanduser(item)))
        if not found:
            raise UserError(f"--input {item}: there is no such file, or it is an empty folder")
        files += found
    return files


def report_bad(bad: list[Path], count: int, *, what: str = "images") -> None:
    """Raise UserError if any of `count` files could not be read as `what`."""
    if bad:
        names = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise UserError(f"{len(bad)} of {count} files are not {what}: {names}")
