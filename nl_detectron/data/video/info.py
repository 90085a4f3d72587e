"""What is known of a video before a frame of it is decoded."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Self

import numpy as np

DEFAULT_RATE = 25
"""Frames a second of a file or a camera that does not say."""

FOLDER_RATE = 24.0
"""Frames a second of a folder of frames, as in Charades' own."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


class VideoError(Exception):
    """A video that cannot be read; the message is the reason, without the file's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamps:
    """Time stamps of all frames, in the order of presentation, rising.

    Most videos have a constant rate, so their stamps are a rounded multiple of a step. The others
    have a list. Frame i is shown ``(stamp i - first) * time_base`` seconds after the first.

    Args:
        time_base: seconds a unit.
        first: of the first frame; need not be 0.
        step: units from a frame to the next, a fraction, where that is constant.
        others: of all frames, where it is not.
    """

    time_base: Fraction
    first: int
    step: Fraction | None = None
    others: tuple[int, ...] = ()

    @classmethod
    def of(cls, stamps: Sequence[int], time_base: Fraction, rate: Fraction | None) -> Self:
        """Return the shortest form of `stamps`, which must rise."""
        steps = [] if rate is None else [1 / (rate * time_base)]
        if len(stamps) > 1:
            steps.append(Fraction(stamps[-1] - stamps[0], len(stamps) - 1))
        for step in steps:
            short = cls(time_base=time_base, first=stamps[0], step=step)
            if short.values(len(stamps)) == list(stamps):
                return short
        return cls(time_base=time_base, first=stamps[0], others=tuple(stamps))

    def values(self, num_frames: int) -> list[int]:
        if self.step is None:
            return list(self.others)
        numerator, denominator = self.step.numerator, self.step.denominator
        half = denominator // 2  # containers round to the nearest unit, half of one up
        return [self.first + (i * numerator + half) // denominator for i in range(num_frames)]


class Orientation(NamedTuple):
    """The way from a decoded frame to the frame that is shown: transpose, then flip."""

    transposed: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after a transposition, if there is one."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Return a view of pixels ``(H, W, 3)`` as they are shown."""
        pixels = pixels.swapaxes(0, 1) if self.transposed else pixels
        return pixels[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


UPRIGHT = Orientation()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameNames:
    """The names of a folder's frames: ``{prefix}{number}{suffix}``, without a gap."""

    prefix: str
    first: int
    digits: int
    suffix: str

    def name(self, index: int) -> str:
        return f"{self.prefix}{self.first + index:0{self.digits}d}{self.suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """A video file, or a folder of frames.

    Args:
        num_frames: that a full sequential decoding gives.
        rate: frames a second.
        height, width: in pixels, as shown.
        orientation: from decoded frames to shown ones.
        key_frames: indices of the frames where decoding can start; None: all frames; (): the file
            is decoded from its start.
        stamps: of a file.
        names: of a folder's frames.
    """

    num_frames: int
    rate: float
    height: int
    width: int
    orientation: Orientation = UPRIGHT
    key_frames: tuple[int, ...] | None = None
    stamps: Stamps | None = None
    names: FrameNames | None = None

    def key_frame(self, index: int) -> int:
        """Return the last frame up to `index` where decoding can start."""
        if self.key_frames is None:
            return index
        place = bisect.bisect_right(self.key_frames, index)
        return self.key_frames[place - 1] if place else 0

    def seconds(self, indices: Sequence[int]) -> list[float]:
        """Return when frames are shown, in seconds from the first frame."""
        if self.stamps is not None:
            stamps = self.stamps.values(self.num_frames)
            unit = self.stamps.time_base
            return [float((stamps[i] - stamps[0]) * unit) for i in indices]
        return [i / self.rate for i in indices]
