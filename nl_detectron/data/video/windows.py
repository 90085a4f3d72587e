"""Windows that slide over a video of known or unknown length."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from . import sampling
from .streaming import Frame


@dataclass(frozen=True, kw_only=True)
class Window:
    """Consecutive frames of a video, as a clip.

    Args:
        first_frame, last_frame: frame numbers in the video, from 0, both included.
        start, end: times in seconds from the video's first frame.
        clip: RGB uint8 ``(T, H, W, 3)``.
    """

    first_frame: int
    last_frame: int
    start: float
    end: float
    clip: np.ndarray


def sliding_windows(
    stream: Iterable[Frame], *, frames: int, stride: int, step: int | None = None
) -> Iterator[Window]:
    """Yield windows that slide over a stream of frames and cover every frame.

    Window k starts at frame ``k * step`` and lasts ``frames * stride`` frames. The last one ends
    with the video. A shorter video is one window, and its frames are repeated, as in training.

    Args:
        stream: frames of a video. One window of them is in memory at a time.
        frames, stride: frames and stride of a clip, ``INPUT.CLIP``.
        step: frames between the starts of windows, at most the length of one; default: half of it.

    Raises:
        ValueError: `step` is out of range.
    """
    length = frames * stride
    step = max(1, length // 2) if step is None else step
    if not 1 <= step <= length:
        raise ValueError(f"step must be 1 to {length}, a window's length, got {step}")
    kept: deque[Frame] = deque(maxlen=length)
    count = covered = 0  # frames of the stream so far, and those up to the end of a window
    for count, frame in enumerate(stream, 1):
        kept.append(frame)
        if count >= length and (count - length) % step == 0:
            yield _window(kept, count, frames, stride)
            covered = count
    if count > covered:
        yield _window(kept, count, frames, stride)


def _window(kept: Sequence[Frame], count: int, frames: int, stride: int) -> Window:
    """Return the window of the last frames, `kept`, of the first `count` of a stream."""
    (chosen,) = sampling.even_clips(len(kept), clips=1, frames=frames, stride=stride)
    return Window(
        first_frame=count - len(kept),
        last_frame=count - 1,
        start=float(kept[0].start),
        end=float(kept[-1].end),
        clip=np.stack([kept[i].pixels for i in chosen]),
    )
