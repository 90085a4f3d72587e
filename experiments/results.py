"""Results of trials: two CSV files for each experiment."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from .plan import Trial

_PARTS: Mapping[str, Sequence[str]] = {"": (), "_curves": ("iteration",)}
"""Endings of the files' names, with what tells a trial's rows apart."""


class Outcome(NamedTuple):
    """Rows that a trial adds, without the columns of its `Trial.key`.

    Attributes:
        runs: measured values after training.
        curves: the same during training, by iteration.
    """

    runs: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]


class Results(NamedTuple):
    """Rows of all trials of an experiment, in the parts of an `Outcome`."""

    runs: pd.DataFrame
    curves: pd.DataFrame

    def trials(self, experiment: str) -> list[Trial]:
        """Return the trials that have been run."""
        rows = self.curves.rename(columns={"kind": "task"})
        rows = rows.reindex(columns=["task", "distance", "arm", "seed"]).drop_duplicates()
        return [
            Trial(
                experiment=experiment,
                task=row.task,
                distance=None if pd.isna(row.distance) else int(row.distance),
                arm=row.arm,
                seed=int(row.seed),
            )
            for row in rows.itertuples()
        ]

    def values(self, column: str, **key: Any) -> list[float]:
        """Return a column of the runs with the given `Trial.key`, by seed."""
        rows = self.runs
        for name, value in key.items():
            rows = rows[rows[name] == value] if len(rows) else rows
        return rows.sort_values("seed")[column].tolist() if len(rows) else []


def load(folder: Path, experiment: str) -> Results:
    """Return the results in `folder`; empty tables if there are none."""
    paths = [folder / f"{experiment}{part}.csv" for part in _PARTS]
    return Results(*(pd.read_csv(p) if p.is_file() else pd.DataFrame() for p in paths))


def add(folder: Path, trial: Trial, outcome: Outcome) -> None:
    """Add the rows of a trial to the files in `folder`, in place of earlier ones."""
    folder.mkdir(parents=True, exist_ok=True)
    known = load(folder, trial.experiment)
    for (part, within), table, rows in zip(_PARTS.items(), known, outcome, strict=True):
        new = pd.DataFrame([{**trial.key, **row} for row in rows])
        key = [*trial.key, *within]
        frame = pd.concat([table, new]).drop_duplicates(key, keep="last").sort_values(key)
        path = folder / f"{trial.experiment}{part}.csv"
        frame.to_csv(path.with_suffix(".tmp"), index=False, float_format="%.6g")
        os.replace(path.with_suffix(".tmp"), path)
