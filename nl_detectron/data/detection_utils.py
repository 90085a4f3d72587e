"""Model inputs from image files, arrays, PIL images and tensors."""

import os
from typing import TypeAlias

import numpy as np
import torch
from detectron2.data import detection_utils
from PIL import Image

from ..utils.errors import DataError, UserError
from .validation.images import depth_error, header_error, image_error
from .validation.kinds import KINDS

ImageInput: TypeAlias = str | os.PathLike[str] | np.ndarray | Image.Image | torch.Tensor


def read_image(file: str | os.PathLike[str], format: str = "BGR") -> np.ndarray:
    """Read an image as training does, (H, W, C), rotated by its EXIF data.

    Args:
        file: an image with 8 bits per channel.
        format: format of the channels, as in ``INPUT.FORMAT``.

    Raises:
        DataError: the file is unreadable as an image, or has more than 8 bits per channel.
    """
    path, cause = os.fspath(file), None
    try:
        if (problem := header_error(path)) is None:
            return detection_utils.read_image(path, format=format)
    except Exception as error:  # Pillow's decoders raise errors of any type on hostile bytes
        problem, cause = image_error(path, None) or ("unreadable-image", str(error)), error
    kind, detail = problem
    raise DataError(f"{path}: {KINDS[kind].meaning} ({detail})") from cause


def to_array(image: ImageInput, format: str = "BGR") -> np.ndarray:
    """Return an image of any kind as (H, W, C) in the channels of `format`.

    Args:
        image: a file; an array (H, W, 3) of uint8 in BGR order, as OpenCV reads it; a tensor
            (3, H, W) of uint8 in RGB order, as torchvision reads it; or a PIL image, which is not
            rotated.
        format: format of the channels, as in ``INPUT.FORMAT``.

    Raises:
        UserError: a file is unreadable, or an image has more than 8 bits per channel.
        ValueError: an array or tensor has another shape or type.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(image, format)
    if isinstance(image, torch.Tensor):
        pixels = image.permute(1, 2, 0).cpu().numpy() if image.dim() == 3 else image.cpu().numpy()
        image = _from_rgb(pixels, "a tensor (3, H, W)")
    elif isinstance(image, np.ndarray):
        image = _from_rgb(image[..., ::-1], "an array (H, W, 3)")
    if problem := depth_error(image.mode):
        raise UserError(f"the image: {KINDS[problem[0]].meaning} ({problem[1]})")
    return detection_utils.convert_PIL_to_numpy(image, format)


def _from_rgb(pixels: np.ndarray, expected: str) -> Image.Image:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected {expected} of uint8, got {pixels.shape} of {pixels.dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels))
