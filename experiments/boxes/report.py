"""Pictures of the experiment on boxes."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nl_detectron.visualization import draw_attention

from ..detector import validation_set
from ..plan import Trial
from ..plots import Line, look_from, plot_ap, show
from ..results import Results
from .plan import PLAN
from .task import CLASSES, FAR, NEAR, draw_scene
from .trial import draw_of

DIAL = (NEAR, 64, 128, FAR)
"""Distances in pixels."""

SHOWN = Trial(experiment="boxes", task="among", distance=FAR, arm="block", seed=6)
"""The network in the picture of attention."""

_SEED = 0  # of the examples


def pictures(results: Results, output: Path) -> Iterator[tuple[str, Figure]]:
    """Yield names and pictures; attention only with its network in `output`."""
    yield "examples", plot_examples()
    yield "by_distance", plot_ap(list(_lines(results)), "sign")
    if SHOWN.weights(output).is_file():
        yield "attention", plot_attention(output)


def _lines(results: Results) -> Iterator[Line]:
    for (task, note, style), arm in product(
        (("match", "", "-"), ("among", ", among rings", "--")), ("none", "block", "wider")
    ):
        values = {d: results.values("AP", task=task, distance=d, arm=arm) for d in DIAL}
        yield Line(arm=arm, values=values, note=note, style=style)


def plot_examples() -> Figure:
    """Draw panoramas with their classes, far from the sign and near it, alone and among rings."""
    rng = np.random.default_rng(_SEED)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    shown = product(("match", "among"), (FAR, NEAR))
    for panel, (task, distance) in zip(figure.subplots(4, 1), shown, strict=True):
        scene = draw_scene(rng, task, distance)
        show(panel, scene.image, f"{distance} pixels: {CLASSES[scene.classes[0]]}")
    return figure


def plot_attention(output: Path) -> Figure:
    """Draw the attention of a matched square and of one alone."""
    scenes = validation_set(draw_of(SHOWN))
    figure = Figure(figsize=(7, 1.9), layout="constrained")
    for matched, panel in zip((1, 0), figure.subplots(2, 1), strict=True):
        scene = next(scene for scene in scenes if scene.classes[0] % 2 == matched)
        seen = look_from(PLAN.cfg(SHOWN, output), SHOWN.weights(output), scene)
        show(panel, draw_attention(seen, seen.attentions[0]), CLASSES[scene.classes[0]])
    return figure
