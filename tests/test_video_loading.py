"""Loaders of videos: which clips are taken follows from the seed and the place in the stream."""

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from painted import write_video

import nl_detectron
from nl_detectron.config import check_clips
from nl_detectron.data import register_videos
from nl_detectron.data.video import build as loading
from nl_detectron.engine.data_order import DataOrder
from nl_detectron.utils.errors import ConfigError, UserError

NUM_VIDEOS = 7


@pytest.fixture(scope="module")
def video_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven short videos, named as Kinetics' are."""
    folder = tmp_path_factory.mktemp("kinetics")
    lines = []
    for i in range(NUM_VIDEOS):
        name = f"class_{i % 3}/abc-{i}_000010_000020.mp4"
        (folder / name).parent.mkdir(exist_ok=True)
        write_video(folder / name, "mpeg4", 10 + 5 * i, options={"g": "12"})
        lines.append(f"{name} {i % 3}\n")
    (folder / "train.txt").write_text("".join(lines))
    return folder / "train.txt"


@pytest.fixture
def cfg(video_list: Path, tmp_path: Path) -> Iterator[CfgNode]:
    register_videos("small", video_list, video_list.parent, classes=3)
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES = 3
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("small",)
    cfg.INPUT.CLIP.FRAMES, cfg.INPUT.CLIP.STRIDE = 4, 2
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = (32, 40), "range"
    cfg.INPUT.MIN_SIZE_TEST = 32
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [28, 28]
    cfg.TEST.CLIPS, cfg.TEST.CROPS = 2, 3
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.OUTPUT_DIR = str(tmp_path)
    yield cfg
    DatasetCatalog.remove("small")
    MetadataCatalog.pop("small")


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


def build(cfg: CfgNode, *, seed: int = 3, workers: int = 0) -> Any:
    np.random.seed(seed)  # noqa: NPY002 (what Detectron2 draws the sampler's seed from)
    cfg.DATALOADER.NUM_WORKERS = workers
    return loading.build_train_loader(cfg)


def test_a_batch_is_clips_with_their_labels(cfg: CfgNode) -> None:
    for batch in itertools.islice(build(cfg), 5):
        assert len(batch) == 4
        for video in batch:
            assert video["clips"].shape == (1, 3, 4, 28, 28)
            assert video["clips"].dtype == torch.uint8
            assert video["labels"] == [int(video["video_id"][6])]
            assert Path(video["file_name"]).is_file()


def test_every_video_comes_once_in_an_epoch_and_another_clip_in_the_next(cfg: CfgNode) -> None:
    cfg.SOLVER.IMS_PER_BATCH = NUM_VIDEOS
    first, second = take(build(cfg), 2)
    names = {name for name, _ in first}
    assert len(names) == len({name for name, _ in second}) == NUM_VIDEOS
    assert len({pixels for _, pixels in first + second}) == 2 * NUM_VIDEOS


def test_any_number_of_workers_takes_the_same_clips(cfg: CfgNode) -> None:
    whole = take(build(cfg), 9)
    assert take(build(cfg), 9) == whole
    assert take(build(cfg, workers=1), 9) == whole
    assert take(build(cfg, workers=2), 9) == whole
    assert take(build(cfg, seed=4), 9) != whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_takes_the_clips_of_the_uninterrupted_one(cfg: CfgNode, workers: int) -> None:
    loader = build(cfg)
    state = DataOrder(loader).state_dict()
    whole = take(loader, 12)
    for batches in (1, 5, 8):
        resumed = build(cfg, seed=99, workers=workers)
        order = DataOrder(resumed)
        order.load_state_dict(state)
        order.start_after(batches, seed=batches)
        assert take(resumed, 4) == whole[batches : batches + 4]


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


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_video_is_tested_once_with_all_its_views(
    cfg: CfgNode, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7 videos divide by none of the numbers of processes."""
    cfg.DATALOADER.NUM_WORKERS = workers if processes < 5 else 0
    seen: list[str] = []
    views: dict[str, bytes] = {}
    for rank in range(processes):
        in_process(rank, processes, monkeypatch)
        loader = loading.build_test_loader(cfg, "small")
        batches = list(loader)
        assert len(loader) == len(batches)
        for [video] in batches:
            seen.append(video["video_id"])
            assert video["clips"].shape == (6, 3, 4, 32, 32)
            views[video["video_id"]] = video["clips"].numpy().tobytes()
    in_process(0, 1, monkeypatch)
    videos = loading.load_videos("small")
    assert sorted(seen) == sorted(video["video_id"] for video in videos)
    assert len(set(views.values())) == NUM_VIDEOS


def test_an_evaluation_goes_on_without_the_videos_it_has_done(cfg: CfgNode) -> None:
    videos = [video["video_id"] for video in loading.load_videos("small")]
    for done in (videos[2:5], videos, []):
        loader = loading.build_test_loader(cfg, "small", without=set(done))
        rest = [video["video_id"] for [video] in loader]
        assert rest == [name for name in videos if name not in done]


def test_another_number_of_classes_is_named(cfg: CfgNode) -> None:
    cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES = 5
    for build_loader in (
        lambda: loading.build_train_loader(cfg),
        lambda: loading.build_test_loader(cfg, "small"),
    ):
        with pytest.raises(ConfigError, match=r"'small' has 3 classes, .*NUM_CLASSES is 5"):
            build_loader()


# Over many clips


def load_rounds(cfg: CfgNode, clips: int, rounds: int = 10) -> tuple[list[int], list[float]]:
    """Load clips in rounds; return open files and resident MiB after each but the first."""
    loader = iter(build(cfg))
    process, open_files, memory = psutil.Process(), [], []
    for _ in range(rounds):
        for _ in range(clips // rounds // cfg.SOLVER.IMS_PER_BATCH):
            next(loader)
        gc.collect()
        open_files.append(process.num_fds())
        memory.append(process.memory_info().rss / 2**20)
    return open_files[1:], memory[1:]


def test_a_hundred_clips_leave_no_file_open(cfg: CfgNode) -> None:
    open_files, memory = load_rounds(cfg, 120)
    assert len(set(open_files)) == 1
    assert memory[-1] - memory[0] < 30


# Values of Detectron2's own keys


@pytest.mark.parametrize(
    ("key", "value"),
    [
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
def test_values_that_mean_nothing_for_clips_are_named(
    cfg: CfgNode, key: str, value: object
) -> None:
    check_clips(cfg)
    cfg.merge_from_list([key, value])
    with pytest.raises(ConfigError, match=f"^{key} ") as caught:
        check_clips(cfg)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    from nl_detectron.data import check_datasets

    register_videos("gone", tmp_path / "train.txt", tmp_path, classes=2)
    try:
        with pytest.raises(UserError, match=r"'gone' is not there: no .*train\.txt"):
            check_datasets(["gone"])
    finally:
        DatasetCatalog.remove("gone")
        MetadataCatalog.pop("gone")
