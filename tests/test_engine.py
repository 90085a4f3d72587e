"""Set-up of a run, evaluators, launching, and the step: accumulation and mixed precision."""

import math
import os
import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import tiny_run
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.solver.build import maybe_add_gradient_clipping
from detectron2.utils.events import EventStorage, EventWriter
from torch import nn

from nl_detectron.config import load_config, load_lazy_config
from nl_detectron.data import check_datasets
from nl_detectron.engine import (
    Ranks,
    StepTrainer,
    Trainer,
    argument_parser,
    defaults,
    launch,
    ranks_from_environment,
)
from nl_detectron.engine.hooks import ProgressWriter
from nl_detectron.utils.errors import ConfigError, UserError

QUICKSTART = tiny_run.ROOT / "configs" / "quickstart.yaml"


# Config


def test_the_parser_takes_detectron2s_flags() -> None:
    line = "--config-file f --resume --eval-only --num-gpus 2 --num-machines 3 --machine-rank 1"
    args = argument_parser().parse_args([*line.split(), "--dist-url", "tcp://h:1", "A.B", "1"])
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (2, 3, 1)
    assert args.resume
    assert args.eval_only
    assert (args.dist_url, args.opts) == ("tcp://h:1", ["A.B", "1"])


def test_the_device_is_chosen_only_when_nobody_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_config(QUICKSTART).MODEL.DEVICE == "cpu"
    with pytest.raises(ConfigError, match=r"MODEL.DEVICE is 'cuda:0'.*no GPU.*MODEL.DEVICE cpu"):
        load_config(QUICKSTART, ["MODEL.DEVICE", "cuda:0"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_config(QUICKSTART).MODEL.DEVICE == "cuda"
    assert load_config(QUICKSTART, ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu"
    with pytest.raises(ConfigError, match=r"MODEL.DEVICE is 'gpu'"):
        load_config(QUICKSTART, ["MODEL.DEVICE", "gpu"])


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.BASE_LRR", "1"], r"'SOLVER.BASE_LRR'. Did you mean 'SOLVER.BASE_LR'\?"),
        (["MODEL.RESNET.DEPTH", "50"], "'MODEL.RESNETS.DEPTH'"),
        (["SOLVER.BASE_LR"], "SOLVER.BASE_LR"),
        (["SOLVER.STEPS", "soon"], "SOLVER.STEPS"),
        (["SOLVER.ACCUMULATE_STEPS", "0"], "SOLVER.ACCUMULATE_STEPS"),
    ],
)
def test_wrong_overrides_are_named(opts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(QUICKSTART, opts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {MASK_ONN: True}", "MODEL.MASK_ONN'.*'MODEL.MASK_ON'"),
        ("MODEL: [", ""),
        ("_BASE_: nowhere.yaml", "nowhere.yaml"),
        ("_BASE_: own.yaml", "_BASE_"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"own.yaml: .*{message}"):
        load_config(tmp_path / "own.yaml")


def test_a_missing_config_file_suggests_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text("VERSION: 2")
    with pytest.raises(UserError, match=r"lagre.yaml.*'.*large.yaml'"):
        load_config(tmp_path / "lagre.yaml")
    with pytest.raises(UserError, match=r"'quickstart.yaml'"):
        load_config("quickstat.yaml")
    with pytest.raises(UserError, match="--config-file"):
        load_config("")


LAZY = """
from detectron2.config import LazyCall as L
from torch import nn
model = L(nn.Linear)(in_features=2)
optimizer = dict()
dataloader = dict()
train = dict(device="cuda", max_iter=3)
"""


def test_lazy_overrides_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "lazy.py"
    file.write_text(LAZY)
    cfg = load_lazy_config(file, ["train.max_iter=5", "model.out_features=3"])
    assert (cfg.train.max_iter, cfg.model.out_features, cfg.train.device) == (5, 3, "cpu")
    with pytest.raises(ConfigError, match=r"'train.max_itr'.*'train.max_iter'"):
        load_lazy_config(file, ["train.max_itr=5"])
    with pytest.raises(ConfigError, match=r"train.max_iter"):
        load_lazy_config(file, ["train.max_iter", "5"])
    with pytest.raises(ConfigError, match=r"train.device"):
        load_lazy_config(file, ["train.device=cuda"])
    file.write_text("model = dict()")
    with pytest.raises(ConfigError, match="'optimizer'"):
        load_lazy_config(file)


def test_a_config_is_loaded_once_in_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, run = [], []

    def load(args: Namespace) -> CfgNode:
        loaded.append(load_config(QUICKSTART, ["OUTPUT_DIR", str(tmp_path)]))
        return loaded[-1]

    monkeypatch.setattr(defaults, "prepare", load)
    monkeypatch.setattr(defaults, "run_config", lambda cfg, *others: run.append(cfg))
    defaults.main(argument_parser().parse_args([]))
    assert len(loaded) == 1
    assert run[0] is loaded[0]
    # A process that is started reads it again: what a LazyConfig defines cannot be pickled.
    assert pickle.loads(pickle.dumps(defaults._Run(Namespace(), Trainer, loaded[0]))).cfg is None


# Data sets


def test_a_data_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    with pytest.raises(UserError, match=r"'coco_2017_tran' is not registered. Did you mean"):
        check_datasets(["coco_2017_tran"])
    name = f"absent_{tmp_path.name}"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(json_file=str(tmp_path / "no.json"), image_root=str(tmp_path))
    with pytest.raises(UserError, match=r"no .*no.json.*DETECTRON2_DATASETS.*nl_shapes_train"):
        check_datasets([name])
    (tmp_path / "no.json").write_text("{}")
    check_datasets([name])


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
    with pytest.raises(UserError, match="not the same for every machine"):
        ranks_from_environment(SLURM | {"SLURM_STEP_TASKS_PER_NODE": "4,3(x2)"})
    with pytest.raises(UserError, match="WORLD_SIZE"):
        ranks_from_environment({"RANK": "0", "LOCAL_RANK": "0"})


@pytest.mark.parametrize(("environment", "gpu"), [(SLURM, 0), (TORCHRUN, None)])
def test_a_task_that_sees_its_own_gpu_alone(
    environment: dict[str, str], gpu: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Started(Exception):  # noqa: N818
        pass

    def start(**options: object) -> None:
        raise Started

    chosen: list[int] = []
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # srun --gpus-per-task=1
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", start)
    error, message = (UserError, "torch sees 1 GPU") if gpu is None else (Started, None)
    with pytest.raises(error, match=message):
        launch(print, num_processes=1, device="cuda")
    assert chosen == ([] if gpu is None else [gpu])


# The step


class Loss(nn.Module):
    """Two losses, each a mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.layers(batch)
        return {"square": out[:, 0].float().square().mean(), "other": out[:, 1].float().mean()}


class Plain(nn.Module):
    """Losses that are as large as their input, and its square."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)
        nn.init.constant_(self.layer.weight, -0.0503)
        nn.init.zeros_(self.layer.bias)

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.layer(batch)
        return {"square": out[:, 0].square().mean(), "other": out[:, 1].mean()}


def train(batches: list[torch.Tensor], steps: int, *, amp: bool = False, clip: bool = False):
    model = Loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if clip:
        cfg = get_cfg()
        cfg.SOLVER.CLIP_GRADIENTS.update(ENABLED=True, CLIP_TYPE="norm", CLIP_VALUE=0.01)
        optimizer = maybe_add_gradient_clipping(cfg, optimizer)
    trainer = StepTrainer(
        model=model, data_loader=batches, optimizer=optimizer, accumulate_steps=steps, amp=amp
    )
    with EventStorage() as storage:
        for trainer.iter in range(len(batches) // steps):
            storage.iter = trainer.iter
            trainer.run_step()
        losses = [value for value, _ in storage.history("total_loss").values()]
    return model, losses


@pytest.mark.parametrize("steps", [1, 2])
def test_losses_of_one_value_are_summed_whatever_their_shape(steps: int) -> None:
    """As Detectron2 does."""

    class Shapes(Loss):
        def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
            losses = super().forward(batch)
            return {**losses, "square": losses["square"].reshape(1)}

    found = []
    for model in (Loss(), Shapes()):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batches = list(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)).split(4))
        trainer = StepTrainer(
            model=model, data_loader=batches, optimizer=optimizer, accumulate_steps=steps
        )
        with EventStorage():
            trainer.run_step()
        found.append(model)
    for a, b in zip(*(model.parameters() for model in found), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("clip", [False, True])
def test_accumulation_is_a_larger_batch(clip: bool) -> None:
    data = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
    large, large_losses = train(list(data.split(8)), 1, clip=clip)
    small, small_losses = train(list(data.split(2)), 4, clip=clip)
    assert len(large_losses) == len(small_losses) == 6
    assert small_losses == pytest.approx(large_losses, abs=1e-6)
    for a, b in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_mixed_precision_trains_nearly_the_same() -> None:
    data = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
    _, exact = train(list(data.split(8)), 1)
    _, mixed = train(list(data.split(2)), 4, amp=True)
    assert mixed == pytest.approx(exact, abs=0.02)
    assert mixed != exact


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "square and other are not finite at iteration 0 (square nan, other nan); "),
        (1e30, "square is not finite at iteration 0 (square inf, other -3.018e+29); "),
    ],
)
def test_losses_that_are_not_finite_stop_before_the_weights_change(value: float, said: str) -> None:
    batches = [torch.full((2, 6), value)]
    fresh, model = Plain(), Plain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = StepTrainer(model=model, data_loader=batches, optimizer=optimizer)
    with EventStorage(), pytest.raises(UserError) as caught:
        trainer.run_step()
    assert isinstance(caught.value, FloatingPointError)  # as Detectron2 raises
    assert said in str(caught.value)
    assert "CLIP_GRADIENTS" in str(caught.value)
    for a, b in zip(fresh.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradients_that_overflow_by_loss_scaling_are_skipped() -> None:
    fresh, model = Loss(), Loss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = StepTrainer(
        model=model, data_loader=[torch.ones(2, 6)] * 3, optimizer=optimizer, amp=True
    )
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    with EventStorage():
        trainer.run_step()
        assert all(map(torch.equal, fresh.parameters(), model.parameters()))
        trainer.run_step()
    assert trainer.grad_scaler.get_scale() < 3e38


def test_at_least_one_batch_makes_a_step() -> None:
    with pytest.raises(ValueError, match="accumulate_steps is 0"):
        StepTrainer(
            model=Loss(),
            data_loader=[],
            optimizer=torch.optim.SGD(Loss().parameters(), lr=1),
            accumulate_steps=0,
        )


class Writer(EventWriter):
    """Notes that it was asked to write."""

    def __init__(self) -> None:
        self.calls = 0

    def write(self) -> None:
        self.calls += 1


@pytest.mark.parametrize(
    ("period", "max_iter", "expected"),
    [(20, 45, [4, 19, 39, 44]), (20, 5, [4]), (5, 7, [4, 6]), (2, 6, [1, 3, 5])],
)
def test_progress_is_written_early_then_every_period(
    period: int, max_iter: int, expected: list[int]
) -> None:
    writer = Writer()
    hook = ProgressWriter([writer], period)
    written = []
    for iteration in range(max_iter):
        hook.trainer = Namespace(iter=iteration, max_iter=max_iter)
        hook.after_step()
        written += [iteration] * writer.calls
        writer.calls = 0
    assert written == expected
