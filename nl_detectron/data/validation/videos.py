"""Problems of lists of videos, and of the videos in them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..datasets import charades
from ..datasets.video_list import Entry
from ..video.info import VideoError
from .images import problems_of_each
from .kinds import Problem, Report


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """A list of videos to check.

    Args:
        name: name of the dataset, or its file.
        entries: entries of the list.
        root: folder that their paths start from.
        classes: class names; None if they are unknown.
        multi_label: a video may have any number of labels.
    """

    name: str
    entries: Sequence[Entry]
    root: Path = Path()
    classes: Sequence[str] | None = None
    multi_label: bool = False

    @classmethod
    def of_list(cls, file: Path, root: Path) -> Self:
        """Read an unregistered list of videos, or a CSV file of Charades."""
        entries = charades.read_list_or_csv(file, root)
        has_several = any(len(entry.labels) != 1 for entry in entries)
        return cls(name=str(file), entries=entries, root=root, multi_label=has_several)

    @classmethod
    def registered(cls, name: str) -> Self:
        """Return a dataset of Detectron2's catalog.

        Raises:
            UserError: its list cannot be read.
        """
        metadata = MetadataCatalog.get(name)
        if read := metadata.get("read_entries"):
            entries, root = read(), Path(metadata.video_root)
        else:  # a generated dataset
            videos = DatasetCatalog.get(name)
            entries = [Entry(path=v["file_name"], labels=tuple(v["labels"])) for v in videos]
            root = Path()
        return cls(
            name=name,
            entries=entries,
            root=root,
            classes=metadata.get("thing_classes"),
            multi_label=metadata.evaluator_type == "video_map",
        )

    def path(self, entry: Entry) -> str:
        return os.path.join(self.root, entry.path)


def check_videos(videos: VideoSet, *, decode: bool = True, progress: bool = False) -> Report:
    """Report the problems of a list and its videos.

    Args:
        decode: decode every video to its end, instead of only checking that its file exists.
        progress: show a progress bar.
    """
    labels = sum(len(entry.labels) for entry in videos.entries)
    report = Report(videos.name, {"videos": len(videos.entries), "labels": labels})
    if videos.classes is not None:
        report.facts["classes"] = len(videos.classes)
    report.add(problems_of_list(videos))
    report.add(problems_of_files(videos, decode=decode, progress=progress))
    return report


def check_video_run(cfg: CfgNode, *, decode: bool = True, progress: bool = False) -> list[Report]:
    """Report on each dataset of a config, and last on all of them with the model."""
    names = dict.fromkeys(cfg.DATASETS.TRAIN + cfg.DATASETS.TEST)
    sets = {name: VideoSet.registered(name) for name in names}
    reports = [check_videos(videos, decode=decode, progress=progress) for videos in sets.values()]
    together = Report("the config and its datasets together")
    number = cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES
    for name, videos in sets.items():
        if videos.classes is not None and len(videos.classes) != number:
            detail = f"{len(videos.classes)} classes, {number} in the model"
            together.add([Problem("class-number", f"dataset '{name}'", detail)])
        if name not in cfg.DATASETS.TRAIN:
            for train in cfg.DATASETS.TRAIN:
                together.add(problems_between(sets[train], videos))
    return [*reports, together]


def problems_of_list(videos: VideoSet) -> Iterator[Problem]:
    """Yield the problems of a list's lines."""
    first: dict[str, Entry] = {}
    for entry in videos.entries:
        where = _where(entry)
        if videos.classes is not None and max(entry.labels, default=-1) >= len(videos.classes):
            detail = f"labels {entry.labels} of {len(videos.classes)} classes, from 0"
            yield Problem("video-label-range", where, detail)
        if not entry.labels and not videos.multi_label:
            yield Problem("video-no-label", where, "no label")
        other = first.setdefault(os.path.normpath(entry.path), entry)
        if other is not entry:
            kind = "duplicate-video" if other.labels == entry.labels else "conflicting-labels"
            yield Problem(kind, where, f"it is in line {other.line} too")


def problems_of_files(
    videos: VideoSet, *, decode: bool = True, progress: bool = False
) -> Iterator[Problem]:
    """Yield the problems of the videos' files; arguments as `check_videos`."""
    from ..video.probing import probe  # needs PyAV
    from ..video.reading import read_frames

    entries = {videos.path(entry): entry for entry in videos.entries}

    def find(path: str) -> Problem | None:
        where = _where(entries[path])
        if not os.path.lexists(path):
            return Problem("missing-video", where, f"no {path}")
        try:
            if decode and (info := probe(path)).pattern:
                read_frames(path, range(info.num_frames), info, size=(1, 1))
        except (VideoError, OSError, ValueError) as failure:
            return Problem("unreadable-video", where, f"{path!r}: {failure}")
        return None

    yield from problems_of_each(entries, find, unit="video", progress=decode and progress)


def problems_between(train: VideoSet, test: VideoSet) -> Iterator[Problem]:
    """Yield the videos in both lists."""
    trained = {os.path.realpath(train.path(entry)) for entry in train.entries}
    where = f"datasets '{train.name}' and '{test.name}'"
    for entry in test.entries:
        if os.path.realpath(test.path(entry)) in trained:
            yield Problem("video-in-train-and-test", where, entry.path)


def _where(entry: Entry) -> str:
    return f"line {entry.line}, {entry.path}" if entry.line else entry.path
