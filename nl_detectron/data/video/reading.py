"""Reading of frames by number, with as little decoding as possible.

Each call opens the file again and decodes in one thread, so loader workers neither share a decoder
nor compete for the processors.
"""

import os
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from typing import TypeAlias

import cv2
import numpy as np

from ...utils.errors import UserError
from ..detection_utils import read_image
from .decoding import VideoReformatter, av, decode, opened, shown, video_stream
from .info import VideoError, VideoInfo

# Smallest gap between wanted frames for which seeking replaces decoding.
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

    In memory the channels are first, as for networks.

    Args:
        indices: T frame numbers from 0 in the order of presentation, in any order, also repeated.
            Each frame is decoded once.
        info: result of `probing.probe`.
        size: height and width to scale frames to during color conversion; default: the video's.
        window: part to keep of each scaled frame.

    Raises:
        VideoError: the file cannot be opened, or one of the frames cannot be decoded.
        IndexError: an index is outside the video.
    """
    wanted, place = np.unique(np.asarray(indices), return_inverse=True)
    if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < info.num_frames:
        expected = f"expected frames 0 to {info.num_frames - 1}"
        raise IndexError(f"{expected}, got {wanted[0]} to {wanted[-1]}")
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
        _read_file(path, list(index_of), info, (height, width), put)
    return frames if np.array_equal(place, np.arange(len(wanted))) else frames[place]


def _read_file(
    path: str | os.PathLike[str],
    wanted: list[int],
    info: VideoInfo,
    size: tuple[int, int],
    put: Put,
) -> None:
    reformatter = VideoReformatter()

    def put_frame(index: int, frame: "av.VideoFrame") -> None:
        put(index, shown(frame, reformatter, size, info.orientation))

    if info.key_frames != ():
        with suppress(VideoError):
            _read_from_key_frames(path, wanted, info, put_frame)
            return
    pending = set(wanted)
    with opened(path) as (container, log):
        for index, (frame, _, _) in enumerate(decode(container, video_stream(container), log)):
            if index in pending:
                put_frame(index, frame)
                pending.remove(index)
                if not pending:
                    return
    raise VideoError(f"frame {min(pending)} cannot be decoded")


def _read_from_key_frames(
    path: str | os.PathLike[str],
    wanted: list[int],
    info: VideoInfo,
    put_frame: Callable[[int, "av.VideoFrame"], None],
) -> None:
    """Read frames, in ascending order, each run of them from its key frame on.

    Raises:
        VideoError: seeking fails, although decoding from the start may succeed.
    """
    assert info.stamps is not None
    stamps = info.stamps.values(info.num_frames)
    with opened(path) as (container, _):
        stream = video_stream(container)
        for run in _runs(wanted, info):
            key = info.key_frame(run[0])
            if key:  # only the first run can start at the first frame, where decoding begins
                container.seek(stamps[key], stream=stream)
            pending = {stamps[i]: i for i in run}
            is_first = True
            for frame in _decode_needed(container, stream, {stamps[key], *pending}):
                # Seeking may find an earlier key frame. After a later one, frames that refer to
                # earlier frames would be wrong.
                if is_first and (frame.pts is None or frame.pts > stamps[key]):
                    raise VideoError("seeking found a frame after the key frame")
                is_first = False
                if frame.pts in pending:
                    if frame.is_corrupt:
                        raise VideoError("a frame is corrupt")
                    put_frame(pending.pop(frame.pts), frame)
                    if not pending:
                        break
            if pending:
                raise VideoError(f"frame {min(pending.values())} is not there")


def _runs(wanted: list[int], info: VideoInfo) -> Iterator[list[int]]:
    """Split `wanted` at gaps in which seeking to a key frame saves decoding."""
    start = 0
    for i in range(1, len(wanted)):
        if info.key_frame(wanted[i]) - wanted[i - 1] > _WORTH_SEEKING:
            yield wanted[start:i]
            start = i
    yield wanted[start:]


def _decode_needed(
    container: "av.container.InputContainer", stream: "av.VideoStream", needed: Container[int]
) -> Iterator["av.VideoFrame"]:
    """Yield frames, without unneeded ones that no other frame refers to."""
    for packet in container.demux(stream):
        is_needed = packet.pts is None or packet.pts in needed
        stream.codec_context.skip_frame = "DEFAULT" if is_needed else "NONREF"
        yield from packet.decode()


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
    """Read a frame of a folder, RGB uint8 ``(H, W, 3)``, rotated by its EXIF orientation."""
    try:
        return read_image(path, "RGB")
    except UserError as error:
        raise VideoError(str(error).replace(path, f"frame {os.path.basename(path)}")) from error
