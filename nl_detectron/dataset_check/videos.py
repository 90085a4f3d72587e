"""What can be wrong with lists of videos, and with the videos in them."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from ..data.video import charades
from ..data.video.info import VideoError
from ..data.video.lists import Entry, read_list
from .kinds import Problem, error, warning
from .report import Report

THREADS = 4

MISSING = warning(
    "missing-video", "a video is not there; training and evaluation do without it", "add the file"
)
UNREADABLE = error(
    "unreadable-video",
    "a video cannot be decoded to its end; a run stops when it gets there",
    "copy or convert it again, or set DATALOADER.SKIP_BAD_VIDEOS True",
)
LABEL = error("video-label-range", "a label is not one of the classes", "correct the list")
NO_LABEL = error(
    "video-no-label",
    "a video without a label where each has one; training fails",
    "add the label, or set MODEL.VIDEO_CLASSIFIER.MULTI_LABEL True",
)
DUPLICATE = warning(
    "duplicate-video",
    "a video is listed more than once: it weighs more than others",
    "remove the other lines",
)
CONFLICT = error(
    "conflicting-labels", "a video is listed with different labels", "remove the wrong lines"
)
EMPTY_CLASS = warning("class-without-video", "a class that no video has", "add videos of it")
OVERLAP = warning(
    "video-in-train-and-test",
    "a video is trained and evaluated on: the figures are too good",
    "remove it from one of the two",
)
CLASS_NUMBER = error(
    "class-number",
    "the model has another number of classes than the data set",
    "set MODEL.VIDEO_CLASSIFIER.NUM_CLASSES to the number of classes",
)


@dataclass(frozen=True, kw_only=True)
class VideoSet:
    """A list of videos to check.

    Args:
        name: of the data set, or its file.
        entries: of the list.
        root: what their paths are relative to.
        classes: their names; None: unknown.
        multi_label: a video may have any number of labels.
    """

    name: str
    entries: Sequence[Entry]
    root: Path
    classes: Sequence[str] | None
    multi_label: bool

    @classmethod
    def of_list(cls, file: Path, root: Path) -> Self:
        """Return a list of videos, or a CSV file of Charades, that is not registered."""
        entries = charades.read_csv(file, root) if charades.is_csv(file) else read_list(file)
        has_several = any(len(entry.labels) != 1 for entry in entries)
        return cls(
            name=str(file), entries=entries, root=root, classes=None, multi_label=has_several
        )

    @classmethod
    def registered(cls, name: str) -> Self:
        """Return a data set of Detectron2's catalog; what fails to be read is a UserError."""
        metadata = MetadataCatalog.get(name)
        if read := metadata.get("read_entries"):
            entries, root = read(), Path(metadata.video_root)
        else:  # one that is generated
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


def is_video_set(name: str) -> bool:
    """Say whether a registered data set is one of videos."""
    return MetadataCatalog.get(name).get("evaluator_type", "").startswith("video_")


def check_videos(
    videos: VideoSet, *, decode: bool = True, progress: bool = False, max_examples: int = 3
) -> Report:
    """Report all that is wrong with a list and its videos.

    Args:
        decode: decode every video to its end, not only see whether its file is there.
        progress: show a progress bar.
        max_examples: how many problems of each kind the report names.
    """
    report = Report(videos.name, max_examples=max_examples)
    report.facts = {
        "videos": len(videos.entries),
        "labels": sum(len(entry.labels) for entry in videos.entries),
    }
    if videos.classes is not None:
        report.facts["classes"] = len(videos.classes)
    report.add(problems_of_list(videos))
    report.add(problems_of_files(videos, decode=decode, progress=progress))
    return report


def check_video_run(
    cfg: CfgNode, *, decode: bool = True, progress: bool = False, max_examples: int = 3
) -> list[Report]:
    """Report on each data set of a config, and last on how they fit the model and each other."""
    names = dict.fromkeys(cfg.DATASETS.TRAIN + cfg.DATASETS.TEST)
    sets = {name: VideoSet.registered(name) for name in names}
    reports = [
        check_videos(videos, decode=decode, progress=progress, max_examples=max_examples)
        for videos in sets.values()
    ]
    whole = Report("the config and its data sets together", max_examples=max_examples)
    for videos in sets.values():
        whole.add(_problems_of_class_number(videos, cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES))
    for test in cfg.DATASETS.TEST:
        for train in cfg.DATASETS.TRAIN:
            if test != train:
                whole.add(problems_between(sets[train], sets[test]))
    return [*reports, whole]


def problems_of_list(videos: VideoSet) -> Iterator[Problem]:
    """Yield what is wrong with the lines of a list."""
    num_classes = None if videos.classes is None else len(videos.classes)
    used: Counter[int] = Counter()
    first: dict[str, Entry] = {}
    for entry in videos.entries:
        where = _where(entry)
        used.update(entry.labels)
        for label in entry.labels:
            if num_classes is not None and label >= num_classes:
                yield Problem(LABEL, where, f"label {label} of {num_classes} classes, from 0")
        if not entry.labels and not videos.multi_label:
            yield Problem(NO_LABEL, where, "no label")
        known = first.setdefault(os.path.normpath(entry.path), entry)
        if known is not entry:
            is_same = known.labels == entry.labels
            yield Problem(
                DUPLICATE if is_same else CONFLICT, where, f"it is in line {known.line} too"
            )
    for label in range(num_classes or max(used, default=-1) + 1):
        if not used[label]:
            name = str(label) if videos.classes is None else videos.classes[label]
            yield Problem(EMPTY_CLASS, f"class {label}", name)


def problems_of_files(
    videos: VideoSet, *, decode: bool = True, progress: bool = False
) -> Iterator[Problem]:
    """Yield what is wrong with the videos' files; arguments as `check_videos`."""
    entries = list({videos.path(entry): entry for entry in videos.entries}.items())
    if not decode:
        for path, entry in entries:
            if not os.path.lexists(path):
                yield Problem(MISSING, _where(entry), f"no {path}")
        return

    def look(item: tuple[str, Entry]) -> list[Problem]:
        path, entry = item
        return [Problem(kind, _where(entry), said) for kind, said in video_problems(path)]

    # Decoding holds no lock of the interpreter, so threads suffice.
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        found = pool.map(look, entries)
        for problems in tqdm(found, total=len(entries), unit="video", disable=not progress):
            yield from problems


def video_problems(path: str) -> Iterator[tuple[str, str]]:
    """Yield kind and detail of what is wrong with a file or a folder of frames, decoding it all."""
    from ..data.video.probing import probe  # needs PyAV
    from ..data.video.reading import read_frames

    if not os.path.lexists(path):
        yield MISSING, f"no {path}"
        return
    try:
        info = probe(path)
        if info.names is not None:
            read_frames(path, range(info.num_frames), info, size=(1, 1))
    except (VideoError, OSError, ValueError) as failure:
        yield UNREADABLE, f"{path!r}: {failure}"
        return


def problems_between(train: VideoSet, test: VideoSet) -> Iterator[Problem]:
    """Yield videos that are in both."""
    trained = {os.path.realpath(train.path(entry)) for entry in train.entries}
    where = f"data sets '{train.name}' and '{test.name}'"
    for entry in test.entries:
        if os.path.realpath(test.path(entry)) in trained:
            yield Problem(OVERLAP, where, entry.path)


def _problems_of_class_number(videos: VideoSet, num_classes: int) -> Iterator[Problem]:
    if videos.classes is not None and len(videos.classes) != num_classes:
        where = f"data set '{videos.name}'"
        yield Problem(
            CLASS_NUMBER, where, f"{len(videos.classes)} classes, {num_classes} in the model"
        )


def _where(entry: Entry) -> str:
    return f"line {entry.line}, {entry.path}" if entry.line else entry.path
