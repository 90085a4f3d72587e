"""Writing of frames as a video or an animation."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self, cast

import numpy as np

from ...utils.errors import UserError
from .decoding import av
from .streaming import Frame

CODECS = {".mp4": "libx264", ".mkv": "libx264", ".mov": "libx264", ".webm": "libvpx-vp9"}
"""The encoder of each supported format."""

_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"},
}
_TICK = Fraction(1, 90_000)  # seconds, MPEG's clock: a multiple for all usual rates


class VideoWriter:
    """Video writer that keeps the display times of frames.

    It is a context manager, which writes the end of the video on leaving.

    An odd height or width grows by one pixel, since the encoders take colors of 2 x 2 pixels.

    Args:
        path: file to write, in a format of `CODECS`; an existing one is replaced.
        size: height and width of the frames.
        rate: frames per second, on average.
        is_constant: write frames at exactly `rate`. With the same libraries, the same frames give
            the same bytes. The file is larger.

    Raises:
        UserError: `path` cannot be written, here or later.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        rate: Fraction,
        is_constant: bool = False,
    ) -> None:
        codec = CODECS[path.suffix.lower()]
        options = _OPTIONS[codec]
        if is_constant:
            # x264's slower presets read uninitialized memory, so their bytes can differ.
            options = options | {"preset": "ultrafast", "threads": "1"}
        self._tick = 1 / (1024 * rate) if is_constant else _TICK
        self.path = path
        self._next = 0  # the first free tick
        self._padding = [(0, size[0] % 2), (0, size[1] % 2), (0, 0)]
        with self._errors():
            self._container = av.open(str(path), "w")
            self._stream = cast(
                av.VideoStream,
                self._container.add_stream(
                    codec, rate=rate.limit_denominator(1001), options=options
                ),
            )
            self._stream.height, self._stream.width = (side + side % 2 for side in size)
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = self._tick

    def write(self, frame: Frame) -> None:
        """Write a frame, RGB uint8 of the given size."""
        with self._errors():
            encoded = av.VideoFrame.from_ndarray(np.pad(frame.pixels, self._padding, "edge"))
            encoded.pts = max(round(frame.start / self._tick), self._next)
            encoded.duration = max(round(frame.end / self._tick) - encoded.pts, 1)
            self._next = encoded.pts + 1
            encoded.time_base = self._tick
            self._container.mux(self._stream.encode(encoded))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with self._errors(), self._container:
            if error is None:
                self._container.mux(self._stream.encode())

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise UserError(
                f"cannot write {self.path}: {getattr(error, 'strerror', None) or error}"
            ) from error


def write_video(path: Path, frames: np.ndarray, *, rate: int) -> None:
    """Write frames at a constant rate; the same frames give the same bytes.

    Args:
        path: file to write, in a format of `CODECS`.
        frames: RGB uint8 ``(T, H, W, 3)``.
        rate: frames per second.

    Raises:
        UserError: `path` cannot be written.
    """
    size, seconds = (frames.shape[1], frames.shape[2]), Fraction(1, rate)
    with VideoWriter(path, size=size, rate=Fraction(rate), is_constant=True) as writer:
        for number, pixels in enumerate(frames):
            start = number * seconds
            writer.write(Frame(pixels=pixels, start=start, end=start + seconds))
