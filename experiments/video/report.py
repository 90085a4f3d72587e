"""Pictures of the experiment on clips."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model
from matplotlib.figure import Figure

from nl_detectron.analysis.attention import compute_clip_attention
from nl_detectron.visualization.clip_drawing import draw_strip

from ..plan import Trial
from ..plots import COLORS, NAMES, Line, add_legend, plot_lines, show
from ..results import Results, select
from .plan import CORE, PLAN
from .task import FRAMES, KINDS, SIDE, SPACE_DIAL, TASKS, TIME_DIAL, draw_clips
from .trial import as_clip, validation_set

SHOWN = Trial(experiment="video", task="all", arm="spacetime_batch", seed=11)
"""The network in the picture of attention."""

_CHANCE: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": ":"}
_ANSWERS = ("different", "the same")
_SEED = 3  # of the examples


def pictures(results: Results, output: Path) -> Iterator[tuple[str, Figure]]:
    """Yield names and pictures; attention only with its network in `output`."""
    yield "examples", plot_examples()
    yield "kinds", plot_kinds(results)
    yield "curves", plot_curves(results)
    yield "dial", plot_dial(results)
    if SHOWN.weights(output).is_file():
        yield "attention", plot_attention(output)


def plot_examples() -> Figure:
    """Draw a clip of each kind, its frames below each other."""
    clips = draw_clips(np.random.default_rng(_SEED), TASKS["all"], 2 * len(KINDS))
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    panels = figure.subplots(FRAMES, len(KINDS))
    for column, kind in enumerate(KINDS):
        index = int(np.flatnonzero(clips.kinds == column)[column % 2])
        for frame, panel in enumerate(panels[:, column]):
            title = f"{kind}: {_ANSWERS[clips.labels[index]]}" if frame == 0 else ""
            show(panel, clips.frames[index, :, frame].permute(1, 2, 0).numpy(), title)
    return figure


def plot_kinds(results: Results) -> Figure:
    """Draw the accuracy on each kind of clip; bars are means, dots are seeds."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panel = figure.subplots()
    for number, arm in enumerate(CORE):
        found = [results.values("accuracy", arm=f"{arm}_batch", kind=kind) for kind in KINDS]
        found.append(results.values("accuracy", arm=arm, kind="control"))
        for place, values in enumerate(found):
            x, label = place + 0.2 * (number - 1.5), NAMES[arm] if place == 0 else None
            height = np.mean(values) if values else 0
            panel.bar(x, height, 0.18, color=COLORS[arm], alpha=0.6, label=label)
            panel.plot([x] * len(values), values, ".", color="black", markersize=4)
    panel.set_xticks(range(4), ["apart in space", "in time", "in both", "control"])
    panel.axhline(50, **_CHANCE)
    panel.set(ylim=(30, 102), ylabel="accuracy, %")
    add_legend(figure, panel, columns=4)
    return figure


def plot_curves(results: Results) -> Figure:
    """Draw the cross-entropy on the validation set against iterations; a line is a seed."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    shown = (("all", "_batch", "matching"), ("control", "", "control"))
    for panel, (kind, schedule, title) in zip(panels, shown, strict=True):
        for arm in CORE:
            panel.plot([], [], color=COLORS[arm], label=NAMES[arm])  # for the legend
            curves = select(results.curves, arm=arm + schedule, kind=kind)
            for _, curve in curves.groupby("seed") if len(curves) else ():
                panel.plot(curve.iteration, curve.cross_entropy, color=COLORS[arm], alpha=0.7)
        panel.axhline(np.log(2), **_CHANCE)
        panel.set(title=title, xlabel="iterations")
    panels[0].set_ylabel("cross-entropy on the validation set")
    add_legend(figure, panels[0], columns=4)
    return figure


def plot_dial(results: Results) -> Figure:
    """Draw accuracy against the distance in space and in time."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    dials = (
        ("s", SPACE_DIAL, "pixels between the objects"),
        ("t", TIME_DIAL, "frames between them"),
    )
    for panel, (axis, distances, label) in zip(panels, dials, strict=True):
        for arm in ("none", "spacetime"):
            kinds = {d: f"{axis}_{d}" for d in distances}
            values = {
                d: results.values("accuracy", arm=arm, kind=kind) for d, kind in kinds.items()
            }
            plot_lines(panel, [Line(arm=arm, values=values)])
        panel.axhline(50, **_CHANCE)
        panel.set_xlabel(label)
    panels[0].set_ylabel("accuracy, %")
    add_legend(figure, panels[0], columns=2)
    return figure


def plot_attention(output: Path) -> Figure:
    """Draw the attention of two objects that are apart in space and time, and match."""
    model = build_model(PLAN.cfg(SHOWN, output)).eval()
    model.load_state_dict(torch.load(SHOWN.weights(output), weights_only=True)["model"])
    val = validation_set(SHOWN.task)
    index = int(np.flatnonzero((val.kinds == KINDS.index("st")) & (val.labels == 1))[0])
    seen = compute_clip_attention(model, as_clip(val, index), class_names=_ANSWERS)
    rows = []
    for t, y, x in val.places[index].tolist():
        rows += seen.attend(seen.clip.point(t, x + SIDE / 2, y + SIDE / 2))
    return draw_strip(seen, rows)
