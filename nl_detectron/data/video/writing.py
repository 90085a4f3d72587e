"""Writing of frames as a video or an animation, with times and sound of another video."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Self, cast

import numpy as np
from PIL import Image

from ...utils.errors import UserError
from .decoding import av, opened
from .info import VideoError
from .streaming import Frame

CODECS = {".mp4": "libx264", ".mkv": "libx264", ".mov": "libx264", ".webm": "libvpx-vp9"}
"""The encoder of each supported format."""

_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0"},
}
_TICK = Fraction(1, 90_000)  # seconds, MPEG's clock: a multiple for all usual rates


class VideoWriter:
    """Video writer that keeps the display times of frames; a context manager.

    An odd height or width grows by one pixel, since the encoders take colours of 2 x 2 pixels.

    Args:
        path: file to write, in a format of `CODECS`; an existing one is replaced.
        size: height and width of the frames.
        rate: frames per second, on average.
        sound_of: file whose first audio stream is copied unchanged; None for none.
        origin: time of the first frame in that file's clock, in seconds.
        is_constant: write frames at exactly `rate`. With the same libraries, the same frames give
            the same bytes. The file is larger.

    Attributes:
        lost_sound: reason if the sound of `sound_of` is missing; "" otherwise.

    Raises:
        UserError: `path` cannot be written, here or later.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        rate: Fraction,
        sound_of: str | os.PathLike[str] | None = None,
        origin: Fraction = Fraction(0),
        is_constant: bool = False,
    ) -> None:
        codec = codec_for(path)
        options = _OPTIONS[codec]
        if is_constant:
            # x264's slower presets read uninitialized memory, so their bytes can differ.
            options = options | {"preset": "ultrafast", "threads": "1"}
        self._tick = 1 / (1024 * rate) if is_constant else _TICK
        self.path, self.lost_sound = path, ""
        self._end = Fraction(0)
        self._next = 0  # the first free tick
        self._padding = [(0, size[0] % 2), (0, size[1] % 2), (0, 0)]
        self._closing = contextlib.ExitStack()
        with self._errors():
            self._container = self._closing.enter_context(av.open(str(path), "w"))
            self._stream = cast(
                av.VideoStream,
                self._container.add_stream(
                    codec, rate=rate.limit_denominator(1001), options=options
                ),
            )
            self._stream.height, self._stream.width = (side + side % 2 for side in size)
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = self._tick
            self._sound = self._open_sound(sound_of, origin) if sound_of else iter(())
            self._next_sound = next(self._sound, None)

    def write(self, frame: Frame) -> None:
        """Write a frame, RGB uint8 of the given size, and the sound up to its start."""
        with self._errors():
            self._copy_sound(until=frame.start)
            encoded = av.VideoFrame.from_ndarray(np.pad(frame.pixels, self._padding, "edge"))
            encoded.pts = max(round(frame.start / self._tick), self._next)
            encoded.duration = max(round(frame.end / self._tick) - encoded.pts, 1)
            self._next = encoded.pts + 1
            encoded.time_base = self._tick
            self._container.mux(self._stream.encode(encoded))
            self._end = frame.end

    def finish(self, *, is_whole: bool = True) -> None:
        """Write the end of the video, with the rest of the sound if `is_whole`."""
        with self._errors():
            self._copy_sound(until=None if is_whole else self._end)
            self._container.mux(self._stream.encode())
            self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(av.FFmpegError, OSError):
            self._closing.close()

    def _open_sound(
        self, source: str | os.PathLike[str], origin: Fraction
    ) -> Iterator["av.Packet"]:
        container, _ = self._closing.enter_context(opened(source))
        if not container.streams.audio:
            return iter(())
        stream = container.streams.audio[0]
        name = stream.codec_context.name if stream.codec_context else "of an unknown kind"
        try:
            if name not in self._container.supported_codecs:
                raise ValueError
            copy = self._container.add_stream_from_template(stream)
        except (av.FFmpegError, ValueError):
            self.lost_sound = f"a {self.path.suffix} file cannot hold its sound ({name})"
            return iter(())
        return _packets(container, stream, copy, origin)

    def _copy_sound(self, until: Fraction | None) -> None:
        try:
            while (packet := self._next_sound) is not None:
                if until is not None and (packet.pts or 0) * packet.time_base > until:
                    return
                self._next_sound = next(self._sound, None)
                self._container.mux(packet)
        except VideoError as error:
            self._next_sound = None
            self.lost_sound = f"its sound cannot be read to the end ({error})"

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
        path: file to write, in a format of `CODECS`, or a .gif, which repeats.
        frames: RGB uint8 ``(T, H, W, 3)``.
        rate: frames per second.

    Raises:
        UserError: `path` cannot be written.
    """
    if path.suffix == ".gif":
        first, *rest = (Image.fromarray(frame) for frame in frames)
        first.save(path, save_all=True, append_images=rest, duration=round(1000 / rate), loop=0)
        return
    size, seconds = (frames.shape[1], frames.shape[2]), Fraction(1, rate)
    with VideoWriter(path, size=size, rate=Fraction(rate), is_constant=True) as writer:
        for number, pixels in enumerate(frames):
            start = number * seconds
            writer.write(Frame(pixels=pixels, start=start, end=start + seconds))
        writer.finish()


def codec_for(path: Path) -> str:
    """Return the encoder of a file's format.

    Raises:
        UserError: the format is not supported.
    """
    try:
        return CODECS[path.suffix.lower()]
    except KeyError as error:
        raise UserError(
            f"expected a video file with suffix {', '.join(CODECS)}, got {path}"
        ) from error


def _packets(
    container: "av.container.InputContainer",
    stream: "av.AudioStream",
    copy: "av.AudioStream",
    origin: Fraction,
) -> Iterator["av.Packet"]:
    """Yield the packets of `stream` from `origin` on, for `copy`, which starts there.

    A packet with a decreasing time stamp starts when the last one ends.
    """
    last, end = -1, 0
    try:
        for packet in container.demux(stream):
            if packet.pts is None or not packet.size:
                continue
            stamp = packet.pts - round(origin / packet.time_base)
            if stamp <= last:
                if last < 0:
                    continue
                stamp = end
            last, end = stamp, stamp + (packet.duration or 1)
            packet.pts = packet.dts = stamp  # sound has no packets out of order
            packet.stream = copy
            yield packet
    except (av.FFmpegError, OSError) as error:
        raise VideoError(str(error)) from error
