"""A clip of a video and the points in it."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.video.sampling import scaled_size
from ..utils.errors import DataError, UserError

SHOWN_SIDE = 360
"""Largest shorter side of the drawn frames."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A point whose attention is computed.

    Args:
        x, y: continuous coordinates in an image or a frame; the center of pixel (3, 5) is
            (3.5, 5.5).
        label: name in pictures.
        frame: number of the frame in the clip; an image has one frame.
    """

    x: float
    y: float
    label: str
    frame: int = 0


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Frames of a video, at two sizes.

    Args:
        file: the video.
        numbers: numbers of the T frames in the video.
        size: height and width of the video; all coordinates are in its pixels.
        frames: RGB uint8 (T, H, W, 3), to draw.
        pixels: RGB uint8 (3, T, H', W'), for the network.
        rate: frames of the clip per second.
    """

    file: Path
    numbers: np.ndarray
    size: tuple[int, int]
    frames: np.ndarray
    pixels: Tensor
    rate: float

    def query(self, number: int, x: float, y: float) -> Query:
        """Return the query at (x, y) of the clip's frame for frame `number` of the video.

        Raises:
            UserError: the point is outside the frame, or `number` outside the clip.
        """
        height, width = self.size
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"the point ({x:g}, {y:g}) is outside {self.file}, whose frames have {width} x "
                f"{height} pixels"
            )
        first, last = int(self.numbers.min()), int(self.numbers.max())
        if not first <= number <= last:
            raise UserError(
                f"frame {number} of {self.file} is outside the clip, which has frames {first} to "
                f"{last}; choose another with --start"
            )
        frame = int(np.abs(self.numbers - number).argmin())
        return self.point(frame, x, y)

    def point(self, frame: int, x: float, y: float, *, label: str = "") -> Query:
        """Return the query at (x, y) of frame `frame` of the clip, labeled with its place."""
        place = f"frame {self.numbers[frame]} ({int(x)}, {int(y)})"
        return Query(frame=frame, x=x, y=y, label=f"{label}: {place}" if label else place)


def read_clip(
    path: str | os.PathLike[str],
    *,
    frames: int,
    stride: int,
    short_side: int,
    start: int | None = None,
) -> Clip:
    """Read one clip of a video file or a folder of frames, whole frames without a crop.

    Args:
        frames, stride: as in ``INPUT.CLIP``. A video that is shorter than the clip is repeated.
        short_side: shorter side of the frames for the network, in pixels.
        start: number of the clip's first frame; by default the clip is in the video's middle.

    Raises:
        DataError: the video cannot be read.
        UserError: `start` is outside the video, or PyAV is not installed.
    """
    # Only videos need PyAV.
    from ..data.video.info import VideoError
    from ..data.video.probing import probe
    from ..data.video.reading import read_frames

    try:
        info = probe(path)
        if start is None:
            start = max(0, info.num_frames - frames * stride) // 2
        elif not 0 <= start < info.num_frames:
            raise UserError(
                f"--start must be 0 to {info.num_frames - 1}, a frame of {os.fspath(path)}, got "
                f"{start}"
            )
        numbers = (start + stride * np.arange(frames)) % info.num_frames
        size = (info.height, info.width)
        pixels = read_frames(path, numbers, info, size=scaled_size(*size, short_side))
        shown = read_frames(path, numbers, info, size=scaled_size(*size, min(SHOWN_SIDE, *size)))
    except VideoError as error:
        raise DataError(f"video '{os.fspath(path)}': {error}") from error
    return Clip(
        file=Path(path),
        numbers=numbers,
        size=size,
        frames=shown,
        pixels=torch.from_numpy(np.ascontiguousarray(pixels.transpose(3, 0, 1, 2))),
        rate=info.rate / stride,
    )
