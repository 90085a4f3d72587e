"""Picture files that a person names on a command line."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.data.detection_utils import read_image

from .engine import check_datasets
from .errors import UserError

WHAT = (
    "pictures, folders of them, patterns such as 'photos/*.jpg', a data set's name, or NAME:COUNT "
    "for its first few"
)


def list_pictures(inputs: Iterable[str]) -> list[Path]:
    """Return the files that are meant, in order; whether they are pictures shows on reading."""
    files: list[Path] = []
    for item in inputs:
        name, _, count = item.partition(":")
        if name in DatasetCatalog and not Path(item).exists():
            if count and not count.isdecimal():
                raise UserError(f"--input {item}: '{count}' is no number")
            check_datasets([name])
            records = DatasetCatalog.get(name)[: int(count) if count else None]
            found = [Path(record["file_name"]) for record in records]
        elif Path(item).is_dir():
            found = sorted(p for p in Path(item).iterdir() if p.is_file() and p.name[0] != ".")
        elif Path(item).exists():
            found = [Path(item)]
        else:
            found = sorted(Path(name) for name in glob.glob(os.path.expanduser(item)))
        if not found:
            raise UserError(f"--input {item}: there is no such file, or it is an empty folder")
        files += found
    return files


def read_picture(file: Path) -> np.ndarray:
    """The picture (H, W, 3), BGR, uint8; UserError if it cannot be read."""
    try:
        return read_image(str(file), format="BGR")
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises on bad files
        raise UserError(f"{file}: {error}") from error


def report_bad(bad: list[Path], count: int) -> None:
    """Raise UserError if any of `count` files could not be read."""
    if bad:
        names = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise UserError(f"{len(bad)} of {count} files are no pictures: {names}")
