"""What is in video files: frame counts, rates, sizes and key frames, found once and kept."""

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

from ..register import cache_root
from .info import FOLDER_RATE, IMAGE_SUFFIXES, FrameNames, Stamps, VideoError, VideoInfo
from .reading import Log, av, check_size, opened, read_frame_image, turns_of, video_stream

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\.\w+)", re.DOTALL)
# Formats that have a time stamp for each frame, and the same one after seeking.
_STAMPED = {"asf", "avi", "flv", "matroska", "mov", "mpegts"}
_THREADS = 8
_SAVE_EVERY = 20_000  # videos: so much of the work can be lost
_FORMAT = 1  # of the file


def probe(path: str | os.PathLike[str], *, folder_rate: float = FOLDER_RATE) -> VideoInfo:
    """Return what is in a video file or a folder of frames.

    All packets of a file are read, and one frame is decoded.

    Raises:
        VideoError: it cannot be read, is cut off, or holds fewer frames than its header says.
    """
    return _probe_folder(path, folder_rate) if os.path.isdir(path) else _probe_file(path)


def _probe_file(path: str | os.PathLike[str]) -> VideoInfo:
    with opened(path) as (container, log):
        stream = video_stream(container)
        codec = stream.codec_context.name
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard and not _is_hidden(codec, packet)
        ]
        check_whole(container, stream, len(packets), log)
        rate = stream.average_rate or stream.guessed_rate
        time_base = stream.time_base or Fraction(1)
        is_stamped = not _STAMPED.isdisjoint(container.format.name.split(","))
    with opened(path) as (container, _):
        frame = next(container.decode(video_stream(container)), None)
        if frame is None:
            raise VideoError("it has no frame that can be decoded")
        check_size(frame.width, frame.height)
        rotation = 90 * turns_of(frame)
        is_turned = rotation % 180 == 90
        width, height = (frame.height, frame.width) if is_turned else (frame.width, frame.height)
    stamps = sorted(pts for pts, _ in packets if pts is not None)
    has_stamps = is_stamped and len(set(stamps)) == len(packets)
    keys: tuple[int, ...] | None = (0,)
    if has_stamps:
        place = {pts: i for i, pts in enumerate(stamps)}
        keys = tuple(sorted(place[pts] for pts, is_key in packets if is_key and pts is not None))
        keys = None if len(keys) == len(packets) else keys
    return VideoInfo(
        num_frames=len(packets),
        rate=float(rate) if rate else None,
        height=height,
        width=width,
        rotation=rotation,
        key_frames=keys,
        stamps=Stamps.of(stamps, time_base, rate) if has_stamps else None,
    )


def _is_hidden(codec: str, packet: "av.Packet") -> bool:
    """Say whether a packet is never shown: a reference of VP8, whose header has a bit for it."""
    return codec == "vp8" and not bytes(memoryview(packet)[:1])[0] & 0x10


def check_whole(container: Any, stream: Any, num_packets: int, log: Log) -> None:
    """Raise VideoError for a file that ends early: most formats are read without a word then."""
    ended = [line for line in log.lines() if re.search("prematurely|partial file|truncated", line)]
    if ended:
        raise VideoError(f"it is cut off after {num_packets} frames ({ended[0]})")
    if num_packets == 0:
        raise VideoError("its video stream has no frames")
    # The header of MP4 also counts what its edit list leaves out.
    is_mp4 = "mp4" in container.format.name
    promised = len(stream.index_entries) if is_mp4 else stream.frames
    if num_packets < promised:
        raise VideoError(f"it holds {num_packets} frames, but its header says {promised}")


def _probe_folder(folder: str | os.PathLike[str], rate: float) -> VideoInfo:
    names = [name for name in os.listdir(folder) if name.lower().endswith(IMAGE_SUFFIXES)]
    if not names:
        raise VideoError("it is a folder without images")
    parsed = [_NUMBERED.fullmatch(name) for name in names]
    for name, match in zip(names, parsed, strict=True):
        if match is None:
            raise VideoError(f"frame {name} has no number in its name")
    if len({(match["prefix"], match["suffix"]) for match in parsed if match}) > 1:
        raise VideoError("its frames have more than one name, as if they were of several videos")
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
    beside: str | os.PathLike[str],
    folder_rate: float = FOLDER_RATE,
    title: str = "videos",
) -> dict[str, VideoInfo | VideoError | None]:
    """Return what is in each of `paths`, `VideoError` where that fails, None for what is not there.

    Results are kept in a JSON file ``{beside}.videos.json``, or in `cache_root` where that cannot
    be written. A video is probed again if its size or the time of its last change differs.

    Args:
        beside: the list that names the videos.
        title: stands before the progress bar.
    """
    cache = _Cache(Path(beside), folder_rate)
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
    """Return what tells a file from a later one at its path; None if there is none."""
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
    except ValueError as error:  # a path with a null byte, for one
        return VideoError(str(error))


class _Cache:
    """Results by path, relative to the list, so that both can be moved together."""

    def __init__(self, beside: Path, folder_rate: float) -> None:
        beside = beside.absolute()
        self._root = beside.parent
        self._file = beside.with_name(f"{beside.name}.videos.json")
        self._elsewhere = (
            cache_root() / "videos" / f"{hashlib.sha256(str(beside).encode()).hexdigest()}.json"
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
            return {}  # none yet, of an older version, or not ours: found anew

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
        """Write the file whole or not at all."""
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
            "What was found in the videos cannot be kept: neither %s nor %s can be written",
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
    if keys := values.get("key_frames"):
        values["key_frames"] = tuple(keys)
    return VideoInfo(**values)
