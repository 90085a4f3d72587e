"""Loaders of clips to train on and of videos to test on, with Detectron2's samplers.

The seed of the sampler and the position in the endless stream of training videos determine each
clip. A run can therefore be repeated, and a resumed run takes the clips of an uninterrupted one,
with any number of loader workers.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetFromList, MapDataset, MetadataCatalog
from detectron2.data.build import build_batch_data_loader, trivial_batch_collator
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ...utils.errors import ConfigError, DataError
from .mapper import TestMapper, TrainMapper, bad_video

logger = logging.getLogger(__name__)

Video = dict[str, Any]
Mapper = Callable[..., dict[str, Any]]


def build_train_loader(cfg: CfgNode, mapper: Mapper | None = None) -> DataLoader:
    """Return a loader of endless batches of ``DATASETS.TRAIN``, lists of `TrainMapper`'s dicts.

    Raises:
        DataError: a video is unreadable; with ``DATALOADER.SKIP_BAD_VIDEOS`` only if probing did
            not find that, or if their share exceeds ``DATALOADER.MAX_BAD_VIDEOS``.
    """
    videos = [video for name in cfg.DATASETS.TRAIN for video in _readable_videos(cfg, name)]
    return build_batch_data_loader(
        TrainingClips(videos, mapper or TrainMapper.from_config(cfg)),
        ClipSampler(len(videos)),
        cfg.SOLVER.IMS_PER_BATCH,
        aspect_ratio_grouping=False,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_test_loader(cfg: CfgNode, name: str, mapper: Mapper | None = None) -> DataLoader:
    """Return a loader of the dataset `name`: each video once, with all its views.

    The videos are divided among any number of processes. Errors are those of `build_train_loader`.
    """
    videos = _readable_videos(cfg, name)
    return DataLoader(
        MapDataset(DatasetFromList(videos, copy=False), mapper or TestMapper.from_config(cfg)),
        batch_size=1,
        sampler=InferenceSampler(len(videos)),
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
    """Clips of videos, indexed by the items of `ClipSampler`."""

    def __init__(self, videos: Sequence[Video], mapper: Callable[..., Any]) -> None:
        self.videos = DatasetFromList(list(videos), copy=False)
        self.mapper = mapper

    def __getitem__(self, drawn: tuple[int, tuple[int, int]]) -> dict[str, Any]:
        index, numbers = drawn
        return self.mapper(self.videos[index], np.random.default_rng(numbers))


def _readable_videos(cfg: CfgNode, name: str) -> list[Video]:
    """Return the videos of a dataset without those that probing found unreadable."""
    videos = load_videos(name)
    check_classes(name, cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES)
    bad = [video for video in videos if "error" in video]
    if not bad:
        return videos
    first = bad_video(bad[0]["file_name"], bad[0]["error"])
    if not cfg.DATALOADER.SKIP_BAD_VIDEOS:
        raise first
    limit = cfg.DATALOADER.MAX_BAD_VIDEOS
    if len(bad) > limit * len(videos) or len(bad) == len(videos):
        raise DataError(
            f"{len(bad)} of the {len(videos)} videos of '{name}' are unreadable, but "
            f"DATALOADER.MAX_BAD_VIDEOS allows a share of {limit:g}; the first is {first}"
        )
    for video in bad:
        logger.warning("Skipping unreadable video %r: %s", video["file_name"], video["error"])
    return [video for video in videos if "error" not in video]


def load_videos(name: str) -> list[Video]:
    """Return a dataset's dicts. The main process probes the videos; the others wait for it."""
    if comm.is_main_process():
        try:
            return DatasetCatalog.get(name)
        finally:
            comm.synchronize()
    comm.synchronize()
    return DatasetCatalog.get(name)


def check_classes(name: str, num_classes: int) -> None:
    """Raise ConfigError if a loaded dataset has another number of classes than the model."""
    found = len(MetadataCatalog.get(name).get("thing_classes", ()))
    if found != num_classes:
        raise ConfigError(
            f"dataset '{name}' has {found} classes, but MODEL.VIDEO_CLASSIFIER.NUM_CLASSES is "
            f"{num_classes}; set it to {found}"
        )
