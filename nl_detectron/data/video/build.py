"""Loaders of clips to train on and of videos to test on, with Detectron2's samplers.

Which clip is taken at which place in the endless stream of training videos follows from the seed of
the sampler and the place alone. So a run repeats, and a resumed one takes the clips that the
uninterrupted one would have, with any number of loader workers.
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
    """Return the endless batches of ``DATASETS.TRAIN``: lists of what `TrainMapper` returns.

    Raises:
        BadVideoError: a video cannot be read, now or when its turn comes, unless
            ``DATALOADER.SKIP_BAD_VIDEOS`` is set.
        DataError: more than ``DATALOADER.MAX_BAD_VIDEOS`` of them are left out then.
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
    """Return a loader of the data set `name`: each video once, with all its views.

    Processes share the videos out among themselves, so none is seen twice whatever their number.
    Errors are those of `build_train_loader`.

    Args:
        without: ids of videos to leave out, which an evaluation that was cut off has done.
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
    """Detectron2's endless shuffling; with each video come the numbers its clip is drawn from.

    Yields (index of the video, (seed, place in the stream of all processes)).
    """

    def __iter__(self) -> Iterator[tuple[int, tuple[int, int]]]:
        for i, index in enumerate(super().__iter__()):
            yield index, (self._seed, self._rank + i * self._world_size)


class TrainingClips(Dataset):
    """A clip of a video, by what `ClipSampler` yields.

    Args:
        skipped: where videos that cannot be read are counted. Another one, drawn at random, then
            takes the place. None: they are an error.
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
    """All views of a video, None for one that was left out."""

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
    """Without the places of videos that were left out."""

    __test__ = False

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:  # type: ignore[override]
        return (batch for batch in super().__iter__() if batch != [None])


def _load(cfg: CfgNode, names: Sequence[str]) -> tuple[list[Video], SkippedVideos | None]:
    """Return the videos that can be read, as far as probing tells, and where others are counted."""
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
    """Return a data set's dicts. The main process probes the videos, the others wait for it."""
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
    """Raise ConfigError if a loaded data set has another number of classes than the model."""
    found = len(MetadataCatalog.get(name).get("thing_classes", ()))
    if found != num_classes:
        raise ConfigError(
            f"data set '{name}' has {found} classes, but MODEL.VIDEO_CLASSIFIER.NUM_CLASSES is "
            f"{num_classes}; set it to {found}"
        )
