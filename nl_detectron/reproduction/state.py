"""What a run folder holds: how far a run is, and what came out of it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nl_detectron.model_zoo import METRICS, Results

FINAL_MODEL = "model_final.pth"
METRICS_FILE = "metrics.json"
SETTINGS = "reproduce.json"


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
    """Return what is in the folder of a training, whoever started it; it need not exist.

    A run is finished when there is the final model and nothing was logged after the evaluation.
    """
    opts = _read_opts(folder)
    lines = [line for line in _read_metrics(folder / METRICS_FILE) if "iteration" in line]
    if not lines:
        return State(opts=opts)
    last = max(line["iteration"] for line in lines)
    results: Results = {}
    if (folder / FINAL_MODEL).is_file():
        for line in (line for line in lines if line["iteration"] == last):
            results |= _results(line)
    return State(iteration=int(last), results=results or None, opts=opts)


def read_evaluation(folder: Path) -> State:
    """Return what is in the folder of an evaluation without training; it need not exist."""
    results: Results = {}
    for line in _read_metrics(folder / METRICS_FILE):
        results |= _results(line)
    return State(results=results or None, opts=_read_opts(folder))


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Return what a run was started with, None where that is not known."""
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or cut off while it was written
        return None
    return settings if isinstance(settings, dict) else None


def _read_opts(folder: Path) -> tuple[str, ...] | None:
    settings = read_settings(folder)
    return None if settings is None else tuple(settings["opts"])


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
        if isinstance(values, dict):
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
