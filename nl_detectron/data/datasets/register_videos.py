"""Registration of video datasets with Detectron2. A dataset is read at first use."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...utils.errors import DataError
from ..video.info import FOLDER_RATE, VideoError
from . import charades
from .video_list import Entry, read_classes, read_folders

logger = logging.getLogger(__name__)

_Path = str | os.PathLike[str]


def register_videos(
    name: str,
    list_file: _Path | None,
    root: _Path,
    *,
    classes: Sequence[str] | _Path | int | None = None,
    multi_label: bool = False,
    folder_rate: float = FOLDER_RATE,
) -> None:
    """Register a list of videos as a dataset.

    Args:
        name: name for ``DATASETS.TRAIN`` and ``DATASETS.TEST``.
        list_file: lines ``path label[,label...]``, see `video_list.read_list`, or a CSV file of
            Charades; None if `root` has a folder for each class.
        root: folder that relative paths start from.
        classes: class names in order, or the class count, or a file with a name per line; None
            for the folders' names, or the classes in the list.
        multi_label: evaluate with mean average precision, since a video may have several labels.
        folder_rate: frames per second of folders of frames.

    The dicts have ``file_name``, ``video_id``, ``labels``, ``info`` (a `VideoInfo`) and, if a list
    has labels of frames, ``intervals`` in seconds. An unreadable video has ``error``, the reason,
    instead of ``info``. Missing videos are skipped and logged.
    """
    where, folder = None if list_file is None else Path(list_file), Path(root)
    metadata = MetadataCatalog.get(name)
    metadata.set(
        evaluator_type="video_map" if multi_label else "video_top_k",
        list_file=None if where is None else str(where),
        video_root=str(folder),
    )
    if isinstance(classes, int):
        classes = list(map(str, range(classes)))
    if classes is not None and not isinstance(classes, str | os.PathLike):
        metadata.thing_classes = list(classes)

    def read() -> tuple[list[Entry], list[str]]:
        if where is None:
            return read_folders(folder)
        entries = charades.read_list_or_csv(where, folder)
        highest = max((label for entry in entries for label in entry.labels), default=0)
        return entries, [str(i) for i in range(highest + 1)]

    def load() -> list[dict[str, Any]]:
        entries, names = read()
        if isinstance(classes, str | os.PathLike):
            names = read_classes(Path(classes))
        if metadata.get("thing_classes") is None:
            metadata.thing_classes = names
        return load_entries(
            name,
            entries,
            root=folder,
            list_file=where or folder,
            num_classes=len(metadata.thing_classes),
            folder_rate=folder_rate,
        )

    metadata.read_entries = lambda: read()[0]
    DatasetCatalog.register(name, load)


def load_entries(
    name: str,
    entries: Sequence[Entry],
    *,
    root: Path,
    list_file: Path,
    num_classes: int,
    folder_rate: float = FOLDER_RATE,
) -> list[dict[str, Any]]:
    """Return the dicts of a list's videos, see `register_videos`.

    Raises:
        DataError: a label is out of range, or all videos are missing.
    """
    from ..video.probing import probe_all  # needs PyAV

    for entry in entries:
        if any(label >= num_classes for label in entry.labels):
            raise DataError(
                f"dataset '{name}': {list_file}, line {entry.line}: expected labels from 0 to "
                f"{num_classes - 1} for {entry.path!r}, got {max(entry.labels)}"
            )
    paths = [os.path.join(root, entry.path) for entry in entries]
    found = probe_all(paths, list_file=list_file, folder_rate=folder_rate, title=name)
    dicts: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for entry, path in zip(entries, paths, strict=True):
        info = found[path]
        if info is None:
            continue
        seen[entry.path] = seen.get(entry.path, 0) + 1
        again = f"#{seen[entry.path]}" if seen[entry.path] > 1 else ""
        video: dict[str, Any] = {
            "file_name": path,
            "video_id": entry.path + again,
            "labels": list(entry.labels),
        }
        if entry.intervals is not None:
            video["intervals"] = entry.intervals
        video |= {"error": str(info)} if isinstance(info, VideoError) else {"info": info}
        dicts.append(video)
    missing = [path for path, info in found.items() if info is None]
    if not dicts:
        raise DataError(
            f"dataset '{name}': all {len(entries)} videos are missing, the first is {missing[0]}; "
            "check the folder that its paths start from"
        )
    if missing:
        logger.warning(
            "Dataset '%s' has %d of %d videos; %d are missing, the first is %s",
            name,
            len(dicts),
            len(entries),
            len(entries) - len(dicts),
            missing[0],
        )
    return dicts
