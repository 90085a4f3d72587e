"""Decoding a video file from its start, one frame after another, in one thread."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from ...utils.errors import UserError, one_line
from ..validation.images import file_error
from .info import DEFAULT_RATE, UPRIGHT, Orientation, VideoError

try:
    import av
    import av.logging
    from av.video.reformatter import VideoReformatter
except ImportError as error:
    raise UserError(
        "reading videos needs PyAV, which is not installed: pip install 'nl_detectron[video]'"
    ) from error

# FFmpeg's formats of video files, without playlists and the like, which open other files.
FORMATS = (
    *("asf", "avi", "flv", "gif", "h264", "hevc", "ivf", "m4v", "matroska", "mjpeg", "mov", "mpeg"),
    *("mpegts", "mpegvideo", "mxf", "ogg", "rm", "vc1", "wtv", "yuv4mpegpipe"),
)

Log: TypeAlias = list[tuple[int, str, str]]
"""Messages of FFmpeg: level, source and text."""


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple["av.container.InputContainer", Log]]:
    """Open a video file; FFmpeg's errors become a `VideoError` with its last message.

    Yields:
        The container, and FFmpeg's messages since it was opened.
    """
    if problem := file_error(path):
        raise VideoError(problem[1])
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    with av.logging.Capture(local=True) as log:
        try:
            # FFmpeg never reads an absolute path as a URL.
            with av.open(
                os.path.abspath(path),
                options={"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)},
                metadata_errors="ignore",
            ) as container:
                yield container, log
        except (av.FFmpegError, OSError, UnicodeError) as error:
            raise _explained(getattr(error, "strerror", None) or str(error), log) from error


def _explained(reason: str, log: Log) -> VideoError:
    """Return an error with FFmpeg's last message, in one line."""
    for _, name, text in log[-1:]:
        if "Format not on whitelist" in text:
            return VideoError(f"it is not a video of a supported format (FFmpeg: {name})")
        reason += f" ({name}: {text})"
    return VideoError(one_line(reason))


def video_stream(container: "av.container.InputContainer") -> "av.VideoStream":
    """Return the first video stream that is no cover image, set to decode in one thread."""
    cover = av.stream.Disposition.attached_pic
    stream = next((s for s in container.streams.video if not s.disposition & cover), None)
    if stream is None:
        raise VideoError("it has no video stream")
    if stream.codec_context is None:
        raise VideoError("there is no decoder for its video stream")
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def time_base_of(stream: "av.VideoStream") -> Fraction:
    """Return the unit of a stream's time stamps in seconds."""
    return stream.time_base or Fraction(1)


def rate_of(stream: "av.VideoStream") -> Fraction:
    """Return the frames per second of a stream."""
    return Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_RATE)


def decode(
    container: "av.container.InputContainer", stream: "av.VideoStream", log: Log
) -> Iterator[tuple["av.VideoFrame", int, int]]:
    """Yield all frames in the order of presentation, each with its start and end.

    Times are in units of the stream's time base and start at the first time stamp. They ascend: a
    frame without a time stamp, or with a decreasing one, starts when the last frame ends.

    Raises:
        VideoError: after the last frame, if the file is truncated or has no frame.
    """
    step = max(1, round(1 / (rate_of(stream) * time_base_of(stream))))
    packets = count = start = end = 0
    for packet in container.demux(stream):
        packets += packet.size > 0 or packet.dts is not None  # the last one only ends the stream
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if count:
                raise
            continue  # the stream begins inside a group of pictures
        for frame in frames:
            stamp = frame.pts
            if stamp is None or (count and stamp <= start):
                stamp = end
            start, end = stamp, stamp + (frame.duration or step)
            count += 1
            yield frame, start, end
    _check_whole(container, stream, packets, log)
    if not count:
        raise _explained("it has no frame that can be decoded", log)


def _check_whole(
    container: "av.container.InputContainer", stream: "av.VideoStream", packets: int, log: Log
) -> None:
    """Raise VideoError for a truncated file; in most formats FFmpeg reports no error."""
    kind = container.format.name
    for _, source, text in log:
        if source == kind and re.search("prematurely|partial file|truncated", text):
            raise VideoError(f"it is truncated after {packets} packets ({one_line(text)})")
    # Headers count frames that edit lists hide, and in AVI dropped ones, which have no packet.
    promised = len(stream.index_entries) if "mp4" in kind else 0
    if packets < promised:
        raise VideoError(f"it is truncated after {packets} of {promised} packets")


def orientation_of(frame: "av.VideoFrame") -> Orientation:
    """Return the multiple of a quarter turn, and the mirroring, nearest to the display matrix."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return UPRIGHT
    # A pixel (x, y) is shown at (a x + c y, b x + d y), up to a translation.
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # type: ignore[call-overload]
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(transposed=True, flip_rows=b < 0, flip_columns=c < 0)
    return Orientation(flip_rows=d < 0, flip_columns=a < 0)


def shown(
    frame: "av.VideoFrame",
    reformatter: VideoReformatter,
    size: tuple[int, int],
    orientation: Orientation,
) -> np.ndarray:
    """Return the displayed frame, RGB uint8, oriented and scaled to height and width `size`.

    The array is a view of FFmpeg's memory and keeps it, which saves a copy of the whole frame.
    """
    height, width = orientation.size(*size)
    scaled = reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
    plane = scaled.planes[0]
    buffer = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # PyAV's stubs lack it
    lines = buffer.reshape(height, plane.line_size)
    return orientation.apply(lines[:, : 3 * width].reshape(height, width, 3))
