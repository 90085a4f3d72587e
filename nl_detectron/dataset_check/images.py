"""What can be wrong with image files. They are read as training reads them."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from detectron2.data.detection_utils import read_image
from detectron2.utils.file_io import PathManager
from PIL import Image
from tqdm import tqdm

from .. import files
from .coco import Entry, image_name
from .kinds import Problem, error, error_text

THREADS = 4

MISSING = error(
    "missing-image", "an image's file is not there", "add the file, or remove the image's entry"
)
EMPTY = error("empty-image-file", "an image's file has no bytes", "copy the image again")
TRUNCATED = error("truncated-image", "an image's file is cut off", "copy the image again")
UNREADABLE = error(
    "unreadable-image", "an image's file cannot be read as an image", "copy or convert it again"
)
DEPTH = error(
    "image-depth",
    "an image has more than 8 bits a channel: all but its darkest values would be white",
    "convert it to 8 bits, with the range of values that matters",
)
SIZE = error(
    "image-size",
    "an image has another size than its entry says; Detectron2 refuses it",
    "correct width and height: of the image as its EXIF orientation turns it",
)


def problems_of_images(
    images: Sequence[Entry], folder: Path, *, decode: bool = True, progress: bool = False
) -> Iterator[Problem]:
    """Yield what is wrong with the files of `images` in `folder`.

    Args:
        images: entries of an annotation file.
        folder: what their ``file_name`` is relative to.
        decode: read every image; otherwise only see whether its file is there and has bytes.
        progress: show a progress bar on standard error.
    """

    def look(image: Entry) -> Problem | None:
        path = os.path.join(folder, image["file_name"])
        problem = file_error(path) if not decode else image_error(path, image_size(image))
        return problem and Problem(problem[0], image_name(image), f"{path!r}: {problem[1]}")

    named = [image for image in images if image.get("file_name") is not None]
    # Decoding holds no lock of the interpreter, so threads suffice.
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        found = pool.map(look, named)
        yield from filter(None, tqdm(found, total=len(named), unit="image", disable=not progress))


def image_size(image: Entry) -> tuple[int, int] | None:
    """Return width and height as an entry or a dataset dict gives them, None if it does not."""
    width, height = image.get("width"), image.get("height")
    return None if width is None or height is None else (width, height)


def file_error(path: str) -> tuple[str, str] | None:
    """Return the kind and the detail of what is wrong with a file, without reading it."""
    if problem := special_file(path):
        return problem
    if not os.path.isfile(path):
        return MISSING, "it is a folder" if os.path.isdir(path) else "no such file"
    return (EMPTY, "0 bytes") if os.path.getsize(path) == 0 else None


def special_file(path: str) -> tuple[str, str] | None:
    """Return the problem of a pipe, socket or device, which are never read; None for all else."""
    kind = files.special_file(path)
    return None if kind is None else (UNREADABLE, f"it is {kind}")


def header_error(path: str) -> tuple[str, str] | None:
    """Return the problem of a file that is special or has deep pixels, without decoding it.

    Raises whatever Pillow does of a file that is no image.
    """
    if problem := special_file(path):
        return problem
    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        return depth_error(image.mode)


def depth_error(mode: str) -> tuple[str, str] | None:
    """Return the problem of an image with a mode of Pillow; None for 8 bits a channel."""
    return (DEPTH, f"mode {mode}") if mode.startswith(("I", "F")) else None


def image_error(path: str, expected_size: tuple[int, int] | None) -> tuple[str, str] | None:
    """Return the kind and the detail of what is wrong with an image, as `file_error` does.

    Args:
        path: the image's file.
        expected_size: width and height; None if they are unknown.
    """
    if problem := file_error(path):
        return problem
    try:
        if problem := header_error(path):
            return problem
        height, width = read_image(path, format="RGB").shape[:2]
    except Exception as failure:  # Pillow's decoders raise errors of any type on hostile bytes
        is_cut_off = isinstance(failure, OSError) and "truncated" in str(failure)
        return (TRUNCATED if is_cut_off else UNREADABLE), error_text(failure)
    if expected_size is not None and (width, height) != expected_size:
        expected = "x".join(map(str, expected_size))
        return SIZE, f"the file has {width}x{height} pixels, the annotations say {expected}"
    return None
