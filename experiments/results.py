"""The raw results: three CSV files, written whole after every trial."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from nl_detectron.errors import UserError

from . import tables
from .hypotheses import Group
from .plan import Trial
from .trial import BlockUse, Outcome

RUNS, CURVES, BLOCKS = "runs.csv", "curves.csv", "blocks.csv"
_TRIAL = tables.names(Trial)
_SCALARS = [name for name in tables.names(Outcome) if name not in ("curve", "blocks")]

Results = dict[Trial, Outcome]


def save(folder: Path, results: Mapping[Trial, Outcome]) -> None:
    """Write `results` into `folder`, sorted; a file is there whole or as it was.

    Raises:
        UserError: the folder cannot be written.
    """
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
        tables.write(folder / CURVES, [*_TRIAL, "iteration", "ap"], curves)
        tables.write(folder / BLOCKS, [*_TRIAL, *tables.names(BlockUse)], blocks)
        tables.write(folder / RUNS, [*_TRIAL, *_SCALARS], runs)
    except OSError as error:
        raise UserError(f"cannot write {error.filename} ({error.strerror})") from error


def load(folder: Path) -> Results:
    """Return what `save` wrote; nothing if it never did.

    Raises:
        UserError: a file is damaged.
    """
    if not (folder / RUNS).is_file():
        return {}
    try:
        curves: dict[Trial, dict[int, float]] = {}
        for row in tables.read(folder / CURVES):
            curves.setdefault(_trial(row), {})[int(row["iteration"])] = float(row["ap"])
        blocks: dict[Trial, list[BlockUse]] = {}
        for row in tables.read(folder / BLOCKS):
            blocks.setdefault(_trial(row), []).append(tables.parse(BlockUse, row))
        return {
            (trial := _trial(row)): tables.parse(
                Outcome, row, curve=curves[trial], blocks=blocks.get(trial, [])
            )
            for row in tables.read(folder / RUNS)
        }
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the results in {folder} ({error!r})") from error


def _trial(row: Mapping[str, str]) -> Trial:
    return tables.parse(Trial, row)


def values(results: Results, group: Group, setting: str = "cpu") -> list[float]:
    """Return the AP of a group's trials, in the order of their seeds."""
    found = {
        trial.seed: outcome.ap
        for trial, outcome in results.items()
        if trial.setting == setting
        and (trial.task, trial.distance, trial.arm) == (group.task, group.distance, group.arm)
    }
    return [found[seed] for seed in sorted(found)]
