"""The trials of a plan, in processes beside each other; results are kept after each one."""

import contextlib
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import detectron2
import torch

CONSOLE = "console.txt"
MACHINES = "machines.json"
_AND = " and "


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Trials of one kind, and what is done with them.

    A trial has a name, ``str(trial)``, a `setting`, another trial or None that it starts from,
    `start`, and a place for its weights, ``weights(output)``.

    Attributes:
        name: of the experiment.
        plan: the trials of a setting, in the order of running.
        run_trial: takes a trial and the folder of all runs, and returns its outcome.
        load, save: of outcomes by trial, in a folder.
        describe: an outcome in a few words.
        by_default: whether a trial runs where none is asked for by its name.
    """

    name: str
    plan: Callable[[str], Sequence[Any]]
    run_trial: Callable[[Any, Path], Any]
    load: Callable[[Path], dict[Any, Any]]
    save: Callable[[Path, Mapping[Any, Any]], None]
    describe: Callable[[Any], str]
    by_default: Callable[[Any], bool]


@dataclass(frozen=True)
class Failure:
    """Why a trial has no outcome."""

    why: str


def run(
    experiment: Experiment, trials: Sequence[Any], *, output: Path, folder: Path, jobs: int
) -> dict[Any, str]:
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
    done = experiment.load(folder)
    left = [trial for trial in trials if trial not in done]
    if left:
        _note_machine(folder / MACHINES, f"{experiment.name}/{left[0].setting}")
    stages = _stages(left, output)
    before, total, start = len(trials) - len(left), sum(map(len, stages)), time.monotonic()
    failed: dict[Any, str] = {}
    running = chain.from_iterable(
        _each(experiment.run_trial, stage, output, jobs) for stage in stages
    )
    for ran, (trial, result) in enumerate(running, 1):
        if isinstance(result, Failure):
            failed[trial] = words = result.why
        else:
            done[trial] = result
            experiment.save(folder, done)
            words = experiment.describe(result)
        minutes = (time.monotonic() - start) / 60 * (total - ran) / ran
        print(
            f"[{before + ran}/{before + total}] {trial}: {words}; {minutes:.0f} min left",
            flush=True,
        )
    return failed


def _stages(trials: Sequence[Any], output: Path) -> list[list[Any]]:
    """Return `trials` and those that they start from, if `output` lacks their weights, in parts of
    which each starts from those before."""
    if not trials:
        return []
    starts = [t.start for t in trials if t.start and not t.start.weights(output).is_file()]
    before = _stages(list(dict.fromkeys(starts)), output)
    return [*before, [trial for trial in trials if not any(trial in stage for stage in before)]]


def machine_lines(machines: Mapping[str, Mapping[str, str]], experiment: str) -> str:
    """Return what the trials of an experiment ran on, as a list of the page."""
    return "\n".join(
        f"- {key}: {', '.join(f'{part} {value}' for part, value in machine.items())}."
        for key, machine in machines.items()
        if key.startswith(f"{experiment}/")
    )


def _note_machine(path: Path, key: str) -> None:
    """Write down, by experiment and setting, what the trials run on; all of it, if on several."""
    machines = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "nl_detectron": version("nl_detectron"),
    }
    before = {part: value.split(_AND) for part, value in machines.get(key, {}).items()}
    machines[key] = {
        part: _AND.join(dict.fromkeys([*before.get(part, []), value]))
        for part, value in now.items()
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
    run_trial: Callable[[Any, Path], Any], trials: Sequence[Any], output: Path, jobs: int
) -> Iterator[tuple[Any, Any]]:
    """Yield each trial with its outcome, or a `Failure`, as they end."""
    # A process per trial: Detectron2's logger and event storage are global. The server that they
    # are forked from imports the script's modules, some seconds of work, once.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures: Mapping[Future, Any] = {
            pool.submit(_in_process, run_trial, trial, output): trial for trial in trials
        }
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], Failure(repr(error)) if error else future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_process(run_trial: Callable[[Any, Path], Any], trial: Any, output: Path) -> Any:
    """Run one trial; what it prints goes into a file of its folder."""
    torch.set_num_threads(1)
    path = output / str(trial) / CONSOLE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log, _output_to(log.fileno()):
        try:
            return run_trial(trial, output)
        except Exception as error:
            traceback.print_exc()
            return Failure(f"{type(error).__name__}: {error} (see {path})")


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
