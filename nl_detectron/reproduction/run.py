"""The runs of a table's rows: what is there, what is missing, and the training of that."""

import fcntl
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tqdm import tqdm

from nl_detectron.errors import UserError
from nl_detectron.model_zoo import Entry

from .plan import Machines, Run, run_folder
from .state import METRICS_FILE, SETTINGS, State, read_settings, read_state

CONSOLE = "console.txt"
POLL_SECONDS = 1.0

# Settings which decide how a run is carried out, and of a finished one nothing any more.
_OF_MACHINES = ("processes", "accumulate")


def collect(entries: Sequence[Entry], output: Path) -> dict[str, State]:
    """Return, by config, what there is under `output` of the rows and of their baselines.

    A baseline is needed for the difference, whether or not it was asked for.
    """
    configs = [entry.config for entry in entries]
    configs += [entry.baseline for entry in entries if entry.baseline]
    return {config: read_state(run_folder(output, config)) for config in configs}


def check_folders(runs: Sequence[Run]) -> None:
    """Raise `UserError` if a run's folder holds one with other settings.

    Its results would be taken for those of this recipe, or its checkpoint for one of this
    schedule. A finished run may have taken another number of GPUs.
    """
    for run in runs:
        there = read_settings(run.folder)
        if there is None:
            continue
        done = bool(run.state.results)
        for key, value in run.settings.items():
            if there[key] != value and not (done and key in _OF_MACHINES):
                raise UserError(
                    f"{run.folder} was started with {key} {_words(there[key])}, not "
                    f"{_words(value)}; give the same, or another --output"
                )


def run_all(runs: Sequence[Run], machines: Machines) -> dict[str, str]:
    """Carry out the runs that are not finished, one after another.

    A training that was cut off goes on from its last checkpoint, an evaluation of videos from its
    last video. What a run prints goes to ``console.txt`` in its folder; here is one line of
    progress per run.

    Returns:
        For each run that failed, by config: why.
    """
    failed = {}
    for number, run in enumerate(runs, 1):
        head = f"[{number}/{len(runs)}] {run.entry.row_name}"
        if run.state.results:
            print(f"{head}: done before", flush=True)
            continue
        error = _run(run, machines, head)
        print(f"{head}: {error or 'done'}", flush=True)
        if error:
            failed[run.entry.config] = error
    return failed


def _run(run: Run, machines: Machines, head: str) -> str | None:
    """Return why the run failed, or None."""
    if run.start and not run.start.is_file():
        return f"not started: there is no {run.start}, which it starts from"
    try:
        run.check()
    except UserError as error:
        return f"failed: {error}"
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        lock = open(run.folder / f".lock-{machines.machine_rank}", "w")  # noqa: SIM115
    except OSError as error:
        return f"failed: cannot write {run.folder} ({error.strerror})"
    console = run.folder / (f"{machines.machine_rank}-" * (machines.num_machines > 1) + CONSOLE)
    with lock, open(console, "ab") as log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return f"failed: another process is at work in {run.folder}"
        if machines.machine_rank == 0:
            (run.folder / SETTINGS).write_text(json.dumps(run.settings), encoding="utf-8")
        status = _watch(run, log, lock, head)
    if status != 0:
        return f"failed with status {status}: {_last_line(console)} (see {console})"
    # Of several machines only the first one writes results.
    if machines.machine_rank == 0 and not run.state.results:
        return f"failed: no results of the final model in {run.folder / METRICS_FILE}"
    return None


def _watch(run: Run, log: IO[bytes], lock: IO[str], head: str) -> int:
    """Run the command and show how far it is."""
    # Only a terminal can overwrite a line.
    seconds = POLL_SECONDS if sys.stderr.isatty() else 60.0
    # The process inherits the lock: it holds even if only this one is killed.
    with (
        tqdm(desc=head, total=run.iterations, unit="it", mininterval=seconds, leave=False) as bar,
        subprocess.Popen(
            run.command, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock.fileno()]
        ) as process,
    ):
        while True:
            try:
                return process.wait(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                done = run.state.iteration or 0
                if bar.initial == bar.n == 0:
                    bar.initial = done  # what was there before says nothing about the speed
                bar.update(min(done, run.iterations or 0) - bar.n)


def _last_line(console: Path) -> str:
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _words(setting: object) -> str:
    return repr(" ".join(setting)) if isinstance(setting, list) else str(setting)
