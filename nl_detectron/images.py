"""Reading one image file as training reads it."""

import os

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from .dataset_check import KINDS
from .dataset_check.images import image_error, special_file
from .errors import UserError


def read_image(file: str | os.PathLike[str], format: str = "BGR") -> np.ndarray:
    """Return an image as training sees it: (H, W, 3), uint8, rotated as its EXIF data says.

    Raises:
        UserError: the file cannot be read as an image, or has more than 8 bits a channel, of
            which Pillow would keep only the darkest.
    """
    path = os.fspath(file)
    if error := special_file(path):
        raise UserError(f"{path}: {error[1]}, not an image")
    try:
        with PathManager.open(path, "rb") as opened, Image.open(opened) as header:
            mode = header.mode
        image = detection_utils.read_image(path, format=format)
    except Exception as error:  # Pillow's decoders raise errors of any type on hostile bytes
        kind, detail = image_error(path, None) or ("unreadable-image", str(error))
        raise UserError(f"{path}: {KINDS[kind].meaning} ({detail})") from error
    if mode.startswith(("I", "F")):
        raise UserError(f"{path}: has more than 8 bits a channel ({mode}); convert it to 8 bits")
    return image
