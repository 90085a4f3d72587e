"""Loaders of videos: which clips are taken follows from the seed and the place in the stream."""

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from painted import write_video

from nl_detectron.config import check_clips, load_config
from nl_detectron.data import register_videos
from nl_detectron.data.video import build as loading
from nl_detectron.utils.errors import ConfigError

NUM_VIDEOS = 7


@pytest.fixture(scope="module")
def video_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven short videos, named as Kinetics' are."""
    file = tmp_path_factory.mktemp("kinetics") / "train.txt"
    names = [f"class {i % 3}-{i}_000010_000020.mp4" for i in range(NUM_VIDEOS)]
    for i, name in enumerate(names):
        write_video(file.with_name(name), "mpeg4", 10 + 5 * i, options={"g": "12"})
    file.write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(names)))
    return file


@pytest.fixture
def cfg(video_list: Path) -> CfgNode:
    register_videos("small", video_list, video_list.parent, classes=3)
    opts = (
        *("MODEL.VIDEO_CLASSIFIER.NUM_CLASSES", 3, "DATASETS.TRAIN", ("small",)),
        *("INPUT.CLIP.FRAMES", 4, "INPUT.CLIP.STRIDE", 2, "TEST.CLIPS", 2, "TEST.CROPS", 3),
        *("INPUT.MIN_SIZE_TRAIN", (32, 40), "INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"),
        *("INPUT.MIN_SIZE_TEST", 32, "INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute"),
        *("INPUT.CROP.SIZE", [28, 28], "SOLVER.IMS_PER_BATCH", 4),
    )
    return load_config("quickstart_video.yaml", opts)


def in_process(rank: int, of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: rank)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: of)
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: of)
    monkeypatch.setattr("detectron2.utils.comm.synchronize", lambda: None)
    monkeypatch.setattr("detectron2.utils.comm.shared_random_seed", lambda: 17)


def take(loader: Any, batches: int) -> list[list[tuple[str, bytes]]]:
    """Return the videos and the very pixels of the next batches."""
    return [
        [(video["video_id"], video["clips"].numpy().tobytes()) for video in batch]
        for batch in itertools.islice(loader, batches)
    ]


def build(cfg: CfgNode, *, workers: int = 0) -> Any:
    np.random.seed(3)  # noqa: NPY002 (what Detectron2 draws the sampler's seed from)
    cfg.DATALOADER.NUM_WORKERS = workers
    return loading.build_train_loader(cfg)


def test_epoch_has_each_video_once_with_new_clips(cfg: CfgNode) -> None:
    cfg.SOLVER.IMS_PER_BATCH = NUM_VIDEOS
    first, second = itertools.islice(build(cfg), 2)
    for batch in (first, second):
        assert len({video["video_id"] for video in batch}) == NUM_VIDEOS
    for video in first + second:
        assert (video["clips"].shape, video["clips"].dtype) == ((1, 3, 4, 28, 28), torch.uint8)
        assert video["labels"] == [int(video["video_id"][6])]
    clips = {video["clips"].numpy().tobytes() for video in first + second}
    assert len(clips) == 2 * NUM_VIDEOS


def test_two_processes_take_the_clips_of_one(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(0, 1, monkeypatch)
    whole = take(build(cfg), 6)
    halves = []
    for rank in (0, 1):
        in_process(rank, 2, monkeypatch)
        halves.append(take(build(cfg, workers=rank), 6))
    assert all(len(batch) == 2 for batch in halves[0] + halves[1])
    for batch, first, second in zip(whole, *halves, strict=True):
        assert sorted(batch) == sorted(first + second)


@pytest.mark.parametrize(("processes", "workers"), [(1, 2), (3, 0), (8, 0)])
def test_every_video_is_tested_once_with_all_its_views(
    cfg: CfgNode, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg.DATALOADER.NUM_WORKERS = workers
    seen: list[dict[str, Any]] = []
    for rank in range(processes):
        in_process(rank, processes, monkeypatch)
        for batch in loading.build_test_loader(cfg, "small"):
            seen += batch
    assert len(seen) == len({video["video_id"] for video in seen}) == NUM_VIDEOS
    assert {video["clips"].shape for video in seen} == {(6, 3, 4, 32, 32)}
    assert len({video["clips"].numpy().tobytes() for video in seen}) == NUM_VIDEOS


def test_class_count_mismatch_is_refused(cfg: CfgNode) -> None:
    cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES = 5
    for build_loader in (
        loading.build_train_loader,
        partial(loading.build_test_loader, name="small"),
    ):
        with pytest.raises(ConfigError, match=r"'small' has 3 classes, .*NUM_CLASSES is 5"):
            build_loader(cfg)


# Values of Detectron2's own keys


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.RESNETS.OUT_FEATURES", ["res6"]),
        ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, False, False]),
        ("INPUT.RANDOM_FLIP", "vertical"),
        ("INPUT.CROP.TYPE", "relative"),
        ("INPUT.CROP.SIZE", [28]),
        ("INPUT.CROP.SIZE", [28, 33]),
        ("INPUT.CROP.SIZE", [0.5, 0.5]),
        ("INPUT.MIN_SIZE_TRAIN", (32, 36, 40)),
        ("INPUT.MIN_SIZE_TRAIN", (40, 32)),
        ("INPUT.MIN_SIZE_TRAIN", (0, 32)),
        ("INPUT.MIN_SIZE_TEST", 0),
        ("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
    ],
)
def test_unsupported_clip_values_are_refused(cfg: CfgNode, key: str, value: object) -> None:
    check_clips(cfg)
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=rf"^{key} [^\n]+\Z"):
        check_clips(cfg)
