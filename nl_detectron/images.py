"""Image files that a person names on a command line."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from .data import check_datasets
from .dataset_check import KINDS
from .dataset_check.images import image_fault, special_file
from .errors import UserError

WHAT = (
    "images, folders of them, patterns such as 'photos/*.jpg', a data set's name, or NAME:COUNT "
    "for its first few"
)


def list_images(inputs: Iterable[str]) -> list[Path]:
    """Return the files, in order, without reading them."""
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


def read_image(file: str | os.PathLike[str], format: str = "BGR") -> np.ndarray:
    """Return an image as training sees it: (H, W, 3), uint8, rotated as its EXIF data says.

    Raises:
        UserError: the file cannot be read as an image, or has more than 8 bits a channel, of
            which Pillow would keep only the darkest.
    """
    path = os.fspath(file)
    if fault := special_file(path):
        raise UserError(f"{path}: {fault[1]}, not an image")
    try:
        with PathManager.open(path, "rb") as opened, Image.open(opened) as header:
            mode = header.mode
        image = detection_utils.read_image(path, format=format)
    except Exception as error:  # Pillow's decoders raise errors of any type on hostile bytes
        kind, detail = image_fault(path, None) or ("unreadable-image", str(error))
        raise UserError(f"{path}: {KINDS[kind].meaning} ({detail})") from error
    if mode.startswith(("I", "F")):
        raise UserError(f"{path}: has more than 8 bits a channel ({mode}); convert it to 8 bits")
    return image


def report_bad(bad: list[Path], count: int) -> None:
    """Raise UserError if any of `count` files could not be read."""
    if bad:
        names = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise UserError(f"{len(bad)} of {count} files are not images: {names}")
