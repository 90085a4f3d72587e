"""Pictures of the experiment on keypoints."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nl_detectron.visualization import draw_attention

from ..detector import validation_set
from ..plan import Trial
from ..plots import Line, look_from, plot_ap, show
from ..results import Results
from .plan import PLAN
from .task import FAR, NEAR, SIDES, draw_person
from .trial import draw_of

DIAL = (NEAR, 16, 28, FAR)
"""Distances in pixels."""

SHOWN = Trial(experiment="keypoints", task="match", distance=FAR, arm="head_longer", seed=6)
"""The network in the picture of attention."""

_SEED = 0  # of the examples


def pictures(results: Results, output: Path) -> Iterator[tuple[str, Figure]]:
    """Yield names and pictures; attention only with its network in `output`."""
    yield "examples", plot_examples()
    yield "by_distance", plot_ap(list(_lines(results)), "hat")
    if SHOWN.weights(output).is_file():
        yield "attention", plot_attention(output)


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


def plot_attention(output: Path) -> Figure:
    """Draw the attention of a left glove in each block."""
    person = validation_set(draw_of(SHOWN))[0]
    seen = look_from(PLAN.cfg(SHOWN, output), SHOWN.weights(output), person)
    figure = Figure(figsize=(7, 2), layout="constrained")
    panels = figure.subplots(1, len(seen.attentions))
    for panel, attention in zip(panels, seen.attentions, strict=True):
        image = draw_attention(seen, attention, arrows=1)
        show(panel, image, f"after convolution {attention.block[-1]}")
    return figure
