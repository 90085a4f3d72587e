"""The trials of a plan, in processes beside each other; results are kept after each one."""

import contextlib
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import detectron2
import torch

from . import results
from .plan import Trial
from .trial import Outcome, run_trial

CONSOLE = "console.txt"
MACHINES = "machines.json"


def run(trials: Sequence[Trial], *, output: Path, folder: Path, jobs: int) -> dict[Trial, str]:
    """Run the trials that `folder` has no results of, a line of progress each.

    Trials that others start from come first, and again if `output` lacks their weights.

    Args:
        trials: what to run, in this order.
        output: where trials have their folders; one that was cut off goes on there.
        folder: of the results; they are written after each trial.
        jobs: trials at a time, each with one thread.

    Returns:
        For each trial that failed, why.
    """
    done = results.load(folder)
    left = [trial for trial in trials if trial not in done]
    if left:
        _note_machine(folder / MACHINES, left[0].setting)
    starts = [t.start for t in left if t.start and not t.start.weights(output).is_file()]
    first = list(dict.fromkeys(starts))
    then = [trial for trial in left if trial not in first]
    before, total, start = len(trials) - len(left), len(first) + len(then), time.monotonic()
    failed: dict[Trial, str] = {}
    stages = chain(_each(first, output, jobs), _each(then, output, jobs))
    for ran, (trial, result) in enumerate(stages, 1):
        if isinstance(result, Outcome):
            done[trial] = result
            results.save(folder, done)
            words = f"AP {result.ap:.1f}, AP50 {result.ap50:.1f}"
        else:
            failed[trial] = words = result
        minutes = (time.monotonic() - start) / 60 * (total - ran) / ran
        print(
            f"[{before + ran}/{before + total}] {trial}: {words}; {minutes:.0f} min left",
            flush=True,
        )
    return failed


def _note_machine(path: Path, setting: str) -> None:
    """Write down, by setting, what the trials run on."""
    machines = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    machines[setting] = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "nl_detectron": version("nl_detectron"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(machines, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _each(
    trials: Sequence[Trial], output: Path, jobs: int
) -> Iterator[tuple[Trial, Outcome | str]]:
    """Yield each trial with its outcome, or why there is none, as they end."""
    context = multiprocessing.get_context("spawn")
    # A process per trial: Detectron2's logger and event storage are global.
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures: Mapping[Future, Trial] = {
            pool.submit(_in_process, trial, output): trial for trial in trials
        }
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], future.result() if error is None else repr(error)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_process(trial: Trial, output: Path) -> Outcome | str:
    """Run one trial; what it prints goes into a file of its folder."""
    torch.set_num_threads(1)
    path = output / str(trial) / CONSOLE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log, _output_to(log.fileno()):
        try:
            return run_trial(trial, output)
        except Exception as error:
            traceback.print_exc()
            return f"{type(error).__name__}: {error} (see {path})"


@contextlib.contextmanager
def _output_to(file: int) -> Iterator[None]:
    """Send what this process prints to `file`, also what C code prints."""
    kept = [os.dup(1), os.dup(2)]
    try:
        for stream in (1, 2):
            os.dup2(file, stream)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, original in enumerate(kept, 1):
            os.dup2(original, stream)
            os.close(original)
