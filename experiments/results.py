"""The raw results: three CSV files, written whole after every trial."""

import csv
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

from nl_detectron.errors import UserError

from .hypotheses import Group
from .plan import Trial
from .trial import BlockUse, Outcome

RUNS, CURVES, BLOCKS = "runs.csv", "curves.csv", "blocks.csv"
_TRIAL = [field.name for field in fields(Trial)]
_SCALARS = [f.name for f in fields(Outcome) if f.name not in ("curve", "blocks")]

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
        _write(folder / CURVES, [*_TRIAL, "iteration", "ap"], curves)
        _write(folder / BLOCKS, [*_TRIAL, *(f.name for f in fields(BlockUse))], blocks)
        _write(folder / RUNS, [*_TRIAL, *_SCALARS], runs)
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
        for row in _read(folder / CURVES):
            curves.setdefault(_trial(row), {})[int(row["iteration"])] = float(row["ap"])
        blocks: dict[Trial, list[BlockUse]] = {}
        for row in _read(folder / BLOCKS):
            blocks.setdefault(_trial(row), []).append(_parse(BlockUse, row))
        return {
            (trial := _trial(row)): _parse(
                Outcome, row, curve=curves[trial], blocks=blocks.get(trial, [])
            )
            for row in _read(folder / RUNS)
        }
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the results in {folder} ({error!r})") from error


def _trial(row: Mapping[str, str]) -> Trial:
    return _parse(Trial, row)


def _parse(kind: type, row: Mapping[str, str], **given: Any) -> Any:
    types = get_type_hints(kind)
    read = {f.name: types[f.name](row[f.name]) for f in fields(kind) if f.name not in given}
    return kind(**read, **given)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _write(path: Path, header: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    os.replace(beside, path)


def values(results: Results, group: Group, setting: str = "cpu") -> list[float]:
    """Return the AP of a group's trials, in the order of their seeds."""
    found = {
        trial.seed: outcome.ap
        for trial, outcome in results.items()
        if trial.setting == setting
        and (trial.task, trial.distance, trial.arm) == (group.task, group.distance, group.arm)
    }
    return [found[seed] for seed in sorted(found)]
