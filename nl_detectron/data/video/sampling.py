"""Sampling of a clip's frames and crops, as in the paper (section 4.1) and the official code.

All functions are pure; random ones take a generator.
"""

from collections.abc import Sequence

import numpy as np


def random_clip(
    num_frames: int, *, frames: int, stride: int, random: np.random.Generator
) -> np.ndarray:
    """Return the frame numbers ``(frames,)`` of a training clip.

    Its start is uniform in ``[0, num_frames - frames * stride]``. A video that is shorter than a
    clip is repeated.
    """
    last = max(0, num_frames - frames * stride)
    start = int(random.integers(0, last + 1))
    return _clip(num_frames, start, frames, stride)


def even_clips(num_frames: int, *, clips: int, frames: int, stride: int) -> np.ndarray:
    """Return the frame numbers ``(clips, frames)`` of a video's clips for testing.

    Clip k starts at ``floor(num_frames / clips * k)``. A clip that exceeds the end of the video
    continues at its beginning, as in the official code.
    """
    starts = even_starts(num_frames, clips)
    return np.stack([_clip(num_frames, start, frames, stride) for start in starts])


def even_starts(num_frames: int, clips: int) -> list[int]:
    """Return the first frames of a video's clips for testing."""
    return [num_frames * k // clips for k in range(clips)]


def _clip(num_frames: int, start: int, frames: int, stride: int) -> np.ndarray:
    return (start + stride * np.arange(frames)) % num_frames


def random_short_side(sizes: Sequence[int], *, is_range: bool, random: np.random.Generator) -> int:
    """Return a size in pixels: a whole number between two, both included, or one of `sizes`."""
    if is_range:
        return int(random.integers(sizes[0], sizes[1] + 1))
    return int(sizes[int(random.integers(len(sizes)))])


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return height and width scaled to the shorter side `short_side`, rounded."""
    short = min(height, width)
    height, width = ((2 * side * short_side + short) // (2 * short) for side in (height, width))
    return height, width


def random_crop(
    height: int, width: int, crop: tuple[int, int], random: np.random.Generator
) -> tuple[slice, slice]:
    """Return rows and columns of a crop of size `crop` at a random place of the frame."""
    y, x = (
        int(random.integers(0, side - part + 1))
        for side, part in zip((height, width), crop, strict=True)
    )
    return slice(y, y + crop[0]), slice(x, x + crop[1])


def mirrored(window: tuple[slice, slice], width: int) -> tuple[slice, slice]:
    """Return the window with its columns from right to left, in frames of this width."""
    rows, columns = window
    start, stop, _ = columns.indices(width)
    return rows, slice(stop - 1, start - 1 if start else None, -1)


def even_crops(height: int, width: int, crops: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of squares at even distances along the longer side.

    Three squares are at its beginning, middle and end; a single one is in the middle.
    """
    short, rest = min(height, width), abs(height - width)
    offsets = [rest // 2] if crops == 1 else [rest * c // (crops - 1) for c in range(crops)]
    whole = slice(0, short)
    along = [slice(offset, offset + short) for offset in offsets]
    return [(whole, part) if width >= height else (part, whole) for part in along]
