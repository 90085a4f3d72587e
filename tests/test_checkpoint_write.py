"""A checkpoint is complete or absent, and a run continues from the complete ones."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn
from unittest import mock

import pytest
import torch
from torch import nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.checkpoint.writing import atomic_write
from nl_detectron.utils.errors import UserError


def save(folder: Path, iteration: int, **more: Any) -> None:
    """Save a training that only counts, and writes the count into weights, state and name."""
    model, trainer = nn.Linear(2, 2), nn.Linear(1, 1)  # something with a state, as a trainer
    for part in (model, trainer):
        nn.init.constant_(part.weight, iteration)
    checkpointer = Checkpointer(model, str(folder), trainer=trainer)
    checkpointer.save(f"model_{iteration:07}", iteration=iteration, **more)


def resumed(folder: Path) -> int | None:
    """Return the iteration that a new process resumes from; all its state is from one file."""
    model, trainer = nn.Linear(2, 2), nn.Linear(1, 1)
    loaded = Checkpointer(model, str(folder), trainer=trainer).resume_or_load("", resume=True)
    iteration = loaded.get("iteration")
    if iteration is not None:
        assert all(part.weight.eq(iteration).all() for part in (model, trainer))
    return iteration


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("part", ["weight", "running_mean"])
def test_non_finite_state_is_not_saved(tmp_path, part) -> None:
    """Buffers too: an infinite input spoils a norm's statistics before any parameter."""
    model = nn.BatchNorm2d(2)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001")
    with torch.no_grad():
        getattr(model, part)[1] = float("inf")
    with pytest.raises(UserError, match=rf"model_0000003\.pth.*{part}"):
        checkpointer.save("model_0000003")
    assert names(tmp_path) == ["last_checkpoint", "model_0000001.pth"]


def test_content_and_rename_are_synced(tmp_path, monkeypatch) -> None:
    """In this order: until the folder is synced, loss of power may undo the rename."""
    calls = mock.Mock()
    monkeypatch.setattr(os, "fsync", calls.fsync)
    monkeypatch.setattr(os, "replace", calls.replace)
    with atomic_write(tmp_path / "a", "wb") as file:
        file.write(b"abc")
    assert [call[0] for call in calls.mock_calls] == ["fsync", "replace", "fsync"]


# A kill.


def kill(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("survived")


def write_half(data: object, file: IO[bytes]) -> None:
    file.write(bytes(5000))
    file.flush()
    kill()


def killed(action: Callable[[], None]) -> None:
    """Do `action` in a copy of this process, which it must kill."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def half_way() -> None:
    torch.save = write_half


def before_the_rename() -> None:
    os.replace = kill


def before_last_checkpoint() -> None:
    Checkpointer.tag_last_checkpoint = kill


@pytest.mark.parametrize(
    "point",
    [half_way, before_the_rename, before_last_checkpoint],
)
def test_a_killed_write_loses_nothing(tmp_path, point) -> None:
    def action() -> None:
        point()
        save(tmp_path, 3)

    killed(action)
    assert resumed(tmp_path) is None
    save(tmp_path, 1)
    killed(action)
    assert resumed(tmp_path) == 1
    save(tmp_path, 3)
    assert names(tmp_path) == ["last_checkpoint", "model_0000001.pth", "model_0000003.pth"]
    assert resumed(tmp_path) == 3


# A disk that is full.

SPACE = 1 << 20


@contextmanager
def small_disk() -> Iterator[None]:
    """Limit the size of files that this process writes, which fails as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPACE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# The last bytes come from buffers, at other places than the first.
@pytest.mark.parametrize("size", [*range(SPACE - 40_000, SPACE + 4_000, 4000), 4 * SPACE])
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, size) -> None:
    save(tmp_path, 1)
    told = ""
    with small_disk():
        try:
            save(tmp_path, 3, more=torch.zeros(size, dtype=torch.uint8))
        except UserError as error:
            told = str(error)
    assert bool(told) == (size > SPACE - 4000)
    assert all(f"model_000000{n}.pth" in told for n in (1, 3)) or not told
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    assert resumed(tmp_path) == (1 if told else 3)
