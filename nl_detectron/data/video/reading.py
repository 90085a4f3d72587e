"""Reading of frames by number, with as little decoding as possible.

Each call opens the file again and decodes in one thread, so loader workers neither share a decoder
nor compete for the processors.
"""

import os
from collections.abc import Container, Iterable, Iterator, Sequence
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
        indices: T > 0 frame numbers from 0 in the order of presentation, in any order, also
            repeated. Each frame is decoded once.
        info: result of `probing.probe`.
        size: height and width to scale frames to during color conversion; default: the video's.
        window: part to keep of each scaled frame.

    Raises:
        VideoError: the file cannot be opened, or one of the frames cannot be decoded.
        IndexError: an index is outside the video.
    """
    wanted, place = np.unique(np.asarray(indices), return_inverse=True)
    if not 0 <= wanted[0] <= wanted[-1] < info.num_frames:
        expected = f"expected frames 0 to {info.num_frames - 1}"
        raise IndexError(f"{expected}, got {wanted[0]} to {wanted[-1]}")
    size = size or (info.height, info.width)
    rows, columns = (
        len(range(*part.indices(side))) for part, side in zip(window, size, strict=True)
    )
    frames = np.empty((3, len(wanted), rows, columns), dtype=np.uint8).transpose(1, 2, 3, 0)
    read = read_images if info.pattern else _read_file
    for index, pixels in read(path, wanted, info, size):
        frames[np.searchsorted(wanted, index)] = pixels[window]
    return frames if np.array_equal(place, np.arange(len(wanted))) else frames[place]


def _read_file(
    path: str | os.PathLike[str], wanted: np.ndarray, info: VideoInfo, size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each wanted frame at least once; the last one counts."""
    reformatter = VideoReformatter()
    for index, frame in _decode_wanted(path, wanted, info):
        yield index, shown(frame, reformatter, size, info.orientation)


def _decode_wanted(
    path: str | os.PathLike[str], wanted: np.ndarray, info: VideoInfo
) -> Iterator[tuple[int, "av.VideoFrame"]]:
    if info.key_frames != ():
        with suppress(VideoError):
            yield from _decode_from_key_frames(path, wanted, info)
            return
    with opened(path) as (container, log):
        for index, (frame, _, _) in enumerate(decode(container, video_stream(container), log)):
            if index in wanted:
                yield index, frame
            if index == wanted[-1]:
                return
    raise VideoError(f"frame {wanted[-1]} cannot be decoded")


def _decode_from_key_frames(
    path: str | os.PathLike[str], wanted: np.ndarray, info: VideoInfo
) -> Iterator[tuple[int, "av.VideoFrame"]]:
    """Decode runs of frames, each from its key frame on.

    Raises:
        VideoError: seeking fails, although decoding from the start may succeed.
    """
    assert info.stamps is not None
    stamps = info.stamps.values(info.num_frames)
    keys = np.array([info.key_frame(index) for index in wanted])
    far = np.flatnonzero(keys[1:] - wanted[:-1] > _WORTH_SEEKING)
    with opened(path) as (container, _):
        stream = video_stream(container)
        for run in np.split(wanted, far + 1):
            key = info.key_frame(run[0])
            if key:  # only the first run can start at the first frame, where decoding begins
                container.seek(stamps[key], stream=stream)
            pending = {stamps[i]: i for i in run}
            frames = _decode_needed(container, stream, {stamps[key], *pending})
            for number, frame in enumerate(frames):
                # Seeking may find an earlier key frame. After a later one, frames that refer to
                # earlier frames would be wrong.
                if number == 0 and (frame.pts is None or frame.pts > stamps[key]):
                    raise VideoError("seeking found a frame after the key frame")
                if frame.pts in pending:
                    if frame.is_corrupt:
                        raise VideoError("a frame is corrupt")
                    yield pending.pop(frame.pts), frame
                    if not pending:
                        break
            if pending:
                raise VideoError(f"frame {min(pending.values())} is not there")


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


def read_images(
    folder: str | os.PathLike[str], wanted: Iterable[int], info: VideoInfo, size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the number and the scaled image of frames of a folder."""
    for index in wanted:
        image = read_frame_image(os.path.join(folder, info.frame_name(index)))
        yield index, resized(image, size)


def read_frame_image(path: str) -> np.ndarray:
    """Read a frame of a folder, RGB uint8 ``(H, W, 3)``, rotated by its EXIF orientation."""
    try:
        return read_image(path, "RGB")
    except UserError as error:
        raise VideoError(str(error).replace(path, f"frame {os.path.basename(path)}")) from error
