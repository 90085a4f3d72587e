"""Curves in Weights & Biases, without network."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import wandb
from detectron2.utils.events import EventStorage

from nl_detectron.config import RunSettings
from nl_detectron.engine import Trainer
from nl_detectron.engine.wandb_writer import WandbWriter
from nl_detectron.errors import UserError

pytest_plugins = ["recording"]  # for its fixture


def test_scalars_reach_the_offline_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    writer = WandbWriter(project="tests", output_dir=str(tmp_path), config={"SEED": 1})
    writer.start(resume=False)
    sent = []
    log = writer._run.log
    monkeypatch.setattr(writer._run, "log", lambda *a, **k: (sent.append((a, k)), log(*a, **k)))
    with EventStorage(0) as storage:
        for iteration in range(3):
            storage.iter = iteration
            storage.put_scalar("loss", float(iteration), smoothing_hint=False)
            if iteration == 1:
                storage.put_scalar("bbox/AP", 30.0, smoothing_hint=False)
        writer.write()
        writer.write()
    writer.close()
    wandb.teardown()  # as at the end of a process: its service writes what it still holds
    assert sent == [(({"bbox/AP": 30.0},), {"step": 1}), (({"loss": 2.0},), {"step": 2})]
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert b"bbox/AP" in file.read_bytes()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'nl_detectron\[wandb\]'"):
        WandbWriter(project="tests", output_dir=str(tmp_path))


NUMBERS = itertools.count()


class FakeRun:
    """Stands for a run of Weights & Biases."""

    def __init__(self, **options: Any) -> None:
        self.id = options["id"] or f"run{next(NUMBERS)}"
        self.steps: list[int] = []

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.steps.append(step)

    def finish(self) -> None:
        pass


def test_a_run_from_iteration_0_is_a_new_one_and_a_resumed_one_the_same(
    tmp_path: Path, recorded: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[FakeRun] = []
    monkeypatch.setattr(wandb, "init", lambda **o: runs.append(FakeRun(**o)) or runs[-1])
    tiny_run.write_run(tmp_path)
    project = ("WANDB.PROJECT", "trials")
    recorded(tmp_path, "run", *project, "SOLVER.MAX_ITER", 2)
    recorded(tmp_path, "run", *project, "SOLVER.MAX_ITER", 1)
    recorded(tmp_path, "run", *project, "SOLVER.MAX_ITER", 2, flags=("--resume",))
    first, second, third = runs
    assert first.id != second.id
    assert second.id == third.id
    # The last iteration's losses, then the evaluation that follows it.
    assert [run.steps for run in runs] == [[1, 2], [0, 1], [1, 2]]
    # Without any checkpoint, --resume starts from iteration 0.
    (tmp_path / "run" / "last_checkpoint").unlink()
    recorded(tmp_path, "run", *project, "SOLVER.MAX_ITER", 1, flags=("--resume",))
    assert runs[-1].id not in {first.id, second.id}


@pytest.mark.parametrize("project", ["", "trials"])
def test_a_run_writes_there_only_when_asked(fpn_cfg, tmp_path, project):
    fpn_cfg.OUTPUT_DIR, fpn_cfg.WANDB.PROJECT = str(tmp_path), project
    run = Trainer.__new__(Trainer)
    run.settings, run.max_iter = RunSettings.of(fpn_cfg), 1
    kinds = [type(writer) for writer in run.build_writers()]
    assert (WandbWriter in kinds) == bool(project)
    assert len(kinds) == 3 + bool(project)
