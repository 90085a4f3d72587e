"""The runs of a table's rows: what is there, what is missing, and the training of that."""

import fcntl
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from nl_detectron.errors import UserError
from nl_detectron.model_zoo import METRICS, Entry, Results

from .plan import Machines, Row, run_folder

SETTINGS = "reproduce.json"
CONSOLE = "console.txt"
POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class State:
    """What a run folder holds.

    Attributes:
        iteration: the last one that was logged; None where there is no log.
        results: of the evaluation at the end; None if it is not finished.
        opts: ``KEY VALUE ...`` that it was started with; None if they are not known.
    """

    iteration: int | None = None
    results: Results | None = None
    opts: tuple[str, ...] | None = None

    def __str__(self) -> str:
        if self.results:
            return "done"
        return "not run" if self.iteration is None else f"cut off at iteration {self.iteration:,}"


def read_state(folder: Path) -> State:
    """Return what is in a run folder, whoever started it; it need not exist.

    A run is finished when there is the final model and nothing was logged after the evaluation.
    """
    settings = _read_settings(folder)
    opts = None if settings is None else tuple(settings["opts"])
    lines = _read_metrics(folder / "metrics.json")
    if not lines:
        return State(opts=opts)
    last = max(line["iteration"] for line in lines)
    results: Results = {}
    if (folder / "model_final.pth").is_file():
        for line in (line for line in lines if line["iteration"] == last):
            results |= _results(line)
    return State(iteration=int(last), results=results or None, opts=opts)


def collect(entries: Sequence[Entry], output: Path) -> dict[str, State]:
    """Return, by config, what there is under `output` of the rows and of their baselines.

    A baseline is needed for the difference, whether or not it was asked for.
    """
    configs = [entry.config for entry in entries]
    configs += [entry.baseline for entry in entries if entry.baseline]
    return {config: read_state(run_folder(output, config)) for config in configs}


def check_folders(rows: Sequence[Row]) -> None:
    """Raise `UserError` if a row's folder holds a run with other settings.

    Its results would be taken for those of this recipe, or its checkpoint for one of this
    schedule. A finished run may have taken another number of GPUs.
    """
    for row in rows:
        there = _read_settings(row.folder)
        if there is None:
            continue
        keys = ["opts"] if read_state(row.folder).results else list(row.settings)
        for key in keys:
            if there[key] != row.settings[key]:
                raise UserError(
                    f"{row.folder} was started with {key} {_words(there[key])}, not "
                    f"{_words(row.settings[key])}; give the same, or another --output"
                )


def train(rows: Sequence[Row], machines: Machines) -> dict[str, str]:
    """Train and evaluate the rows that are not finished, one after another.

    A row that was cut off goes on from its last checkpoint. What a run prints goes to
    ``console.txt`` in its folder; here is one line of progress per row.

    Returns:
        For each row that failed, by config: why.
    """
    failed = {}
    for number, row in enumerate(rows, 1):
        head = f"[{number}/{len(rows)}] {row.entry.row_name}"
        if read_state(row.folder).results:
            print(f"{head}: done before", flush=True)
            continue
        error = _train(row, machines, head)
        print(f"{head}: {error or 'done'}", flush=True)
        if error:
            failed[row.entry.config] = error
    return failed


def _train(row: Row, machines: Machines, head: str) -> str | None:
    """Return why the row failed, or None."""
    try:
        row.folder.mkdir(parents=True, exist_ok=True)
        lock = open(row.folder / f".lock-{machines.machine_rank}", "w")  # noqa: SIM115
    except OSError as error:
        return f"failed: cannot write {row.folder} ({error.strerror})"
    console = row.folder / (f"{machines.machine_rank}-" * (machines.num_machines > 1) + CONSOLE)
    with lock, open(console, "ab") as log:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return f"failed: another process is training in {row.folder}"
        if machines.machine_rank == 0:
            (row.folder / SETTINGS).write_text(json.dumps(row.settings), encoding="utf-8")
        status = _watch(row, log, lock, head)
    if status != 0:
        return f"failed with status {status}: {_last_line(console)} (see {console})"
    # Of several machines only the first one writes results.
    if machines.machine_rank == 0 and not read_state(row.folder).results:
        return f"failed: no results of the final model in {row.folder / 'metrics.json'}"
    return None


def _watch(row: Row, log: IO[bytes], lock: IO[str], head: str) -> int:
    """Run the command and show how far it is."""
    # Only a terminal can overwrite a line.
    seconds = POLL_SECONDS if sys.stderr.isatty() else 60.0
    # The process inherits the lock: it holds even if only this one is killed.
    with (
        tqdm(
            desc=head, total=row.recipe.iterations, unit="it", mininterval=seconds, leave=False
        ) as bar,
        subprocess.Popen(
            row.command, stdout=log, stderr=subprocess.STDOUT, pass_fds=[lock.fileno()]
        ) as process,
    ):
        while True:
            try:
                return process.wait(timeout=POLL_SECONDS)
            except subprocess.TimeoutExpired:
                done = read_state(row.folder).iteration or 0
                if bar.initial == bar.n == 0:
                    bar.initial = done  # what was there before says nothing about the speed
                bar.update(min(done, row.recipe.iterations) - bar.n)


def _read_settings(folder: Path) -> dict[str, Any] | None:
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or cut off while it was written
        return None
    return settings if isinstance(settings, dict) else None


def _read_metrics(path: Path) -> list[dict[str, float]]:
    lines = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        if isinstance(values, dict) and "iteration" in values:
            lines.append(values)
    return lines


def _results(line: dict[str, float]) -> Results:
    """NaN is what Detectron2 writes where nothing was predicted or there is nothing to find."""
    return {
        metric.name: tuple(
            line.get(f"{metric.key}/{column}", math.nan) for column in metric.columns
        )
        for metric in METRICS
        if f"{metric.key}/{metric.columns[0]}" in line
    }


def _last_line(console: Path) -> str:
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _words(setting: object) -> str:
    return repr(" ".join(setting)) if isinstance(setting, list) else str(setting)
