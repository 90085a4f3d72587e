"""Curves in Weights & Biases, without network."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
import wandb
from detectron2.utils.events import EventStorage, TensorboardXWriter

from nl_detectron.engine.hooks import WandbRun
from nl_detectron.utils.errors import UserError

pytest_plugins = ["recording"]  # for its fixture


def test_scalars_reach_the_offline_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    writer = TensorboardXWriter(str(tmp_path))
    hook = WandbRun("tests", str(tmp_path), [writer])
    hook.trainer = SimpleNamespace(start_iter=0)
    hook.before_train()
    with EventStorage(0) as storage:
        storage.put_scalar("bbox/AP", 30.0)
        writer.write()
    writer.close()
    hook.after_train()
    wandb.teardown()  # as at the end of a process: its service writes what it still holds
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"bbox/AP" in file.read_bytes()


def test_missing_wandb_package_is_reported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"nl_detectron\[wandb\]"):
        WandbRun("tests", str(tmp_path), [])


def test_fresh_run_gets_new_id_and_resume_keeps_it(
    tmp_path: Path, recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[str, list[int]]] = []  # ids, and the steps of the losses
    numbers = itertools.count()

    def start(**options: Any) -> SimpleNamespace:
        assert options["sync_tensorboard"]
        runs.append((options["id"] or f"run{next(numbers)}", []))
        return SimpleNamespace(id=runs[-1][0], finish=lambda: None)

    def add_scalar(self: Any, name: str, value: float, step: int) -> None:
        if name == "total_loss":
            runs[-1][1].append(step)

    monkeypatch.setattr(wandb, "init", start)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", add_scalar)
    tiny_run.write_run(tmp_path)
    options = (
        *tiny_run.RANDOM,
        "WANDB.PROJECT",
        "trials",
        "SOLVER.CHECKPOINT_PERIOD",
        1,
        "SOLVER.MAX_ITER",
    )
    recorded(tmp_path, "run", *options, 1)
    recorded(tmp_path, "run", *options, 3)
    # As after a kill: the checkpoint is older than what is written.
    (tmp_path / "run" / "last_checkpoint").write_text("model_0000000.pth")
    recorded(tmp_path, "run", *options, 5, flags=("--resume",))
    assert [name for name, _ in runs] == ["run0", "run1", "run1"]
    assert runs[1][1][-1] == 2
    assert runs[2][1] == [4]
