"""Windows that slide over a video of known or unknown length."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from detectron2.config import CfgNode

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


class SlidingWindows:
    """Windows over a stream of frames, which cover every frame.

    Window k starts at frame ``k * step`` and lasts ``frames * stride`` frames. If the last one is
    shorter, its frames are repeated, as for a short video in training.

    Args:
        frames, stride: frames and stride of a clip, ``INPUT.CLIP``.
        step: frames between the starts of windows, at most the length of one; default: half of it.
    """

    def __init__(self, *, frames: int, stride: int, step: int | None = None) -> None:
        self.frames, self.stride = frames, stride
        self.length = frames * stride
        self.step = max(1, self.length // 2) if step is None else step
        if not 1 <= self.step <= self.length:
            raise ValueError(f"step must be 1 to {self.length}, a window's length, got {step}")
        self._kept: list[Frame] = []
        self._first = 0  # number of the first frame kept
        self._covered = 0  # frames from the beginning that windows have covered

    @classmethod
    def from_config(cls, cfg: CfgNode, *, step: int | None = None) -> Self:
        return cls(frames=cfg.INPUT.CLIP.FRAMES, stride=cfg.INPUT.CLIP.STRIDE, step=step)

    def push(self, frame: Frame) -> Window | None:
        """Take the next frame; return the window that it completes, if any."""
        self._kept.append(frame)
        if len(self._kept) < self.length:
            return None
        window = self._window()
        self._covered = self._first + self.length
        self._first += self.step
        del self._kept[: self.step]
        return window

    def finish(self) -> Window | None:
        """Return the last window if it has frames that no other window has."""
        return self._window() if self._first + len(self._kept) > self._covered else None

    def cut(self, frames: Iterable[Frame]) -> Iterator[Window]:
        """Yield the windows of all frames."""
        for frame in frames:
            if window := self.push(frame):
                yield window
        if window := self.finish():
            yield window

    def _window(self) -> Window:
        kept = self._kept
        (chosen,) = sampling.even_clips(len(kept), clips=1, frames=self.frames, stride=self.stride)
        return Window(
            first_frame=self._first,
            last_frame=self._first + len(kept) - 1,
            start=float(kept[0].start),
            end=float(kept[-1].end),
            clip=np.stack([kept[i].pixels for i in chosen]),
        )
