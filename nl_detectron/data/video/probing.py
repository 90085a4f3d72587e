"""Probing of video files for frame counts, rates, sizes and key frames, with a cache."""

import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...utils.file_io import cache_root
from .decoding import decode, opened, orientation_of, rate_of, time_base_of, video_stream
from .info import (
    FOLDER_RATE,
    IMAGE_SUFFIXES,
    Orientation,
    Stamps,
    VideoError,
    VideoInfo,
)
from .reading import read_frame_image

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\.\w+)", re.DOTALL)
# Formats with a time stamp for each frame that stays the same after seeking.
_STAMPED = {"asf", "avi", "flv", "matroska", "mov", "mpegts"}
_THREADS = 32
_SAVE_EVERY = 20_000  # videos whose probing an interruption can lose
_FORMAT = 4  # version of the file


def probe(path: str | os.PathLike[str], *, folder_rate: float = FOLDER_RATE) -> VideoInfo:
    """Probe a video file or a folder of frames.

    A file is decoded to its end, as neither its header nor its packets determine its frames.

    Raises:
        VideoError: the video is unreadable or truncated.
    """
    return _probe_folder(path, folder_rate) if os.path.isdir(path) else _probe_file(path)


def _probe_file(path: str | os.PathLike[str]) -> VideoInfo:
    stamps: list[int] = []
    keys: list[int] = []
    with opened(path) as (container, log):
        stream = video_stream(container)
        can_seek = not _STAMPED.isdisjoint(container.format.name.split(","))
        for frame, start, _ in decode(container, stream, log):
            if not stamps:
                orientation = orientation_of(frame)
                height, width = orientation.size(frame.height, frame.width)
            if frame.key_frame:
                keys.append(len(stamps))
            # A packet may hold one field of an interlaced frame, so its stamp is not the frame's.
            can_seek = can_seek and frame.pts == start and not frame.interlaced_frame
            stamps.append(start)
        rate = rate_of(stream)
        time_base = time_base_of(stream)
    return VideoInfo(
        num_frames=len(stamps),
        rate=float(rate),
        height=height,
        width=width,
        orientation=orientation,
        key_frames=() if not can_seek else None if len(keys) == len(stamps) else tuple(keys),
        stamps=Stamps.of(stamps, time_base, rate),
    )


def _probe_folder(folder: str | os.PathLike[str], rate: float) -> VideoInfo:
    names = {name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES)}
    numbered = [match for match in map(_NUMBERED.fullmatch, sorted(names)) if match]
    if not numbered:
        raise VideoError("it is a folder without numbered images")
    first = min(numbered, key=lambda match: int(match["number"]))
    height, width = read_frame_image(os.path.join(folder, first[0])).shape[:2]
    info = VideoInfo(
        num_frames=len(names),
        rate=rate,
        height=height,
        width=width,
        pattern=f"{first['prefix'].replace('%', '%%')}%0{len(first['number'])}d{first['suffix']}",
        first_number=int(first["number"]),
    )
    for name in map(info.frame_name, range(len(names))):
        if name not in names:
            raise VideoError(f"expected {len(names)} images, numbered one by one, got no {name}")
    return info


def probe_all(
    paths: Iterable[str],
    *,
    list_file: str | os.PathLike[str],
    folder_rate: float = FOLDER_RATE,
    title: str = "videos",
) -> dict[str, VideoInfo | VideoError | None]:
    """Return the `VideoInfo` of each path, a `VideoError` for a bad file, None for a missing one.

    Results are kept under ``videos`` in `cache_root`. A video is probed again if its size or
    modification time differs.

    Args:
        list_file: the list of the videos.
        title: title of the progress bar.
    """
    key = f"{_FORMAT} {folder_rate} {os.path.abspath(list_file)}"
    file = cache_root() / "videos" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    paths = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(min(_THREADS, 2 * (os.cpu_count() or 1))) as pool:
        states = dict(zip(paths, pool.map(_state, paths), strict=True))
        found: dict[str, VideoInfo | VideoError | None] = {
            path: _from_json(kept[path][1]) if path in kept and kept[path][0] == state else None
            for path, state in states.items()
        }
        new = [path for path in paths if found[path] is None and states[path] is not None]
        results = pool.map(lambda path: _try_probe(path, folder_rate), new)
        bar = tqdm(new, desc=f"probing {title}", unit="video", disable=not new)
        for number, (path, result) in enumerate(zip(bar, results, strict=True), 1):
            found[path] = result
            if isinstance(result, VideoInfo):
                kept[path] = [states[path], asdict(result)]
            if number % _SAVE_EVERY == 0 or number == len(new):
                _save(file, kept)
    return found


def _state(path: str) -> list[int] | None:
    """Return size and modification time of a file; None if it is missing."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _try_probe(path: str, folder_rate: float) -> VideoInfo | VideoError:
    try:
        return probe(path, folder_rate=folder_rate)
    except (VideoError, OSError) as error:
        return VideoError(error)


def _save(file: Path, kept: dict[str, list]) -> None:
    """Write the results atomically, if the folder is writable."""
    unfinished = file.with_name(f".{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Fractions become text.
        unfinished.write_text(json.dumps(kept, default=str), encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        logger.warning("Cannot keep the results of probing the videos in %s: %s", file, error)


def _from_json(values: dict[str, Any]) -> VideoInfo:
    values = dict(values)
    if stamps := values["stamps"]:
        values["stamps"] = Stamps(
            time_base=Fraction(stamps["time_base"]),
            first=stamps["first"],
            step=Fraction(stamps["step"]) if stamps["step"] else None,
            others=tuple(stamps["others"]),
        )
    if values["key_frames"] is not None:
        values["key_frames"] = tuple(values["key_frames"])
    values["orientation"] = Orientation(*values["orientation"])
    return VideoInfo(**values)
