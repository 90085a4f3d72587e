"""Errors of machine, disk and numbers while a model trains: one helpful line, nothing lost."""

import errno
import logging
import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from recording import record, same

from nl_detectron.engine.run_errors import as_user_error, translate_errors
from nl_detectron.utils.errors import UserError

pytest_plugins = ["recording"]  # for its fixture

SHORT = (*tiny_run.RANDOM, "SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 2)


@pytest.fixture(autouse=True)
def default_sigterm() -> Iterator[None]:
    """Reset the handler, which the death of a worker can leave behind by an error anywhere."""
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    tiny_run.write_run(tmp_path)
    return tmp_path


def last_checkpoint(output: Path) -> dict[str, Any]:
    """Load the checkpoint that ``last_checkpoint`` names."""
    return torch.load(output / (output / "last_checkpoint").read_text())


def finished(output: Path) -> bool:
    return torch.load(output / "model_final.pth")["iteration"] == 5


# Numbers


def poison(trainer: Any) -> None:
    weights = next(trainer.model.roi_heads.box_predictor.cls_score.parameters())
    torch.nn.init.constant_(weights, math.nan)


def test_divergence_in_last_iteration_keeps_checkpoint(
    run_dir: Path, recorded: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match="iteration 5"):
        recorded(run_dir, "output", *SHORT, at={4: poison})
    output = run_dir / "output"
    assert last_checkpoint(output)["iteration"] == 3
    assert "Traceback" not in (output / "log.txt").read_text()
    assert not (output / "inference").exists()
    recorded(run_dir, "output", *SHORT, flags=("--resume",))
    assert finished(output)


# Loader workers


def test_a_loader_worker_that_is_killed(run_dir: Path, recorded: Callable[..., Path]) -> None:
    def kill(trainer: Any) -> None:
        os.kill(trainer._trainer._data_loader_iter._workers[0].pid, signal.SIGKILL)

    opts = ("DATALOADER.NUM_WORKERS", 1, "DATALOADER.ASPECT_RATIO_GROUPING", False)
    with pytest.raises(UserError, match=r"DATALOADER\.NUM_WORKERS"):
        recorded(run_dir, "output", *SHORT, *opts, at={2: kill})


# The disk


def test_impossible_output_folder_is_refused(run_dir: Path, recorded) -> None:
    with pytest.raises(UserError, match="OUTPUT_DIR"):
        recorded(run_dir, "tiny.json/output", *SHORT)


def test_half_a_line_of_metrics_is_cut_off(run_dir: Path, recorded: Callable[..., Path]) -> None:
    output = recorded(run_dir, "output", *SHORT)
    metrics = output / "metrics.json"
    metrics.write_text(metrics.read_text() + '{"iteration": 6, "total_lo')
    recorded(run_dir, "output", "SOLVER.MAX_ITER", 7, flags=("--resume",))
    assert [line["iteration"] for line in tiny_run.metrics(output)][-2:] == [6, 7]


# Errors that cannot be had here, as torch words them


@pytest.mark.parametrize(
    ("what", "error"),
    [
        (
            "GPU memory full",
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried ..."),
        ),
        (
            "a process of the run on another machine gone",
            RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [::1]:4"),
        ),
        ("a loader worker gone", RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")),
        ("a loader worker gone in the middle of a batch", ConnectionResetError()),
        (
            "no shared memory",
            RuntimeError("DataLoader worker killed by signal: Bus error"),
        ),
    ],
)
def test_errors_of_torch_become_one_line(what: str, error: Exception) -> None:
    with pytest.raises(UserError) as caught, translate_errors("output"):
        raise error
    assert caught.value.__cause__ is error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
def test_a_file_that_cannot_be_opened_or_written(number: int, tmp_path: Path) -> None:
    path = str(tmp_path / "data/train.json")
    assert path in str(as_user_error(OSError(number, "", path), str(tmp_path)))


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    for error in (RuntimeError("shapes differ"), KeyError("x"), FileNotFoundError(2, "no", "x")):
        with pytest.raises(type(error)) as caught, translate_errors(str(tmp_path)):
            raise error
        assert caught.value is error
    assert not logging.getLogger("detectron2.engine.train_loop").filters


# SIGTERM


def terminate(trainer: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_checkpoint_for_resume(
    run_dir: Path,
    recorded: Callable[..., Path],
    capfd: pytest.CaptureFixture,
) -> None:
    whole = recorded(run_dir, "whole", *SHORT)
    output = run_dir / "output"
    with pytest.raises(SystemExit) as left:
        recorded(run_dir, "output", *SHORT, at={2: terminate})
    assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "SIGTERM" in line]
    assert f"{output}/model_0000002.pth" in said
    recorded(run_dir, "output", *SHORT, flags=("--resume",))
    assert record(output) == record(whole)
    a, b = (torch.load(folder / "model_final.pth") for folder in (whole, output))
    assert same(a, b)


def test_existing_sigterm_handler_is_kept(run_dir: Path, recorded) -> None:
    seen = []
    previous = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        output = recorded(run_dir, "output", *SHORT, at={2: terminate})
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert seen == [1]
    assert finished(output)


# In a process of its own, as these end it. `at` is called in every process of the run.
ACT = """
import os, pathlib, signal, subprocess, time
from detectron2.utils import comm
from nl_detectron.engine import launch
sys.modules[launch.__module__]._GRACE_SECONDS = 1.0
def term(pid=None):
    os.kill(pid or os.getpid(), signal.SIGTERM)
def twice(trainer):  # a worker takes its parent's SIGTERM for the end of the run
    for _ in range(2):
        command = ["kill", "-TERM", "--", f"-{os.getpgrp()}"]
        subprocess.run(command, check=True, start_new_session=True)
        time.sleep(0.5)
def one(rank, act):
    return lambda trainer: act() if comm.get_rank() == rank else None
def stuck(*_):  # as in an all-reduce of NCCL for a process that is gone: no signal is handled
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    time.sleep(100)
    pathlib.Path("outlived").touch()
def cut_off_images():
    for path in pathlib.Path("images").iterdir():
        path.write_bytes(b"")
def get_stuck(trainer):
    trainer.before_step = stuck
"""
TWO = ("--num-gpus", 2, "--dist-url", "auto")
SAVED = "output/model_0000002.pth"


@pytest.mark.parametrize(
    ("what", "act", "flags", "status", "said", "saved"),
    [
        (
            "a second SIGTERM to all",
            "os.setpgrp()\nRecordingTrainer.at = {2: twice}",
            ("DATALOADER.NUM_WORKERS", 2),
            143,
            SAVED,
            2,
        ),
        (
            "SIGTERM in an evaluation",
            "from detectron2.evaluation import COCOEvaluator\n"
            "COCOEvaluator.process = lambda *_: (term(), time.sleep(60))",
            ("TEST.EVAL_PERIOD", 2),
            143,
            "SIGTERM in an evaluation",
            1,
        ),
        (
            "SIGTERM to one of 2 processes",
            "RecordingTrainer.at = {2: one(1, term)}",
            (*TWO, "DATALOADER.NUM_WORKERS", 1),
            143,
            SAVED,
            2,
        ),
        (
            "SIGTERM to the process that started 2 others",
            "RecordingTrainer.at = {2: one(0, lambda: (term(os.getppid()), time.sleep(1)))}",
            TWO,
            143,
            SAVED,
            2,
        ),
        (
            "one of 2 processes ended by SIGKILL",
            "RecordingTrainer.at = {2: one(1, lambda: os.kill(os.getpid(), signal.SIGKILL))}",
            TWO,
            1,
            "error: training process 1 was killed by SIGKILL",
            1,
        ),
        (
            "a bad image in one of 2 processes, while the other waits for it",
            "RecordingTrainer.at = {2: lambda trainer: "
            "cut_off_images() if comm.get_rank() else get_stuck(trainer)}",
            TWO,
            1,
            "error: image 'images/",
            1,
        ),
    ],
)
def test_terminated_run_exits_and_keeps_checkpoint(
    what: str,
    act: str,
    flags: tuple,
    status: int,
    said: str,
    saved: int,
    run_dir: Path,
) -> None:
    start = f"{tiny_run.RECORD}{ACT}{act}\nos.chdir({str(run_dir)!r})\n"
    script = tiny_run.write_script(run_dir, "act.py", start)
    done = tiny_run.run(script, "--config-file", run_dir / "tiny.yaml", *flags, *SHORT)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr
    lines = done.stderr.replace(f"{run_dir}/", "").splitlines()
    assert len([line for line in lines if said in line]) == 1, done.stderr
    assert len([line for line in lines if line.startswith("error: ")]) == (status == 1)
    assert "Traceback" not in done.stderr
    assert last_checkpoint(run_dir / "output")["iteration"] == saved
    assert not list((run_dir / "output").glob(".*"))
    assert not (run_dir / "outlived").exists()
