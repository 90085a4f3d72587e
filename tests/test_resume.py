"""A run that was interrupted and resumed, next to one that was not."""

import itertools
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


# The order of the images


def batches(loader: Any, count: int) -> list[list[int]]:
    return [[image["id"] for image in batch] for batch in itertools.islice(iter(loader), count)]


def build(sampler: Sampler, *, grouped: bool, workers: int) -> Any:
    images = MapDataset(DatasetFromList(IMAGES, copy=False), dict)
    return build_batch_data_loader(
        images, sampler, 3, aspect_ratio_grouping=grouped, num_workers=workers
    )


def samplers(seed: int) -> list[Sampler]:
    factors = torch.linspace(0.5, 2.5, 23)
    return [
        TrainingSampler(23, seed=seed),
        RepeatFactorTrainingSampler(factors, seed=seed),
        RandomSubsetTrainingSampler(23, 0.5, seed_shuffle=seed, seed_subset=seed),
    ]


@pytest.mark.parametrize(
    ("kind", "grouped", "workers"),
    [(0, False, 2), (0, True, 0), (0, True, 2), (1, True, 0), (2, True, 0)],
)
def test_resume_keeps_data_order(
    kind: int, grouped: bool, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: 1)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 1)
    loader = build(samplers(5)[kind], grouped=grouped, workers=workers)
    drawn = DataOrder(loader).state_dict()
    whole = batches(loader, 30)
    for first in (0, 1, 11):
        loader = build(samplers(6)[kind], grouped=grouped, workers=workers)
        order = DataOrder(loader)
        order.load_state_dict(drawn)
        order.start_after(first, seed=0)
        assert batches(loader, 15) == whole[first : first + 15]


def test_starting_later_reads_no_earlier_image() -> None:
    read: list[dict] = []
    images = MapDataset(DatasetFromList(IMAGES, copy=False), lambda image: read.append(image) or 1)
    loader = build_batch_data_loader(images, TrainingSampler(23, seed=5), 3)
    state = torch.get_rng_state()
    DataOrder(loader).start_after(1000, seed=0)
    iterator = iter(loader)
    assert torch.equal(torch.get_rng_state(), state)
    next(iterator)
    assert len(read) == 3


def test_unsupported_loader_starts_from_beginning(caplog: pytest.LogCaptureFixture) -> None:
    for loader in ([[1], [2]], DataLoader([1, 2])):
        order = DataOrder(loader)
        order.load_state_dict({"_seed": 5})
        order.start_after(1, seed=0)
        assert order.state_dict() == {}
        assert int(next(iter(loader))[0]) == 1
    assert caplog.text.count("starts from the beginning") == 2


def test_unseeded_run_resumes_detectron2_checkpoint() -> None:
    """Detectron2's has no state of the hook, and newer versions no positive seed."""

    def unseeded() -> Any:
        return build(TrainingSampler(23, seed=-1), grouped=False, workers=0)

    loader = unseeded()
    hook = ExactResume(loader)
    hook.trainer = SimpleNamespace(start_iter=2, iter=2, storage=SimpleNamespace(), _hooks=[])
    hook.before_train()
    assert batches(loader, 3) == batches(unseeded(), 5)[2:]


# Whole runs


EXACT = (
    *tiny_run.RANDOM,
    *("SOLVER.MAX_ITER", 8, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 4, "SEED", -1),
    *("SOLVER.WARMUP_ITERS", 3, "SOLVER.STEPS", "(6,)", "SOLVER.ACCUMULATE_STEPS", 2),
)


def test_resumed_run_equals_uninterrupted_run(
    tmp_path: Path, recorded: Callable[..., Path]
) -> None:
    tiny_run.write_run(tmp_path)
    whole = recorded(tmp_path, "whole", *EXACT)
    # Two runs with SEED -1 are different ones, so the second starts from the first's checkpoint,
    # saved just before an evaluation.
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    (resumed / "model_0000003.pth").write_bytes((whole / "model_0000003.pth").read_bytes())
    (resumed / "last_checkpoint").write_text("model_0000003.pth")
    recorded(tmp_path, "resumed", *EXACT, flags=("--resume",))
    assert record(resumed) == record(whole)[4:]
    assert {len(line["images"]) for line in record(whole)} == {4}  # 2 batches of 2
    assert len({line["loss"] for line in record(whole)}) == 8
    assert len({line["lr"] for line in record(whole)}) > 4
    a, b = (torch.load(output / "model_final.pth") for output in (whole, resumed))
    assert same(a, b)
