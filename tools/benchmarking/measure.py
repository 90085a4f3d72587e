"""Time and peak memory of code in this process, on a CPU or a CUDA device."""

import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch


def now(device: str) -> float:
    """Return seconds: CPU time of this process, or clock time after synchronizing CUDA."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def seconds(run: Callable[[], object], device: str, *, shortest: float = 0.0) -> float:
    """Return the mean seconds of `run`, repeated until `shortest` seconds have passed."""
    runs, start = 0, now(device)
    while runs == 0 or now(device) - start < shortest:
        run()
        runs += 1
    return (now(device) - start) / runs


def alternate(steps: Mapping[Any, Callable[[], float]], rounds: int) -> dict[Any, list[float]]:
    """Return the results of `steps`, run in turn for `rounds`, after one round to warm up."""
    found: dict[Any, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, step in steps.items():
            found[name].append(step())
            gc.collect()
    return {name: values[1:] for name, values in found.items()}


def ratio(found: dict[Any, list[float]], first: Any, second: Any) -> float:
    """Return the median over rounds of `first` / `second`."""
    return statistics.median(a / b for a, b in zip(found[first], found[second], strict=True))


def peak(run: Callable[[], object], device: str) -> int | None:
    """Return the peak bytes of `run` beyond those in use before; None if they are unknown.

    Call this once in a process: memory that was allocated and freed before would be used again
    without being counted.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    clear_refs = Path("/proc/self/clear_refs")
    if not clear_refs.exists():
        return None
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 65536)  # M_MMAP_THRESHOLD: give memory back as soon as it is freed
    libc.malloc_trim(0)
    clear_refs.write_text("5")  # reset the high-water mark
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def in_own_process(function: Callable, *args) -> int | None:
    # A server that has imported only torch forks each process, which starts fresh without delay.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nl_detectron.layers"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()
