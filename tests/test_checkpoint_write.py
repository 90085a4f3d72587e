"""A checkpoint is complete or absent, and a run continues from what is there."""

import logging
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.checkpoint.writing import AtomicPathManager, atomic_write
from nl_detectron.engine.run_errors import DivergedError, check_weights
from nl_detectron.utils.errors import UserError


class Counter:
    """Something with a state, as a trainer has one."""

    def __init__(self) -> None:
        self.iteration = 0

    def state_dict(self) -> dict[str, int]:
        return {"iteration": self.iteration}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.iteration = state["iteration"]


class Run:
    """A training that only counts, and writes the count into weights, state and file names."""

    def __init__(self, folder: Path) -> None:
        self.model = nn.Linear(2, 2)
        self.counter = Counter()
        self.checkpointer = Checkpointer(self.model, str(folder), counter=self.counter)

    def save(self, iteration: int, name: str = "", **more: Any) -> None:
        nn.init.constant_(self.model.weight, iteration)
        self.counter.iteration = iteration
        name = name or f"model_{iteration:07}"
        self.checkpointer.save(name, iteration=iteration, **more)


def resumed(folder: Path) -> int:
    """Return the iteration that a new process goes on from, all of whose state is of one file."""
    run = Run(folder)
    loaded = run.checkpointer.resume_or_load("", resume=True)
    assert run.checkpointer.has_checkpoint()
    assert run.counter.iteration == loaded["iteration"]
    assert run.model.weight.eq(loaded["iteration"]).all()
    return loaded["iteration"]


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("nl_detectron") and record.levelno == logging.WARNING
    ]


def test_a_checkpoint_comes_back(tmp_path) -> None:
    run = Run(tmp_path)
    run.save(3)
    assert names(tmp_path) == ["last_checkpoint", "model_0000003.pth"]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000003.pth"
    assert resumed(tmp_path) == 3


@pytest.mark.parametrize("part", ["weight", "running_mean"])
def test_what_would_be_refused_is_not_written(tmp_path, part) -> None:
    """Buffers too: an infinite input spoils a norm's statistics before any parameter."""
    model = nn.BatchNorm2d(2)
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001")
    with torch.no_grad():
        getattr(model, part)[1] = float("inf")
    with pytest.raises(UserError, match=rf"model_0000003\.pth.*{part}"):
        checkpointer.save("model_0000003")
    assert names(tmp_path) == ["last_checkpoint", "model_0000001.pth"]


def test_training_stops_at_a_buffer_that_is_not_finite() -> None:
    model = nn.BatchNorm2d(2)
    check_weights(model, 3)
    model.running_var.fill_(float("nan"))
    with pytest.raises(DivergedError, match="running_var"):
        check_weights(model, 3)


def test_a_rename_is_synced_with_its_folder(tmp_path, monkeypatch) -> None:
    calls = []
    sync, rename = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    def replace(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    with atomic_write(tmp_path / "a", "wb") as file:
        file.write(b"abc")
    assert calls == ["file", "rename", "folder"]


def test_other_path_managers_write_as_they_do(tmp_path) -> None:
    class Remote:
        def open(self, path: str, mode: str = "r", **kwargs: Any) -> tuple:
            return path, mode, kwargs

        def ls(self, path: str) -> list[str]:
            return [path]

    files = AtomicPathManager(Remote())
    assert files.open("s3://bucket/a", "wb", buffering=0) == (
        *("s3://bucket/a", "wb"),
        {"buffering": 0},
    )
    assert files.open(str(tmp_path / "a"), "r") == (str(tmp_path / "a"), "r", {})
    assert files.ls("s3://bucket") == ["s3://bucket"]


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


def before_the_rename_of_last_checkpoint() -> None:
    rename = os.replace

    def rename_or_die(source: Path, target: Path) -> None:
        if target.name == "last_checkpoint":
            kill()
        rename(source, target)

    os.replace = rename_or_die


@pytest.mark.parametrize(
    "point",
    [half_way, before_the_rename, before_last_checkpoint, before_the_rename_of_last_checkpoint],
)
def test_a_killed_write_loses_nothing(tmp_path, point) -> None:
    Run(tmp_path).save(1)

    def action() -> None:
        point()
        Run(tmp_path).save(3)

    killed(action)
    assert resumed(tmp_path) == 1
    Run(tmp_path).save(3)
    assert names(tmp_path) == ["last_checkpoint", "model_0000001.pth", "model_0000003.pth"]
    assert resumed(tmp_path) == 3


def test_a_kill_while_a_file_is_overwritten(tmp_path) -> None:
    Run(tmp_path).save(1, "model_final")

    def action() -> None:
        half_way()
        Run(tmp_path).save(3, "model_final")

    killed(action)
    assert resumed(tmp_path) == 1


def test_a_kill_in_the_very_first_write(tmp_path) -> None:
    def action() -> None:
        before_the_rename()
        Run(tmp_path).save(1)

    killed(action)
    run = Run(tmp_path)
    assert run.checkpointer.resume_or_load("", resume=True) == {}
    assert not run.checkpointer.has_checkpoint()


def test_an_exception_in_a_write_goes_through(tmp_path, monkeypatch) -> None:
    Run(tmp_path).save(1)
    before = names(tmp_path)

    def write(data: object, file: IO[bytes]) -> None:
        file.write(b"abc")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", write)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path).save(3)
    assert names(tmp_path) == before
    assert resumed(tmp_path) == 1


def test_errors_of_torch_stay_what_they_are(tmp_path, monkeypatch) -> None:
    def write(data: object, file: IO[bytes]) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch, "save", write)
    with pytest.raises(RuntimeError, match="CUDA error"):
        Run(tmp_path).save(1)


# A disk that is full.

SPACE = 1 << 20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Yield a folder that takes files of 1 MiB at most; a disk of that size where one can be
    mounted, which needs root, or a limit on what this process writes."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(folder)]
    if shutil.which("mount") and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SPACE, hard))
    try:
        yield folder
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        Run(folder).save(1)
        with pytest.raises(UserError) as info:
            Run(folder).save(3, more=torch.zeros(SPACE))
        assert names(folder) == ["last_checkpoint", "model_0000001.pth"]
        assert resumed(folder) == 1
        Run(folder).save(5)
        assert resumed(folder) == 5
    assert all(f"{folder}/model_000000{n}.pth" in str(info.value) for n in (1, 3))
    assert "\n" not in str(info.value)


def test_a_disk_that_fills_at_any_byte(tmp_path) -> None:
    """The last bytes come from buffers, at other places than the first."""
    outcomes = set()
    with small_disk(tmp_path / "disk") as folder:
        Run(folder).save(1)
        for size in range(SPACE - 40_000, SPACE + 4_000, 4000):
            try:
                Run(folder).save(3, more=torch.zeros(size, dtype=torch.uint8))
                outcomes.add("written")
            except UserError:
                outcomes.add("refused")
            assert not [name for name in names(folder) if name.startswith(".")]
            last = resumed(folder)
            assert last in (1, 3)
            (folder / "model_0000003.pth").unlink(missing_ok=True)
            (folder / "last_checkpoint").write_text("model_0000001.pth")
    assert outcomes == {"written", "refused"}


def test_a_folder_that_is_gone(tmp_path) -> None:
    folder = tmp_path / "output"
    folder.mkdir()
    run = Run(folder)
    run.save(1)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=r"model_0000003\.pth"):
        run.save(3)


# last_checkpoint, and what it names.


def cut(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])


def tag(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "last_checkpoint").write_bytes(content)


LAST = "model_0000005.pth"
FAULTS: dict[str, Callable[[Path], object]] = {
    "last_checkpoint names a missing file": tag(b"model_0000009.pth"),
    "last_checkpoint is empty": tag(b""),
    "last_checkpoint has zero bytes, as after a loss of power": tag(bytes(20)),
    "last_checkpoint points outside, to a file that is no checkpoint": tag(b"../outside"),
    "the last checkpoint is missing": lambda folder: (folder / LAST).unlink(),
    "the last checkpoint is cut off": lambda folder: cut(folder / LAST, 1000),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_resume_falls_back_to_the_newest_whole_file(tmp_path, caplog, what) -> None:
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "output"
    folder.mkdir()
    now = time.time()
    for age, iteration in ((300, 1), (200, 3), (100, 5)):
        Run(folder).save(iteration)
        file = folder / f"model_{iteration:07}.pth"
        os.utime(file, (now - age, now - age))
    (folder / "model_z.pth").write_bytes(b"damaged")  # newest, and to be passed over
    (folder / "weights.pth").write_bytes((folder / "model_0000001.pth").read_bytes())  # not ours
    FAULTS[what](folder)
    iteration = resumed(folder)
    assert iteration == (3 if "the last checkpoint" in what else 5)
    (warning,) = warnings(caplog)
    assert f"{folder}/model_{iteration:07}.pth" in warning


def test_all_damaged_is_one_line(tmp_path) -> None:
    Run(tmp_path).save(1)
    Run(tmp_path).save(3)
    for file in tmp_path.glob("*.pth"):
        cut(file, 1000)
    with pytest.raises(UserError, match=r"model_0000003\.pth") as info:
        resumed(tmp_path)
    assert "\n" not in str(info.value)


def test_last_checkpoint_may_point_to_a_whole_file_outside(tmp_path) -> None:
    for name in ("mine", "another"):
        (tmp_path / name).mkdir()
    Run(tmp_path / "another").save(7)
    (tmp_path / "mine" / "last_checkpoint").write_text("../another/model_0000007.pth")
    assert resumed(tmp_path / "mine") == 7


def test_a_last_checkpoint_that_is_not_finite_is_no_damage(tmp_path) -> None:
    """Going back in silence to train into the same trouble would help nobody."""
    Run(tmp_path).save(1)
    state = {"weight": torch.full((2, 2), float("nan")), "bias": torch.zeros(2)}
    torch.save({"model": state, "iteration": 5}, tmp_path / "model_0000005.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000005.pth")
    with pytest.raises(UserError, match=r"model_0000005\.pth"):
        resumed(tmp_path)


def test_without_resume_nothing_of_the_folder_is_read(tmp_path) -> None:
    Run(tmp_path).save(1)
    cut(tmp_path / "model_0000001.pth", 100)
    save_file({"weight": torch.full((2, 2), 9.0)}, tmp_path / "start.safetensors")
    run = Run(tmp_path)
    run.checkpointer.resume_or_load(str(tmp_path / "start.safetensors"), resume=False)
    assert run.model.weight.eq(9).all()
    assert run.counter.iteration == 0
