"""Loaders of clips to train on and of videos to test on, with Detectron2's samplers.

The seed of the sampler and the position in the endless stream of training videos determine each
clip. A run can therefore be repeated, and a resumed run takes the clips of an uninterrupted one,
with any number of loader workers.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetFromList, MetadataCatalog
from detectron2.data.build import build_batch_data_loader, trivial_batch_collator
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ...utils.errors import ConfigError
from .mapper import BadVideoError, TestMapper, TrainMapper
from .skipping import SkippedVideos, skipped_file

logger = logging.getLogger(__name__)

Video = dict[str, Any]
Mapper = Callable[..., dict[str, Any]]


def build_train_loader(cfg: CfgNode, mapper: Mapper | None = None) -> DataLoader:
    """Return a loader of endless batches of ``DATASETS.TRAIN``, lists of `TrainMapper`'s dicts.

    Raises:
        BadVideoError: a video is unreadable, now or during iteration, unless
            ``DATALOADER.SKIP_BAD_VIDEOS`` is set.
        DataError: the share of skipped videos exceeds ``DATALOADER.MAX_BAD_VIDEOS``.
    """
    videos, skipped = _load(cfg, cfg.DATASETS.TRAIN)
    for name in cfg.DATASETS.TRAIN:
        check_classes(name, cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES)
    return build_batch_data_loader(
        TrainingClips(videos, mapper or TrainMapper.from_config(cfg), skipped),
        ClipSampler(len(videos)),
        cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_test_loader(
    cfg: CfgNode,
    name: str,
    mapper: Mapper | None = None,
    *,
    without: Collection[str] = (),
) -> DataLoader:
    """Return a loader of the dataset `name`: each video once, with all its views.

    The videos are divided among any number of processes. Errors are those of `build_train_loader`.

    Args:
        without: ids of videos to skip, which an interrupted evaluation has finished.
    """
    videos, skipped = _load(cfg, [name])
    check_classes(name, cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES)
    rest = [video for video in videos if video["video_id"] not in without]
    return TestLoader(
        TestVideos(rest, mapper or TestMapper.from_config(cfg), skipped),
        batch_size=1,
        sampler=InferenceSampler(len(rest)) if rest else None,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
    )


class ClipSampler(TrainingSampler):
    """Detectron2's endless shuffling, with the random seed of each video's clip.

    It yields (index of the video, (seed, position in the stream of all processes)).
    """

    def __iter__(self) -> Iterator[tuple[int, tuple[int, int]]]:
        for i, index in enumerate(super().__iter__()):
            yield index, (self._seed, self._rank + i * self._world_size)


class TrainingClips(Dataset):
    """Clips of videos, indexed by the items of `ClipSampler`.

    Args:
        skipped: counter of unreadable videos, each of which is replaced by a random other one. With
            None an unreadable video is an error.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        mapper: Callable[..., Any],
        skipped: SkippedVideos | None = None,
    ) -> None:
        self.videos = DatasetFromList(list(videos), copy=False)
        self.mapper, self.skipped = mapper, skipped

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, drawn: tuple[int, tuple[int, int]]) -> dict[str, Any]:
        index, numbers = drawn
        random = np.random.default_rng(numbers)
        while True:
            video = self.videos[index]
            try:
                return self.mapper(video, random)
            except BadVideoError as error:
                if self.skipped is None:
                    raise
                self.skipped.add(error, video["file_name"])
            index = int(random.integers(len(self.videos)))


class TestVideos(Dataset):
    """All views of a video; None for a skipped one."""

    __test__ = False

    def __init__(
        self,
        videos: Sequence[Video],
        mapper: Callable[..., Any],
        skipped: SkippedVideos | None = None,
    ) -> None:
        self.videos = DatasetFromList(list(videos), copy=False) if videos else []
        self.mapper, self.skipped = mapper, skipped

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        video = self.videos[index]
        try:
            return self.mapper(video)
        except BadVideoError as error:
            if self.skipped is None:
                raise
            self.skipped.add(error, video["file_name"])
            return None


class TestLoader(DataLoader):
    """A loader without the None of skipped videos."""

    __test__ = False

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:  # type: ignore[override]
        return (batch for batch in super().__iter__() if batch != [None])


def _load(cfg: CfgNode, names: Sequence[str]) -> tuple[list[Video], SkippedVideos | None]:
    """Return the videos that probing found readable, and the counter of the others."""
    videos = [video for name in names for video in load_videos(name)]
    bad = [video for video in videos if "error" in video]
    if not cfg.DATALOADER.SKIP_BAD_VIDEOS:
        if bad:
            raise _error_of(bad[0])
        return videos, None
    skipped = SkippedVideos(
        skipped_file(cfg.OUTPUT_DIR),
        " and ".join(names),
        num_videos=len(videos),
        limit=cfg.DATALOADER.MAX_BAD_VIDEOS,
    )
    if comm.is_main_process():
        for video in bad:
            skipped.add(_error_of(video), video["file_name"])
    return [video for video in videos if "error" not in video], skipped


def load_videos(name: str) -> list[Video]:
    """Return a dataset's dicts. The main process probes the videos; the others wait for it."""
    if comm.is_main_process():
        try:
            return DatasetCatalog.get(name)
        finally:
            comm.synchronize()
    comm.synchronize()
    return DatasetCatalog.get(name)


def _error_of(video: Video) -> BadVideoError:
    return BadVideoError.of(video["file_name"], video["error"])


def check_classes(name: str, num_classes: int) -> None:
    """Raise ConfigError if a loaded dataset has another number of classes than the model."""
    found = len(MetadataCatalog.get(name).get("thing_classes", ()))
    if found != num_classes:
        raise ConfigError(
            f"dataset '{name}' has {found} classes, but MODEL.VIDEO_CLASSIFIER.NUM_CLASSES is "
            f"{num_classes}; set it to {found}"
        )
