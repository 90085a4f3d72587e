"""A run that was interrupted and resumed, next to one that was not."""

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
import torch
from detectron2.data.build import build_batch_data_loader
from detectron2.data.common import DatasetFromList, MapDataset
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from recording import record, same
from torch.utils.data import DataLoader, Sampler

from nl_detectron.engine.data_order import DataOrder, ExactResume

pytest_plugins = ["recording"]  # for its fixture

SIZES = [(5, 4), (4, 4), (4, 5), (6, 4), (3, 4)]
IMAGES = [{"id": i, "width": SIZES[i % 5][0], "height": SIZES[i % 5][1]} for i in range(23)]


def terminate(trainer: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


# The order of the images


def batches(loader: Any, count: int) -> list[list[int]]:
    return [[image["id"] for image in batch] for batch in itertools.islice(iter(loader), count)]


def build(sampler: Sampler, *, grouped: bool, workers: int) -> Any:
    images = MapDataset(DatasetFromList(IMAGES, copy=False), dict)
    return build_batch_data_loader(
        images, sampler, 3, aspect_ratio_grouping=grouped, num_workers=workers
    )


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_loader_can_start_anywhere_in_its_order(grouped: bool, workers: int) -> None:
    whole = batches(build(TrainingSampler(23, seed=5), grouped=grouped, workers=workers), 30)
    for first in (0, 1, 11):
        loader = build(TrainingSampler(23, seed=1), grouped=grouped, workers=workers)
        order = DataOrder(loader)
        assert order.state_dict() == {"_seed": 1}
        order.load_state_dict({"_seed": 5})
        order.start_after(first, seed=0)
        assert batches(loader, 15) == whole[first : first + 15]


def samplers(seed: int) -> list[Sampler]:
    factors = torch.linspace(0.5, 2.5, 23)
    return [
        RepeatFactorTrainingSampler(factors, seed=seed),
        RandomSubsetTrainingSampler(23, 0.5, seed_shuffle=seed, seed_subset=seed),
    ]


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("rank", [0, 1])
def test_other_samplers_and_every_process_keep_their_order(
    kind: int, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: rank)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 1)
    first = build(samplers(5)[kind], grouped=True, workers=0)
    drawn = DataOrder(first).state_dict()
    whole = batches(first, 20)
    loader = build(samplers(6)[kind], grouped=True, workers=0)
    order = DataOrder(loader)
    order.load_state_dict(drawn)
    order.start_after(9, seed=0)
    assert batches(loader, 11) == whole[9:]


def test_starting_later_reads_no_earlier_image() -> None:
    read: list[int] = []

    def mapper(image: dict) -> dict:
        read.append(image["id"])
        return image

    images = MapDataset(DatasetFromList(IMAGES, copy=False), mapper)
    loader = build_batch_data_loader(images, TrainingSampler(23, seed=5), 3)
    state = torch.get_rng_state()
    DataOrder(loader).start_after(1000, seed=0)
    iterator = iter(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert read == []
    next(iterator)
    assert len(read) == 3


def test_a_loader_of_another_make_keeps_its_own_order(caplog: pytest.LogCaptureFixture) -> None:
    for loader in ([[1], [2]], DataLoader([1, 2])):
        order = DataOrder(loader)
        order.load_state_dict({"_seed": 5})
        order.start_after(1, seed=0)
        assert order.state_dict() == {}
        assert int(next(iter(loader))[0]) == 1
    assert caplog.text.count("starts from the beginning") == 2


def test_a_run_without_a_seed_resumes() -> None:
    def unseeded() -> Any:  # as newer versions of Detectron2 build it: SEED is -1
        return build(TrainingSampler(23, seed=-1), grouped=False, workers=0)

    loader = unseeded()
    hook = ExactResume(loader)
    hook.trainer = SimpleNamespace(start_iter=2, iter=2, storage=SimpleNamespace(), _hooks=[])
    hook.before_train()
    assert batches(loader, 3) == batches(unseeded(), 5)[2:]


# Whole runs


EXACT = (
    *tiny_run.RANDOM,
    *("SOLVER.MAX_ITER", 12, "SOLVER.CHECKPOINT_PERIOD", 3, "TEST.EVAL_PERIOD", 6, "SEED", -1),
    *("SOLVER.WARMUP_ITERS", 5, "SOLVER.STEPS", "(9,)", "SOLVER.ACCUMULATE_STEPS", 2),
)


def test_a_resumed_run_is_the_uninterrupted_one(
    tmp_path: Path, recorded: Callable[..., Path]
) -> None:
    tiny_run.write_run(tmp_path)
    whole = recorded(tmp_path, "whole", *EXACT)
    # Two runs with SEED -1 are different ones, so the second starts from the first's checkpoint,
    # saved just before an evaluation.
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (resumed / "model_0000005.pth").write_bytes((whole / "model_0000005.pth").read_bytes())
    (resumed / "last_checkpoint").write_text("model_0000005.pth")
    recorded(tmp_path, "resumed", *EXACT, flags=("--resume",))
    assert record(resumed) == record(whole)[6:]
    assert len({line["loss"] for line in record(whole)}) == 12
    assert len({line["lr"] for line in record(whole)}) > 5
    a, b = (torch.load(output / "model_final.pth") for output in (whole, resumed))
    assert same(a, b)


def test_an_older_checkpoint_without_random_numbers_resumes_too(
    tmp_path: Path, recorded: Callable[..., Path], capfd: pytest.CaptureFixture
) -> None:
    tiny_run.write_run(tmp_path)
    opts = (*tiny_run.RANDOM, "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 3)
    whole = recorded(tmp_path, "whole", *opts)
    old = torch.load(whole / "model_0000002.pth")
    del old["trainer"]["hooks"]["ExactResume"]
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    torch.save(old, resumed / "model_0000002.pth")
    (resumed / "last_checkpoint").write_text("model_0000002.pth")
    capfd.readouterr()
    recorded(tmp_path, "resumed", *opts, flags=("--resume",))
    said = "The checkpoint has no random states, as an older version saved it"
    assert said in capfd.readouterr().out
    a, b = record(whole)[3:], record(resumed)
    assert [line["images"] for line in a] == [line["images"] for line in b]
    assert [line["loss"] for line in a] != [line["loss"] for line in b]


def test_with_loader_workers_the_images_are_the_same(
    tmp_path: Path, recorded: Callable[..., Path]
) -> None:
    tiny_run.write_run(tmp_path)
    opts = ("DATALOADER.NUM_WORKERS", 2, "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 3)
    whole = recorded(tmp_path, "whole", *opts)
    with pytest.raises(SystemExit) as ended:
        recorded(tmp_path, "resumed", *opts, at={1: terminate})
    # A process that another has started waits for its workers while its exit is on the way.
    assert ended.tb is not None
    assert multiprocessing.active_children() == []
    resumed = recorded(tmp_path, "resumed", *opts, flags=("--resume",))
    assert record(resumed) == record(whole)
