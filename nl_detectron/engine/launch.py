"""Start the processes of a run, or join those that torchrun or SLURM has started."""

import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import DEFAULT_TIMEOUT
from detectron2.engine import launch as detectron2_launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from ..errors import UserError
from .stop import TERMINATED

_USER_ERROR = f"{UserError.__module__}.{UserError.__qualname__}: "


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """One process's place among all, and where they meet."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    address: str


def ranks_from_environment(environment: Mapping[str, str]) -> Ranks | None:
    """Read what torchrun or ``srun`` says about this process; None if neither started it."""
    try:
        if "TORCHELASTIC_RUN_ID" in environment or {"RANK", "LOCAL_RANK"} <= environment.keys():
            return Ranks(
                rank=int(environment["RANK"]),
                world_size=int(environment["WORLD_SIZE"]),
                local_rank=int(environment["LOCAL_RANK"]),
                local_size=int(environment["LOCAL_WORLD_SIZE"]),
                address="env://",
            )
        # A batch script or an interactive shell has SLURM_PROCID, but is no task of a step.
        if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
            host = environment.get("MASTER_ADDR") or _first_host(environment["SLURM_STEP_NODELIST"])
            job_port = 20000 + int(environment["SLURM_JOB_ID"]) % 20000
            port = environment.get("MASTER_PORT", job_port)
            return Ranks(
                rank=int(environment["SLURM_PROCID"]),
                world_size=int(environment["SLURM_STEP_NUM_TASKS"]),
                local_rank=int(environment["SLURM_LOCALID"]),
                local_size=_tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"]),
                address=f"tcp://{host}:{port}",
            )
    except (KeyError, ValueError) as error:
        raise UserError(f"the environment of torchrun or SLURM is incomplete: {error}") from error
    return None


def launch(
    main: Callable[..., Any],
    *,
    num_processes: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str,
    args: tuple[Any, ...] = (),
) -> None:
    """Run ``main(*args)`` in every process of the run and wait for them.

    Under torchrun and ``srun`` the processes exist already, and this joins them. Otherwise
    Detectron2's `launch` starts `num_processes` on this machine: one for each GPU with NCCL, or
    on a machine without GPUs that many on the CPU with gloo. SIGTERM is handed on to them.

    Raises:
        UserError: a process raised it, or was killed.
        SystemExit: SIGTERM ended the processes, with status 143.
    """
    on_gpu = torch.device(device).type == "cuda"
    ranks = ranks_from_environment(os.environ)
    if ranks is not None and ranks.world_size > 1:
        _join(ranks, on_gpu, main, args)
        return
    if num_processes < 1 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise UserError(
            f"--num-gpus {num_processes} --num-machines {num_machines} --machine-rank "
            f"{machine_rank}: there must be at least one process, and ranks start at 0"
        )
    if num_machines > 1 and dist_url == "auto":
        raise UserError("--dist-url auto is for one machine: give tcp://<first machine>:<port>")
    if num_processes * num_machines > 1:
        if on_gpu and num_processes > torch.cuda.device_count():
            raise UserError(
                f"--num-gpus {num_processes}, but torch sees {torch.cuda.device_count()} GPU(s)"
            )
        if not on_gpu and torch.cuda.is_available():
            raise UserError(
                "several CPU processes on a machine with GPUs: hide them by CUDA_VISIBLE_DEVICES=''"
            )
    if num_processes * num_machines == 1:
        main(*args)
        return
    try:
        with _handing_on_sigterm():
            detectron2_launch(
                _spawned,
                num_processes,
                num_machines=num_machines,
                machine_rank=machine_rank,
                dist_url=dist_url,
                args=(on_gpu, main, args),
            )
    except ProcessRaisedException as error:
        _, user_error, message = str(error).rpartition(_USER_ERROR)
        if not user_error:
            raise
        raise UserError(message.rstrip()) from error
    except ProcessExitedException as error:
        if error.exit_code in (TERMINATED, -signal.SIGTERM):
            raise SystemExit(TERMINATED) from error
        raise UserError(_how_it_ended(error)) from error


def _spawned(on_gpu: bool, main: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        _worker(on_gpu, main, args)
    except UserError as error:
        # The parent has only the traceback's text. It looks there for this class and its message.
        raise UserError(str(error)) from error


def _worker(on_gpu: bool, main: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if not on_gpu:
        # Each process would otherwise take a thread per core.
        torch.set_num_threads(max(1, torch.get_num_threads() // comm.get_local_size()))
    try:
        main(*args)
    finally:
        dist.destroy_process_group()


@contextmanager
def _handing_on_sigterm() -> Iterator[None]:
    """Send SIGTERM on to the processes, each of which knows what to do, and go on waiting."""

    def hand_on(number: int, frame: FrameType | None) -> None:
        for process in multiprocessing.active_children():
            process.terminate()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _how_it_ended(error: ProcessExitedException) -> str:
    if error.signal_name is None:
        return f"a training process ended with status {error.exit_code}; its log says why"
    by_system = error.signal_name == "SIGKILL"
    why = " (mostly the system does so when memory runs out)" if by_system else ""
    return (
        f"training process {error.error_index} was killed by {error.signal_name}{why}; --resume "
        "goes on from the last checkpoint"
    )


def _join(ranks: Ranks, on_gpu: bool, main: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if on_gpu and ranks.local_size > torch.cuda.device_count():
        raise UserError(
            f"{ranks.local_size} processes on a machine where torch sees "
            f"{torch.cuda.device_count()} GPU(s)"
        )
    if on_gpu:
        torch.cuda.set_device(ranks.local_rank)
    dist.init_process_group(
        backend="nccl" if on_gpu else "gloo",
        init_method=ranks.address,
        world_size=ranks.world_size,
        rank=ranks.rank,
        timeout=DEFAULT_TIMEOUT,
    )
    comm.create_local_process_group(ranks.local_size)
    comm.synchronize()
    _worker(on_gpu, main, args)


def _first_host(nodelist: str) -> str:
    """``gpu[03-06,09],other`` -> ``gpu03``."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodelist)
    if match is None:
        raise ValueError(f"SLURM_STEP_NODELIST={nodelist!r}")
    return "".join(part or "" for part in match.groups())


def _tasks_per_node(spec: str) -> int:
    """``8(x2)`` -> 8; Detectron2 needs the same number on every machine."""
    counts = {part.split("(")[0] for part in spec.split(",")}
    if len(counts) != 1:
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={spec} is not the same for every machine")
    return int(counts.pop())
