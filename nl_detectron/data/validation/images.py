"""Problems of image files, found by reading them as training does."""

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from detectron2.data.detection_utils import read_image
from detectron2.utils.file_io import PathManager
from PIL import Image
from tqdm.contrib.concurrent import thread_map

from .coco import Entry, image_name, image_size
from .kinds import Problem, error_text

THREADS = 4

T = TypeVar("T")


def problems_of_images(
    images: Sequence[Entry], folder: Path, *, decode: bool = True, progress: bool = False
) -> Iterator[Problem]:
    """Yield the problems of the files of `images` in `folder`.

    Args:
        images: entries of an annotation file.
        folder: folder that their ``file_name`` starts from.
        decode: read every image; otherwise only check that its file exists and is not empty.
        progress: show a progress bar on standard error.
    """

    def find(image: Entry) -> Problem | None:
        path = os.path.join(folder, image["file_name"])
        problem = image_error(path, image_size(image)) if decode else file_error(path)
        return problem and Problem(problem[0], image_name(image), f"{path!r}: {problem[1]}")

    named = [image for image in images if image.get("file_name") is not None]
    yield from problems_of_each(named, find, unit="image", progress=progress)


def problems_of_each(
    items: Collection[T], find: Callable[[T], Problem | None], *, unit: str, progress: bool
) -> Iterator[Problem]:
    """Yield the problem that `find` returns for an item, if any, under a progress bar."""
    # Decoding releases the interpreter's lock, so threads suffice.
    workers = min(THREADS, os.cpu_count() or 1)
    found = thread_map(find, items, max_workers=workers, unit=unit, disable=not progress)
    yield from filter(None, found)


def file_error(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """Return kind and detail of a file's problem, without reading it."""
    if not os.path.isfile(path):
        return "missing-image", "it is a folder" if os.path.isdir(path) else "no such file"
    return ("empty-image-file", "0 bytes") if os.path.getsize(path) == 0 else None


def header_error(path: str) -> tuple[str, str] | None:
    """Return the problem of a file that has deep pixels, without decoding it.

    For a file that is no image, Pillow's error is raised.
    """
    with PathManager.open(path, "rb") as file, Image.open(file) as image:
        return depth_error(image.mode)


def depth_error(mode: str) -> tuple[str, str] | None:
    """Return the problem of an image with a mode of Pillow; None for 8 bits per channel."""
    return ("image-depth", f"mode {mode}") if mode.startswith(("I", "F")) else None


def image_error(path: str, expected_size: tuple[int, int] | None) -> tuple[str, str] | None:
    """Return kind and detail of an image's problem, as `file_error` does.

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
        return "unreadable-image", error_text(failure)
    if expected_size is not None and (width, height) != expected_size:
        expected = "x".join(map(str, expected_size))
        return "image-size", f"the file has {width}x{height} pixels, the annotations say {expected}"
    return None
