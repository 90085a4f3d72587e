"""Metadata of a video, available before a frame is decoded."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np

DEFAULT_RATE = 25
"""Frames per second of a file or a camera without a rate."""

FOLDER_RATE = 24.0
"""Frames per second of a folder of frames, as in Charades."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class VideoError(Exception):
    """A video that cannot be read; the message is the reason, without the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """Time stamps of all frames, in the order of presentation, ascending.

    Most videos have a constant rate, so their stamps are rounded multiples of a step. The others
    have a list. Frame i is shown ``(stamp i - first) * time_base`` seconds after the first.

    Args:
        time_base: seconds per unit.
        first: time stamp of the first frame; need not be 0.
        step: units between frames, a fraction, if the rate is constant.
        others: time stamps of all frames if it is not.
    """

    time_base: Fraction
    first: int
    step: Fraction | None = None
    others: tuple[int, ...] = ()

    @classmethod
    def of(cls, stamps: list[int], time_base: Fraction, rate: Fraction) -> Self:
        """Return the shortest form of `stamps`, which must ascend."""
        short = cls(time_base=time_base, first=stamps[0], step=1 / (rate * time_base))
        if short.values(len(stamps)) == stamps:
            return short
        return cls(time_base=time_base, first=stamps[0], others=tuple(stamps))

    def values(self, num_frames: int) -> list[int]:
        if self.step is None:
            return list(self.others)
        numerator, denominator = self.step.numerator, self.step.denominator
        half = denominator // 2  # containers round to the nearest unit, half of one up
        return [self.first + (i * numerator + half) // denominator for i in range(num_frames)]


class Orientation(NamedTuple):
    """Transformation of a decoded frame for display: transpose, then flip."""

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after a transposition, if there is one."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return an oriented view of pixels ``(H, W, 3)``."""
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        return pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


UPRIGHT = Orientation()


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """A video file, or a folder of frames.

    Args:
        num_frames: number of frames of a full sequential decoding.
        rate: frames per second.
        height, width: size in pixels after orientation.
        orientation: transformation from decoded to displayed frames.
        key_frames: indices of frames that decoding can start from; None for all frames, () to
            decode the file from its start.
        stamps: time stamps of a file.
        pattern: names of a folder's frames with their number as ``%06d``; "" for a file.
        first_number: number of a folder's first frame.
    """

    num_frames: int
    rate: float
    height: int
    width: int
    orientation: Orientation = UPRIGHT
    key_frames: tuple[int, ...] | None = None
    stamps: Stamps | None = None
    pattern: str = ""
    first_number: int = 0

    def frame_name(self, index: int) -> str:
        """Return the file name of a folder's frame."""
        return self.pattern % (self.first_number + index)

    def key_frame(self, index: int) -> int:
        """Return the last frame up to `index` that decoding can start from."""
        if self.key_frames is None:
            return index
        place = bisect.bisect_right(self.key_frames, index)
        return self.key_frames[place - 1] if place else 0

    def seconds(self, indices: Sequence[int]) -> list[float]:
        """Return the display times of frames in seconds from the first frame."""
        if self.stamps is not None:
            stamps = self.stamps.values(self.num_frames)
            unit = self.stamps.time_base
            return [float((stamps[i] - stamps[0]) * unit) for i in indices]
        return [i / self.rate for i in indices]
