"""A run's device, its launching, and the step: accumulation and mixed precision."""

import logging
import math
import shlex
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from detectron2.utils.events import EventStorage, EventWriter
from tiny_run import ROOT
from torch import nn

from nl_detectron.config import check_clips, is_video, load_config, load_lazy_config
from nl_detectron.engine import Ranks, StepTrainer, ranks_from_environment
from nl_detectron.engine.defaults import advise_a_trial
from nl_detectron.engine.hooks import ProgressWriter
from nl_detectron.engine.launch import _gpu_number
from nl_detectron.utils.errors import ConfigError, UserError

QUICKSTART = ROOT / "configs" / "quickstart.yaml"


def test_the_device_is_chosen_only_when_nobody_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = ROOT / "configs" / "COCO-Keypoints" / "keypoint_rcnn_R_50_FPN_1x.py"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_config(QUICKSTART).MODEL.DEVICE == "cpu"
    assert load_lazy_config(lazy).train.device == "cpu"
    with pytest.raises(ConfigError, match=r"MODEL.DEVICE is 'cuda:0'"):
        load_config(QUICKSTART, ["MODEL.DEVICE", "cuda:0"])
    with pytest.raises(ConfigError, match=r"train.device"):
        load_lazy_config(lazy, ["train.device=cuda"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_config(QUICKSTART).MODEL.DEVICE == "cuda"
    assert load_config(QUICKSTART, ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu"


@pytest.mark.parametrize(
    "config", ["COCO-Detection/faster_rcnn_R_50_FPN_NL_1x.yaml", "Kinetics/c2d_R_50_NL5_32x2.yaml"]
)
def test_long_cpu_training_suggests_valid_options(
    config: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "nl_detectron"):
        for small in ("quickstart.yaml", "quickstart_video.yaml"):
            advise_a_trial(load_config(small))
        assert not caplog.text
        advise_a_trial(load_config(config))
    options = shlex.split(caplog.text.split(" add ")[1].split(", or ")[0])
    cfg = load_config(config, options)
    if is_video(cfg):
        check_clips(cfg)
    advise_a_trial(cfg)
    assert len(caplog.records) == 1


# Launching

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
SLURM = {
    "SLURM_JOB_ID": "40123",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
}


def test_ranks_come_from_the_environment() -> None:
    place = {"rank": 5, "world_size": 8, "local_rank": 1, "local_size": 4}
    assert ranks_from_environment(TORCHRUN) == Ranks(**place, address="env://")
    assert ranks_from_environment(SLURM) == Ranks(
        **place, address="tcp://gpu03:20123", by_srun=True
    )
    address = {"MASTER_ADDR": "h", "MASTER_PORT": "7"}
    assert ranks_from_environment(SLURM | address) == Ranks(
        **place, address="tcp://h:7", by_srun=True
    )
    assert ranks_from_environment({}) is None
    # A shell that SLURM has started, with the script started by hand:
    assert ranks_from_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("n[7,9-12]", "n7"), ("n[007-9]-ib,x", "n007-ib"), ("a-1", "a-1")],
)
def test_the_first_host_of_a_slurm_list(nodes: str, first: str) -> None:
    ranks = ranks_from_environment(SLURM | {"SLURM_STEP_NODELIST": nodes})
    assert ranks is not None
    assert ranks.address == f"tcp://{first}:20123"


def test_an_uneven_or_incomplete_environment_is_an_error() -> None:
    with pytest.raises(UserError, match="SLURM_STEP_TASKS_PER_NODE"):
        ranks_from_environment(SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4,3(x2)"})
    with pytest.raises(UserError, match="WORLD_SIZE"):
        ranks_from_environment({"RANK": "0", "LOCAL_RANK": "0"})


def test_srun_task_with_single_visible_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # srun --gpus-per-task=1
    assert _gpu_number(ranks_from_environment(SLURM)) == 0
    with pytest.raises(UserError, match="GPU"):
        _gpu_number(ranks_from_environment(TORCHRUN))


# The step


class Loss(nn.Module):
    """Two losses, each a mean over the batch; one is not a scalar, which Detectron2 allows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.layers(batch)
        square = out[:, 0].float().square().mean()
        return {"square": square.reshape(1), "other": out[:, 1].float().mean()}


def step_trainer(model: nn.Module, batches: Iterable[torch.Tensor], **options: Any) -> StepTrainer:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return StepTrainer(model=model, data_loader=batches, optimizer=optimizer, **options)


def train(batches: Sequence[torch.Tensor], steps: int, **options: Any):
    trainer = step_trainer(model := Loss(), batches, accumulate_steps=steps, **options)
    with EventStorage() as storage:
        for trainer.iter in range(len(batches) // steps):
            storage.iter = trainer.iter
            trainer.run_step()
        losses = [value for value, _ in storage.history("total_loss").values()]
    return model, losses


DATA = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))


def test_accumulation_is_a_larger_batch() -> None:
    large, large_losses = train(DATA.split(8), 1)
    small, small_losses = train(DATA.split(2), 4)
    assert len(large_losses) == len(small_losses) == 6
    assert small_losses == pytest.approx(large_losses, abs=1e-6)
    for a, b in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_mixed_precision_trains_nearly_the_same() -> None:
    _, exact = train(DATA.split(8), 1)
    _, mixed = train(DATA.split(2), 4, amp=True)
    assert mixed == pytest.approx(exact, abs=0.02)
    assert mixed != exact


def test_non_finite_loss_stops_before_update() -> None:
    trainer = step_trainer(model := Loss(), [torch.full((2, 6), math.nan)])
    with EventStorage(), pytest.raises(FloatingPointError, match="square"):
        trainer.run_step()
    assert all(map(torch.equal, Loss().parameters(), model.parameters()))


def test_overflowing_scaled_gradients_are_skipped() -> None:
    trainer = step_trainer(model := Loss(), [torch.ones(2, 6)], amp=True)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    with EventStorage():
        trainer.run_step()
    assert all(map(torch.equal, Loss().parameters(), model.parameters()))
    assert trainer.grad_scaler.get_scale() < 3e38


@pytest.mark.parametrize(
    ("period", "max_iter", "expected"),
    [(20, 45, [4, 19, 39, 44]), (20, 5, [4]), (5, 7, [4, 6]), (2, 6, [1, 3, 5])],
)
def test_progress_is_written_early_then_every_period(
    period: int, max_iter: int, expected: list[int]
) -> None:
    trainer, written = Namespace(max_iter=max_iter), []
    hook = ProgressWriter(
        [mock.Mock(EventWriter, write=lambda: written.append(trainer.iter))], period
    )
    hook.trainer = trainer
    for trainer.iter in range(max_iter):
        hook.after_step()
    assert written == expected
