"""Curves in Weights & Biases, without network."""

import sys

import pytest
import wandb
from detectron2.utils.events import EventStorage

from nl_detectron.engine import trainer
from nl_detectron.engine.wandb_writer import WandbWriter
from nl_detectron.errors import UserError


def test_scalars_reach_the_offline_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    writer = WandbWriter(project="tests", output_dir=str(tmp_path), config={"SEED": 1})
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


@pytest.mark.parametrize("project", ["", "trials"])
def test_a_run_writes_there_only_when_asked(fpn_cfg, tmp_path, monkeypatch, project):
    made = []
    monkeypatch.setattr(trainer, "WandbWriter", lambda **options: made.append(options))
    fpn_cfg.OUTPUT_DIR, fpn_cfg.WANDB.PROJECT = str(tmp_path), project
    run = trainer.Trainer.__new__(trainer.Trainer)
    run.cfg, run.max_iter = fpn_cfg, 1
    writers = run.build_writers()
    expected = [{"project": project, "output_dir": str(tmp_path)}] if project else []
    assert made == expected
    assert len(writers) == 3 + len(expected)
