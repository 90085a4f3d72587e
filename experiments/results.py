"""The raw results of detectors: three CSV files, written whole after every trial."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nl_detectron.errors import UserError

from . import tables
from .hypotheses import Group
from .trial import BlockUse, Outcome

RUNS, CURVES, BLOCKS = "runs.csv", "curves.csv", "blocks.csv"
_SCALARS = [name for name in tables.names(Outcome) if name not in ("curve", "blocks")]

Results = dict[Any, Outcome]
"""By trial."""


def save(folder: Path, results: Mapping[Any, Outcome], *, kind: type, prefix: str) -> None:
    """Write `results` into `folder`, sorted; a file is there whole or as it was.

    Args:
        kind: of the trials.
        prefix: of the files' names.

    Raises:
        UserError: the folder cannot be written.
    """
    of_trial = tables.names(kind)
    done = sorted(results, key=lambda trial: list(asdict(trial).values()))
    runs = [asdict(t) | {name: getattr(results[t], name) for name in _SCALARS} for t in done]
    curves = [
        asdict(t) | {"iteration": iteration, "ap": ap}
        for t in done
        for iteration, ap in results[t].curve.items()
    ]
    blocks = [asdict(t) | asdict(use) for t in done for use in results[t].blocks]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tables.write(folder / f"{prefix}{CURVES}", [*of_trial, "iteration", "ap"], curves)
        tables.write(folder / f"{prefix}{BLOCKS}", [*of_trial, *tables.names(BlockUse)], blocks)
        tables.write(folder / f"{prefix}{RUNS}", [*of_trial, *_SCALARS], runs)
    except OSError as error:
        raise UserError(f"cannot write {error.filename} ({error.strerror})") from error


def load(folder: Path, *, kind: type, prefix: str) -> Results:
    """Return what `save` wrote of trials of a kind; nothing if it never did.

    Raises:
        UserError: a file is damaged.
    """
    if not (folder / f"{prefix}{RUNS}").is_file():
        return {}
    try:
        curves: dict[Any, dict[int, float]] = {}
        for row in tables.read(folder / f"{prefix}{CURVES}"):
            curves.setdefault(tables.parse(kind, row), {})[int(row["iteration"])] = float(row["ap"])
        blocks: dict[Any, list[BlockUse]] = {}
        for row in tables.read(folder / f"{prefix}{BLOCKS}"):
            blocks.setdefault(tables.parse(kind, row), []).append(tables.parse(BlockUse, row))
        return {
            (trial := tables.parse(kind, row)): tables.parse(
                Outcome, row, curve=curves[trial], blocks=blocks.get(trial, [])
            )
            for row in tables.read(folder / f"{prefix}{RUNS}")
        }
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the results in {folder} ({error!r})") from error


def values(
    results: Results, group: Group, setting: str = "cpu", measure: str = "ap"
) -> list[float]:
    """Return AP, or another measure of `Outcome`, of a group's trials, in the order of seeds."""
    found = {
        trial.seed: getattr(outcome, measure)
        for trial, outcome in results.items()
        if trial.setting == setting
        and (trial.task, trial.distance, trial.arm) == (group.task, group.distance, group.arm)
    }
    return [found[seed] for seed in sorted(found)]
