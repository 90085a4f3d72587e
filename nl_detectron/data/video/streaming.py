"""Streams of frames in constant memory: from files, folders of frames, and a camera."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import cv2
import numpy as np

from .decoding import (
    VideoReformatter,
    decode,
    opened,
    orientation_of,
    rate_of,
    shown,
    time_base_of,
    video_stream,
)
from .info import DEFAULT_RATE, FOLDER_RATE, UPRIGHT, VideoError, VideoInfo
from .probing import probe
from .reading import read_images

Scale: TypeAlias = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame with its display time.

    Args:
        pixels: RGB uint8 ``(H, W, 3)``.
        start, end: display time in seconds from the first frame.
    """

    pixels: np.ndarray
    start: Fraction
    end: Fraction


class VideoStream:
    """All frames of a video file or of a folder of frames; can be iterated more than once.

    If decoding fails before the end of the video, iteration raises `VideoError` after the last
    good frame.

    Args:
        path: path of the file or folder.
        scale: function from height and width of the frames to the wanted ones; None keeps them.

    Attributes:
        expected: number of frames in the file's header; None if it has none.
        rate: frames per second.

    Raises:
        VideoError: the video cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], *, scale: Scale | None = None) -> None:
        self.path = path
        self._scale: Scale = scale or (lambda height, width: (height, width))
        self._folder = probe(path) if os.path.isdir(path) else None
        if self._folder is not None:
            self.rate = Fraction(FOLDER_RATE)
            self.expected: int | None = self._folder.num_frames
            return
        with opened(path) as (container, _):
            stream = video_stream(container)
            self.rate = rate_of(stream)
            seconds = Fraction(container.duration or 0, 1_000_000)
            self.expected = stream.frames or round(seconds * self.rate) or None

    def __iter__(self) -> Iterator[Frame]:
        return self._of_file() if self._folder is None else self._of_folder(self._folder)

    def _of_folder(self, info: VideoInfo) -> Iterator[Frame]:
        size = self._scale(info.height, info.width)
        for index, pixels in read_images(self.path, range(info.num_frames), info, size):
            yield Frame(pixels=pixels, start=index / self.rate, end=(index + 1) / self.rate)

    def _of_file(self) -> Iterator[Frame]:
        reformatter, orientation = VideoReformatter(), UPRIGHT
        size: tuple[int, int] | None = None
        with opened(self.path) as (container, log):
            stream = video_stream(container)
            unit = time_base_of(stream)
            for frame, start, end in decode(container, stream, log):
                if size is None:
                    orientation = orientation_of(frame)
                    size = self._scale(*orientation.size(frame.height, frame.width))
                    first = start
                yield Frame(
                    pixels=shown(frame, reformatter, size, orientation),
                    start=(start - first) * unit,
                    end=(end - first) * unit,
                )


class Camera:
    """Frames of the first camera, as long as it gives any.

    Raises:
        VideoError: there is no camera.
    """

    expected: int | None = None

    def __init__(self) -> None:
        self._capture = cv2.VideoCapture(0)
        if not self._capture.isOpened():
            raise VideoError("expected a camera, found none")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(rate if 1 <= rate <= 1000 else DEFAULT_RATE).limit_denominator(1001)

    def __iter__(self) -> Iterator[Frame]:
        first = time.monotonic()
        while True:
            there, pixels = self._capture.read()
            if not there:
                return
            start = Fraction(time.monotonic() - first)
            yield Frame(
                pixels=np.ascontiguousarray(pixels[..., ::-1]),
                start=start,
                end=start + 1 / self.rate,
            )
