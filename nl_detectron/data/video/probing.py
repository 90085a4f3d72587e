"""Probing of video files for frame counts, rates, sizes and key frames, with a cache."""

import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
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
    FrameNames,
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
_FORMAT = 2  # version of the file


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
    are_all_keys = len(keys) == len(stamps)
    return VideoInfo(
        num_frames=len(stamps),
        rate=float(rate),
        height=height,
        width=width,
        orientation=orientation,
        key_frames=() if not can_seek else None if are_all_keys else tuple(keys),
        stamps=Stamps.of(stamps, time_base, rate),
    )


def _probe_folder(folder: str | os.PathLike[str], rate: float) -> VideoInfo:
    names = [name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise VideoError("it is a folder without images")
    parsed = [_NUMBERED.fullmatch(name) for name in names]
    for name, match in zip(names, parsed, strict=True):
        if match is None:
            raise VideoError(f"expected a number in the name of each frame, got {name}")
    if len({(match["prefix"], match["suffix"]) for match in parsed if match}) > 1:
        raise VideoError("expected frames of one video, got names with several prefixes")
    first = min(parsed, key=lambda match: int(match["number"]))  # type: ignore[index]
    assert first is not None
    pattern = FrameNames(
        prefix=first["prefix"],
        first=int(first["number"]),
        digits=len(first["number"]),
        suffix=first["suffix"],
    )
    present = set(names)
    for index in range(len(names)):
        if pattern.name(index) not in present:
            raise VideoError(f"frame {pattern.name(index)} is missing")
    height, width = read_frame_image(os.path.join(folder, pattern.name(0))).shape[:2]
    return VideoInfo(num_frames=len(names), rate=rate, height=height, width=width, names=pattern)


def probe_all(
    paths: Iterable[str],
    *,
    list_file: str | os.PathLike[str],
    folder_rate: float = FOLDER_RATE,
    title: str = "videos",
) -> dict[str, VideoInfo | VideoError | None]:
    """Return the `VideoInfo` of each path, a `VideoError` for a bad file, None for a missing one.

    Results are kept in a JSON file ``{list_file}.videos.json``, or in `cache_root` if that is not
    writable. A video is probed again if its size or modification time differs.

    Args:
        list_file: the list of the videos.
        title: title of the progress bar.
    """
    cache = _Cache(Path(list_file), folder_rate)
    paths = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(min(_THREADS, 2 * (os.cpu_count() or 1))) as pool:
        states = dict(zip(paths, pool.map(_state, paths), strict=True))
        found: dict[str, VideoInfo | VideoError | None] = {
            path: None if state is None else cache.get(path, state)
            for path, state in states.items()
        }
        new = [path for path in paths if found[path] is None and states[path] is not None]
        with tqdm(total=len(new), desc=f"probing {title}", unit="video", disable=not new) as bar:
            for start in range(0, len(new), _SAVE_EVERY):
                chunk = new[start : start + _SAVE_EVERY]
                results = pool.map(lambda path: _try_probe(path, folder_rate), chunk)
                for path, result in zip(chunk, results, strict=True):
                    found[path] = result
                    if isinstance(result, VideoInfo):
                        cache.put(path, states[path] or [], result)
                    bar.update()
                cache.save()
    return found


def _state(path: str) -> list[int] | None:
    """Return size and modification time of a file; None if it is missing."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return [0, 0] if os.path.islink(path) else None
    except (OSError, ValueError):
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _try_probe(path: str, folder_rate: float) -> VideoInfo | VideoError:
    try:
        return probe(path, folder_rate=folder_rate)
    except VideoError as error:
        return error
    except OSError as error:
        return VideoError(error.strerror or str(error))
    except ValueError as error:  # such as a path with a null byte
        return VideoError(str(error))


class _Cache:
    """Results by path, relative to the list, so that both can be moved together."""

    def __init__(self, list_file: Path, folder_rate: float) -> None:
        list_file = list_file.absolute()
        self._root = list_file.parent
        self._file = list_file.with_name(f"{list_file.name}.videos.json")
        self._elsewhere = (
            cache_root() / "videos" / f"{hashlib.sha256(str(list_file).encode()).hexdigest()}.json"
        )
        self._rate = folder_rate
        self._videos: dict[str, list] = {}
        for file in (self._elsewhere, self._file):
            self._videos.update(self._read(file))
        self._changed = False

    def _read(self, file: Path) -> dict[str, list]:
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            same = content["format"] == _FORMAT and content["folder_rate"] == self._rate
            return dict(content["videos"]) if same else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}  # missing, of an older version, or another program's

    def get(self, path: str, state: Sequence[int]) -> VideoInfo | None:
        kept = self._videos.get(self._key(path))
        if not isinstance(kept, list) or kept[:1] != [list(state)]:
            return None
        try:
            return _from_json(kept[1])
        except (IndexError, KeyError, TypeError, ValueError):
            return None

    def put(self, path: str, state: Sequence[int], info: VideoInfo) -> None:
        self._videos[self._key(path)] = [list(state), _to_json(info)]
        self._changed = True

    def save(self) -> None:
        """Write the file atomically."""
        if not self._changed:
            return
        content = {"format": _FORMAT, "folder_rate": self._rate, "videos": self._videos}
        text = json.dumps(content, separators=(",", ":"))
        for file in (self._file, self._elsewhere):
            unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
            try:
                if file is self._elsewhere:
                    file.parent.mkdir(parents=True, exist_ok=True)
                unfinished.write_text(text, encoding="utf-8")
                unfinished.replace(file)
                return
            except OSError:
                unfinished.unlink(missing_ok=True)
        logger.warning(
            "Cannot keep the results of probing the videos: neither %s nor %s is writable",
            self._file,
            self._elsewhere,
        )

    def _key(self, path: str) -> str:
        return os.path.relpath(path, self._root)


def _to_json(info: VideoInfo) -> dict[str, Any]:
    values = asdict(info)
    if info.stamps is not None:
        values["stamps"] |= {
            "time_base": str(info.stamps.time_base),
            "step": info.stamps.step and str(info.stamps.step),
        }
    return {name: value for name, value in values.items() if value is not None}


def _from_json(values: Mapping[str, Any]) -> VideoInfo:
    values = dict(values)
    if stamps := values.get("stamps"):
        values["stamps"] = Stamps(
            time_base=Fraction(stamps["time_base"]),
            first=stamps["first"],
            step=Fraction(stamps["step"]) if stamps["step"] else None,
            others=tuple(stamps["others"]),
        )
    if names := values.get("names"):
        values["names"] = FrameNames(**names)
    if "key_frames" in values:
        values["key_frames"] = tuple(values["key_frames"])
    values["orientation"] = Orientation(*values["orientation"])
    return VideoInfo(**values)
