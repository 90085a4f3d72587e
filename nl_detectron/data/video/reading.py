"""Reading frames: exactly those that were asked for, and decoding no more than it takes.

A file is opened anew for each reading, in the process that reads, and decoded by one thread, so
loader workers neither share a decoder nor fight for the processors.
"""

import os
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import cv2
import numpy as np
from detectron2.data.detection_utils import read_image

from ... import files
from ...errors import UserError
from .info import VideoError, VideoInfo

try:
    import av
    import av.logging
    from av.video.reformatter import VideoReformatter
except ImportError as error:
    raise UserError(
        "videos are read with PyAV, which is not installed: pip install 'nl_detectron[video]'"
    ) from error

# Of FFmpeg: what people call a video file. Playlists and the like would open other files.
FORMATS = (
    *("asf", "avi", "flv", "gif", "h264", "hevc", "ivf", "m4v", "matroska", "mjpeg", "mov", "mpeg"),
    *("mpegts", "mpegvideo", "mxf", "ogg", "rm", "vc1", "wtv", "yuv4mpegpipe"),
)
MAX_PIXELS = 1 << 26
"""Of a frame; more is taken for a broken header: 8192 x 8192."""

# Frames between two wanted ones from which on the file's index is asked, rather than decoding on.
_WORTH_SEEKING = 32

Put: TypeAlias = Callable[[int, np.ndarray], None]
Window: TypeAlias = tuple[slice, slice]
"""Rows and columns of a frame; columns of a negative step mirror it."""

WHOLE: Window = (slice(None), slice(None))


def read_frames(
    path: str | os.PathLike[str],
    indices: Sequence[int] | np.ndarray,
    info: VideoInfo,
    *,
    size: tuple[int, int] | None = None,
    window: Window = WHOLE,
) -> np.ndarray:
    """Return frames of a video file or of a folder of frames, RGB uint8 ``(T, H, W, 3)``.

    In memory the channels are first, as networks take them.

    Args:
        indices: T frame numbers from 0 in the order of presentation, in any order, also repeated.
            Each frame is decoded once.
        info: what probing found, see `probing.probe`.
        size: height and width of the result, to which frames are scaled while their colours are
            converted; the video's own by default.
        window: what is kept of each scaled frame.

    Raises:
        VideoError: the file cannot be opened, or one of the frames cannot be decoded.
        IndexError: there is no such frame.
    """
    wanted, place = np.unique(np.asarray(indices), return_inverse=True)
    if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < info.num_frames:
        raise IndexError(f"frames {wanted[0]} to {wanted[-1]} of {info.num_frames}")
    height, width = size or (info.height, info.width)
    rows, columns = (
        len(range(*part.indices(side))) for part, side in zip(window, (height, width), strict=True)
    )
    frames = np.empty((3, len(wanted), rows, columns), dtype=np.uint8).transpose(1, 2, 3, 0)
    index_of = {int(frame): i for i, frame in enumerate(wanted)}

    def put(frame: int, pixels: np.ndarray) -> None:
        frames[index_of[frame]] = pixels[window]

    if info.names is not None:
        _read_images(path, list(index_of), info, (height, width), put)
    elif index_of:
        _FileReader(path, info, (height, width), put).read(list(index_of))
    return frames if np.array_equal(place, np.arange(len(wanted))) else frames[place]


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[tuple["av.container.InputContainer", "Log"]]:
    """Open a video file; FFmpeg's errors become a `VideoError` that quotes its last complaint."""
    if not os.path.exists(path):
        is_link = os.path.islink(path)
        raise VideoError("it is a link to nothing" if is_link else "there is no such file")
    if kind := files.special_file(path):
        raise VideoError(f"it is {kind}")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise VideoError("it has no bytes")
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    with av.logging.Capture(local=True) as captured:
        log = Log(captured)
        try:
            # An absolute path is never taken for an address.
            with av.open(
                os.path.abspath(path),
                options={"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)},
                metadata_errors="ignore",
            ) as container:
                yield container, log
        except (av.FFmpegError, OSError, UnicodeError) as error:
            raise VideoError(log.reason(error)) from error


class Log:
    """What FFmpeg has complained of since a file was opened."""

    def __init__(self, captured: list[tuple[int, str, str]]) -> None:
        self._captured = captured

    def lines(self) -> list[str]:
        return [
            " ".join(f"{source}: {text}".strip(": ").split()) for _, source, text in self._captured
        ]

    def reason(self, error: BaseException) -> str:
        last = self.lines()[-1] if self._captured else ""
        if "Format not on whitelist" in last:
            return f"its format is {last.partition(':')[0]}, which is not read"
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"{said} ({last})" if last else said


def video_stream(container: "av.container.InputContainer") -> "av.VideoStream":
    """Return the first video that is no cover image, set to be decoded by one thread."""
    cover = av.stream.Disposition.attached_pic
    stream = next((s for s in container.streams.video if not s.disposition & cover), None)
    if stream is None:
        raise VideoError("it has no video stream")
    if stream.codec_context is None:
        raise VideoError("there is no decoder for its video stream")
    check_size(stream.width, stream.height)
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


def check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(f"frames of {width}x{height} pixels; at most {MAX_PIXELS} are read")


def decode_all(path: str | os.PathLike[str], info: VideoInfo) -> tuple[int, int]:
    """Decode a video to its end; return the number of frames, and that in a file's header.

    The latter is 0 where a header has none.

    Raises:
        VideoError: the end cannot be reached.
    """
    if info.names is not None:
        for index in range(info.num_frames):
            read_frame_image(os.path.join(path, info.names.name(index)))
        return info.num_frames, 0
    with opened(path) as (container, _):
        stream = video_stream(container)
        return sum(1 for _ in container.decode(stream)), stream.frames


class _FileReader:
    """Decodes wanted frames of one file and hands each to `put`, scaled and turned."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: VideoInfo,
        size: tuple[int, int],
        put: Put,
    ) -> None:
        self.path, self.info, self.size, self.put = path, info, size, put
        self.turns = info.rotation // 90 % 4
        self.reformatter = VideoReformatter()
        stamps = info.stamps
        self.stamps = None if stamps is None else stamps.values(info.num_frames)

    def read(self, wanted: list[int]) -> None:
        """Read frames, given in rising order."""
        with opened(self.path) as (container, _):
            stream = video_stream(container)
            if self.stamps is None:
                self._read_in_order(container.decode(stream), wanted)
                return
            for run in self._runs(wanted):
                key = self.info.key_frame(run[0])
                if key:  # only the first run can start at the first frame, where decoding begins
                    container.seek(self.stamps[key], stream=stream)
                needed = {self.stamps[i] for i in (key, *run)}
                if not self._read_run(_decode(container, stream, needed), run, key):
                    self._read_from_start(run)

    def _runs(self, wanted: list[int]) -> Iterator[list[int]]:
        """Cut `wanted` where starting again at a key frame spares decoding."""
        start = 0
        for i in range(1, len(wanted)):
            if self.info.key_frame(wanted[i]) - wanted[i - 1] > _WORTH_SEEKING:
                yield wanted[start:i]
                start = i
        yield wanted[start:]

    def _read_from_start(self, wanted: list[int]) -> None:
        with opened(self.path) as (container, _):
            frames = container.decode(video_stream(container))
            if not self._read_run(frames, wanted, 0, is_whole=True):
                raise VideoError(f"frame {wanted[0]} cannot be decoded")

    def _read_run(
        self,
        frames: Iterator["av.VideoFrame"],
        wanted: list[int],
        key: int,
        *,
        is_whole: bool = False,
    ) -> bool:
        """Decode until all of `wanted` are there; False if decoding did not start early enough.

        Args:
            key: the frame at which it should start, at the latest. A container that finds an
                earlier one is fine; after a later one, frames that refer to what is before it
                would be wrong.
            is_whole: `frames` are all of the file's, so there is no better start.
        """
        assert self.stamps is not None
        pending = {self.stamps[i]: i for i in wanted}
        is_first = True
        for frame in frames:
            if is_first and not is_whole and (frame.pts is None or frame.pts > self.stamps[key]):
                return False
            is_first = False
            if frame.pts not in pending:
                continue
            if frame.is_corrupt and not is_whole:
                return False
            self._put(pending.pop(frame.pts), frame)
            if not pending:
                return True
        if not is_whole:
            return False
        raise VideoError(f"frame {min(pending.values())} cannot be decoded")

    def _read_in_order(self, frames: Iterator["av.VideoFrame"], wanted: list[int]) -> None:
        pending = set(wanted)
        for index, frame in enumerate(frames):
            if index in pending:
                self._put(index, frame)
                pending.remove(index)
                if not pending:
                    return
        raise VideoError(f"frame {min(pending)} cannot be decoded")

    def _put(self, index: int, frame: "av.VideoFrame") -> None:
        self.put(index, shown(frame, self.reformatter, self.size, self.turns))


def _decode(
    container: "av.container.InputContainer", stream: "av.VideoStream", needed: Container[int]
) -> Iterator["av.VideoFrame"]:
    """Yield frames, without those that are not needed and that no other frame refers to."""
    for packet in container.demux(stream):
        is_needed = packet.pts is None or packet.pts in needed
        stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
        yield from packet.decode()


def turns_of(frame: "av.VideoFrame") -> int:
    """Return by how many quarters of a turn, counter-clockwise, a frame is turned to be shown."""
    return round(frame.rotation / 90) % 4


def shown(
    frame: "av.VideoFrame", reformatter: VideoReformatter, size: tuple[int, int], turns: int
) -> np.ndarray:
    """Return a frame as it is shown, RGB uint8, turned and scaled to height and width `size`.

    It is a view of FFmpeg's memory, which it keeps: copying each frame whole takes as long as
    cropping it.
    """
    height, width = size if turns % 2 == 0 else size[::-1]
    scaled = reformatter.reformat(frame, width=width, height=height, format="rgb24", threads=1)
    plane = scaled.planes[0]
    buffer = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # PyAV's stubs lack it
    lines = buffer.reshape(height, plane.line_size)
    pixels = lines[:, : 3 * width].reshape(height, width, 3)
    return np.rot90(pixels, turns) if turns else pixels


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) scaled to the height and width `size`."""
    if image.shape[:2] == size:
        return image
    method = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(image, size[::-1], interpolation=method)


def _read_images(
    folder: str | os.PathLike[str],
    wanted: list[int],
    info: VideoInfo,
    size: tuple[int, int],
    put: Put,
) -> None:
    assert info.names is not None
    for index in wanted:
        put(index, resized(read_frame_image(os.path.join(folder, info.names.name(index))), size))


def read_frame_image(path: str) -> np.ndarray:
    """Return a frame of a folder, RGB uint8 ``(H, W, 3)``, turned as its EXIF orientation says."""
    name = os.path.basename(path)
    if kind := files.special_file(path):
        raise VideoError(f"frame {name} is {kind}")
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise VideoError(f"frame {name} has no bytes")
    try:
        return read_image(path, format="RGB")
    except Exception as error:  # Pillow's decoders raise errors of any type on hostile bytes
        said = getattr(error, "strerror", None) or str(error).replace(str(path), name)
        raise VideoError(f"frame {name} cannot be read ({said or type(error).__name__})") from error
