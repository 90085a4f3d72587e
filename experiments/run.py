"""Runs of trials in processes; results are saved after each one."""

import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import chain
from pathlib import Path

import torch

from . import boxes, keypoints, video
from .plan import Plan, Trial
from .results import Outcome, add, load

PLANS: Mapping[str, Plan] = {
    plan.experiment: plan for plan in (video.PLAN, boxes.PLAN, keypoints.PLAN)
}
_RUN: Mapping[str, Callable[[Trial, Path], Outcome]] = {
    "video": video.run_trial,
    "boxes": boxes.run_trial,
    "keypoints": keypoints.run_trial,
}


def run(trials: Sequence[Trial], *, output: Path, folder: Path, jobs: int) -> dict[Trial, str]:
    """Run the trials that `folder` has no results of, and print a line for each.

    A trial that another one takes its initial weights from runs first if `output` lacks them.

    Args:
        trials: what to run.
        output: folder of the runs.
        folder: of the results.
        jobs: trials at a time, each with one thread.

    Returns:
        For each trial that failed, the reason.
    """
    done = {trial for name in PLANS for trial in load(folder, name).trials(name)}
    stages = _stages([trial for trial in trials if trial not in done], output)
    total = sum(map(len, stages))
    failed = {}
    results = chain.from_iterable(_each(stage, output, jobs) for stage in stages)
    for ran, (trial, result) in enumerate(results, 1):
        if isinstance(result, Outcome):
            add(folder, trial, result)
        else:
            failed[trial] = result
        print(f"[{ran}/{total}] {trial}: {failed.get(trial, 'done')}", flush=True)
    return failed


def _stages(trials: Sequence[Trial], output: Path) -> list[list[Trial]]:
    """Return `trials`, with those that they start from and that lack weights, in stages."""
    if not trials:
        return []
    starts = [PLANS[trial.experiment].start(trial) for trial in trials]
    missing = dict.fromkeys(s for s in starts if s and not s.weights(output).is_file())
    before = _stages(list(missing), output)
    return [*before, [trial for trial in trials if not any(trial in stage for stage in before)]]


def _each(
    trials: Sequence[Trial], output: Path, jobs: int
) -> Iterator[tuple[Trial, Outcome | str]]:
    """Yield each trial with its outcome, or the reason of its failure, as they end."""
    # A process per trial: Detectron2's logger and event storage are global. The server that they
    # are forked from imports the script's modules, some seconds of work, once.
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(_in_process, trial, output): trial for trial in trials}
        try:
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], repr(error) if error else future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_process(trial: Trial, output: Path) -> Outcome | str:
    """Run one trial; its output goes into ``console.txt`` in its folder."""
    torch.set_num_threads(1)
    path = output / str(trial) / "console.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        for stream in (1, 2):  # C code's output as well; the process ends with the trial
            os.dup2(log.fileno(), stream)
    try:
        return _RUN[trial.experiment](trial, output)
    except Exception as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {error} (see {path})"
