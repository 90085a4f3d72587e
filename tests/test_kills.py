"""Runs that are really killed, and a disk that is really full: every restart continues."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny_run
import torch
from recording import record, same

from nl_detectron.utils.errors import UserError

pytest_plugins = ["recording"]  # for its fixture


# Checkpoints are written slowly, so that many kills fall into one.
SLOW_SAVES = """
import io, time, torch
def save(data, file, real=torch.save):
    buffer = io.BytesIO()
    real(data, buffer)
    content = buffer.getvalue()
    for start in range(0, len(content), len(content) // 10 + 1):
        file.write(content[start : start + len(content) // 10 + 1])
        file.flush()
        time.sleep(0.02)
torch.save = save
"""


def start(folder: Path, *flags: object) -> subprocess.Popen:
    """Start ``kill.py``, or start it again: its first start finds nothing to resume."""
    command = (folder / "kill.py", "--config-file", folder / "tiny.yaml", "--resume", *flags)
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=tiny_run.ROOT,
        env=tiny_run.whole_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_survives_kills(tmp_path: Path, recorded: Callable[..., Path]) -> None:
    """Every life continues from a complete checkpoint, at most a period before its end."""
    tiny_run.write_run(tmp_path)
    tiny_run.write_script(tmp_path, "kill.py", tiny_run.RECORD + SLOW_SAVES)
    period, output, chance = 2, tmp_path / "output", random.Random(3)
    flags = ("SOLVER.MAX_ITER", 24, "SOLVER.CHECKPOINT_PERIOD", period, *tiny_run.RANDOM)
    lives = [0]  # how many iterations had been written down at the end of each
    for _ in range(3):
        process = start(tmp_path, *flags)
        wanted = lives[-1] + chance.randint(1, 3)
        while len(record(output)) < wanted:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
        lives.append(len(record(output)))
    process = start(tmp_path, *flags)
    _, said = process.communicate()
    assert process.returncode == 0, said
    iterations = [line["iteration"] for line in record(output)]
    assert all(0 <= iterations[end - 1] + 1 - iterations[end] <= period for end in lives[1:])
    whole = recorded(tmp_path, "whole", *flags)
    assert list({line["iteration"]: line for line in record(output)}.values()) == record(whole)
    a, b = (torch.load(path / "model_final.pth") for path in (whole, output))
    assert same(a["model"], b["model"])
    assert same(a["trainer"]["_trainer"], b["trainer"]["_trainer"])
    assert not list(output.glob(".*"))


# Full disks


@contextlib.contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[bool]:
    """Make `folder` a disk of `size` bytes and yield True; where that is forbidden, a folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # its log is open


def test_a_run_survives_a_full_disk(tmp_path: Path, recorded: Callable[..., Path]) -> None:
    tiny_run.write_run(tmp_path)
    flags = ("SOLVER.MAX_ITER", 8, "SOLVER.CHECKPOINT_PERIOD", 2, *tiny_run.RANDOM)
    whole = recorded(tmp_path, "whole", *flags)
    size = (whole / "model_final.pth").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def shrink(trainer: object) -> None:  # what a user without a tmpfs can have
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))

    with tmpfs(tmp_path / "disk", int(2.5 * size)) as mounted:
        try:
            with pytest.raises(UserError, match="cannot write the checkpoint"):
                recorded(tmp_path, "disk/output", *flags, at={} if mounted else {4: shrink})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        output = tmp_path / "disk" / "output"
        kept = sorted(path.name for path in output.glob("model_*.pth") if torch.load(path))
        assert kept == ["model_0000001.pth", "model_0000003.pth"]
        assert not list(output.glob(".*"))
        if mounted:
            larger = ["mount", "-o", f"remount,size={20 * size}", str(tmp_path / "disk")]
            subprocess.run(larger, check=True)
        recorded(tmp_path, "disk/output", *flags, flags=("--resume",))
        a, b = (torch.load(folder / "model_final.pth") for folder in (whole, output))
        assert same(a, b)
