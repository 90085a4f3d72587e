"""Pictures of the experiment on keypoints."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ..plots import Line, plot_ap, show
from ..results import Results
from .task import FAR, NEAR, SIDES, draw_person

DIAL = (NEAR, 16, 28, FAR)
"""Distances in pixels."""

_SEED = 0  # of the examples


def pictures(results: Results, output: Path) -> Iterator[tuple[str, Figure]]:
    """Yield names and pictures."""
    yield "examples", plot_examples()
    yield "by_distance", plot_ap(list(_lines(results)), "hat")


def _lines(results: Results) -> Iterator[Line]:
    """Yield both heads with the hat in the first row, as it always is far away, and in any row."""
    for arm in ("none", "head"):
        tasks = dict.fromkeys(DIAL[:-1], "first_row") | {FAR: "match"}
        longer = {
            d: results.values("AP", task=task, distance=d, arm=f"{arm}_longer")
            for d, task in tasks.items()
        }
        values = {d: results.values("AP", task="match", distance=d, arm=arm) for d in DIAL}
        yield Line(arm=arm, values=longer, note=", hat in the first row")
        yield Line(arm=arm, values=values, note=", in any row", style="--")


def plot_examples() -> Figure:
    """Draw people with their left and right, by the distance of the hat."""
    rng = np.random.default_rng(_SEED)
    figure = Figure(figsize=(7, 2), layout="constrained")
    for panel, distance in zip(figure.subplots(1, 5), (FAR, *reversed(DIAL)), strict=True):
        person = draw_person(rng, distance)
        show(panel, person.image, f"{distance} pixels")
        assert person.keypoints is not None
        for (x, y, _), side in zip(person.keypoints[0, SIDES].tolist(), "LR", strict=True):
            panel.text(x, y, side, ha="center", va="center_baseline", fontsize=7, weight="bold")
    return figure
