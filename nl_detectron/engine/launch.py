"""Launching of a run's processes, or joining of those from torchrun or SLURM."""

import multiprocessing
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT, _find_free_port
from detectron2.utils import comm
from torch.multiprocessing import start_processes

from ..utils.errors import UserError
from ..utils.third_party_warnings import hide_third_party_warnings
from .run_errors import PROCESS_GONE, TERMINATED

# Time in which the other processes must end after one has failed.
_GRACE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Rank of a process, and the address of the process group.

    Args:
        by_srun: `srun` started the process, and may hide the GPUs of the other tasks.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    address: str
    by_srun: bool = False


def ranks_from_environment(environment: Mapping[str, str]) -> Ranks | None:
    """Read the ranks that torchrun or ``srun`` set; None if neither started the process."""
    try:
        if "TORCHELASTIC_RUN_ID" in environment or {"RANK", "LOCAL_RANK"} <= environment.keys():
            return Ranks(
                rank=int(environment["RANK"]),
                world_size=int(environment["WORLD_SIZE"]),
                local_rank=int(environment["LOCAL_RANK"]),
                local_size=int(environment["LOCAL_WORLD_SIZE"]),
                address="env://",
            )
        # A batch script or an interactive shell has SLURM_PROCID without being a task of a step.
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
                by_srun=True,
            )
    except (KeyError, ValueError) as error:
        raise UserError(f"the environment of torchrun or SLURM is incomplete: {error}") from error
    return None


def launch(
    main: Callable[[], Any],
    *,
    num_processes: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str,
) -> None:
    """Run `main` in every process of the run and wait for them.

    Processes of torchrun and ``srun`` are joined. Otherwise `num_processes` are started on this
    machine, with NCCL and a GPU each, or on the CPU with gloo. SIGTERM is forwarded to them.

    If a process fails, all processes of this machine end within seconds; those that wait for it
    are killed. Detectron2's `launch` does not do that.

    Raises:
        UserError: a process raised it, or was killed.
        SystemExit: a process raised another error, whose traceback is printed, or, with status 143,
            SIGTERM ended the processes.
    """
    on_gpu = torch.device(device).type == "cuda"
    ranks = ranks_from_environment(os.environ)
    if ranks is not None and ranks.world_size > 1:
        _run_process(ranks, on_gpu, main)
        return
    if num_processes < 1 or num_machines < 1 or not 0 <= machine_rank < num_machines:
        raise UserError(
            "--num-gpus and --num-machines must be at least 1, --machine-rank 0 to below "
            f"--num-machines, got {num_processes}, {num_machines} and {machine_rank}"
        )
    if num_machines > 1 and dist_url == "auto":
        raise UserError(
            "--dist-url must be tcp://<first machine>:<port> for several machines, got auto"
        )
    if num_processes * num_machines == 1:
        main()
        return
    address = f"tcp://127.0.0.1:{_find_free_port()}" if dist_url == "auto" else dist_url
    all_ranks = [
        Ranks(
            rank=machine_rank * num_processes + local_rank,
            world_size=num_machines * num_processes,
            local_rank=local_rank,
            local_size=num_processes,
            address=address,
        )
        for local_rank in range(num_processes)
    ]
    receiver, sender = multiprocessing.get_context("spawn").Pipe(duplex=False)
    previous = signal.signal(signal.SIGTERM, _forward_sigterm)
    try:
        processes = start_processes(
            _run_spawned_process,
            args=(all_ranks, on_gpu, main, sender),
            nprocs=num_processes,
            join=False,
            start_method="spawn",
        ).processes
        killed = _wait(processes)
    finally:
        signal.signal(signal.SIGTERM, previous)
    errors: dict[int, BaseException] = {}
    while receiver.poll():
        index, message = receiver.recv()
        errors[index] = UserError(message)
    for index, process in enumerate(processes):
        if process.exitcode and index not in errors.keys() | killed:
            errors[index] = _exit_error(index, process.exitcode)
    if errors:
        # An error in one process makes others fail; raise the one that most likely came first.
        raise min(errors.values(), key=lambda e: (PROCESS_GONE in str(e), type(e) is SystemExit))


def _run_spawned_process(
    index: int,
    all_ranks: list[Ranks],
    on_gpu: bool,
    main: Callable[[], Any],
    errors: connection.Connection,
) -> None:
    hide_third_party_warnings()
    try:
        _run_process(all_ranks[index], on_gpu, main)
    except UserError as error:
        # Not torch's traceback in a file, which a full disk may not hold.
        errors.send((index, str(error)))
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


def _run_process(ranks: Ranks, on_gpu: bool, main: Callable[[], Any]) -> None:
    if on_gpu:
        torch.cuda.set_device(_gpu_number(ranks))
    else:
        # Each process would otherwise take a thread per core.
        torch.set_num_threads(max(1, torch.get_num_threads() // ranks.local_size))
    dist.init_process_group(
        backend="nccl" if on_gpu else "gloo",
        init_method=ranks.address,
        world_size=ranks.world_size,
        rank=ranks.rank,
        timeout=DEFAULT_TIMEOUT,
    )
    comm.create_local_process_group(ranks.local_size)
    comm.synchronize()
    main()
    # Not after an error: with NCCL this waits for the other processes, which wait for this one.
    dist.destroy_process_group()


def _gpu_number(ranks: Ranks) -> int:
    visible = torch.cuda.device_count()
    if visible == 1 and ranks.by_srun:
        return 0  # srun --gpus-per-task=1: each task has only its own GPU, as number 0
    if visible < ranks.local_size:
        raise UserError(
            f"expected at most {visible} processes per machine, the GPUs that torch finds, got "
            f"{ranks.local_size}"
        )
    return ranks.local_rank


def _wait(processes: Sequence[BaseProcess]) -> set[int]:
    """Wait for the processes; if one fails, kill those that do not end soon, and return these."""
    while not any(process.exitcode for process in processes):
        alive = [process.sentinel for process in processes if process.is_alive()]
        if not alive:
            return set()
        connection.wait(alive, timeout=1)  # loader workers hold a dead process's sentinel open
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    stuck = {index for index, process in enumerate(processes) if process.is_alive()}
    for index in stuck:
        processes[index].kill()  # SIGTERM does not reach Python while NCCL waits
    return stuck


def _exit_error(index: int, status: int) -> BaseException:
    """Return the exception for a process that ended with a status other than 0."""
    if status > 0:
        return SystemExit(status)  # its traceback has been printed
    if status == -signal.SIGTERM:
        return SystemExit(TERMINATED)
    hint = " (the system may be out of memory)" if status == -signal.SIGKILL else ""
    return UserError(
        f"training process {index} was killed by {signal.Signals(-status).name}{hint}; --resume "
        "continues from the last checkpoint"
    )


def _forward_sigterm(number: int, frame: FrameType | None) -> None:
    """Forward SIGTERM to the processes, which handle it, and continue to wait."""
    for process in multiprocessing.active_children():
        process.terminate()


def _first_host(nodelist: str) -> str:
    """Return the first host of a SLURM list: ``gpu[03-06,09],other`` -> ``gpu03``."""
    return re.sub(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?.*", r"\1\2\3", nodelist)


def _tasks_per_node(spec: str) -> int:
    """Parse ``8(x2)`` as 8; Detectron2 needs the same number on every machine."""
    counts = {part.split("(")[0] for part in spec.split(",")}
    if len(counts) != 1:
        raise ValueError(f"SLURM_STEP_TASKS_PER_NODE must be equal on all machines, got {spec}")
    return int(counts.pop())
