"""Pictures that several experiments have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nl_detectron.analysis.attention import ImageAttention, compute_attention
from nl_detectron.engine.predictor import Predictor

from .drawing import Scene

NAMES = {
    "none": "no block",
    "spacetime": "spacetime block",
    "space": "block in space only",
    "time": "block in time only",
    "block": "1 block in res4",
    "head": "4 blocks in the head",
    "wider": "no block, wider",
}
COLORS = {
    "none": "C7",
    **dict.fromkeys(("spacetime", "block", "head"), "C0"),
    **dict.fromkeys(("space", "wider"), "C1"),
    "time": "C2",
}


@dataclass(frozen=True, kw_only=True)
class Line:
    """Values of an arm's seeds, by distance."""

    arm: str
    values: Mapping[int, Sequence[float]]
    note: str = ""
    style: str = "-"


def plot_lines(panel: Axes, lines: Sequence[Line]) -> None:
    """Draw means as lines and seeds as dots."""
    for line in lines:
        color, label = COLORS[line.arm], NAMES[line.arm] + line.note
        found = {distance: values for distance, values in line.values.items() if values}
        means = [np.mean(values) for values in found.values()]
        panel.plot(list(found), means, line.style, marker="o", color=color, label=label)
        for distance, values in found.items():
            panel.plot([distance] * len(values), values, ".", color=color, alpha=0.5)


def plot_ap(lines: Sequence[Line], cue: str) -> Figure:
    """Draw AP against the distance of the cue."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    panel = figure.subplots()
    plot_lines(panel, lines)
    panel.set(xlabel=f"pixels to the {cue}", ylabel="AP, %", ylim=(0, 102))
    add_legend(figure, panel, columns=2)
    return figure


def show(panel: Axes, image: NDArray[np.uint8], title: str = "") -> None:
    panel.imshow(image)
    panel.set_title(title, fontsize=9)
    panel.set_axis_off()


def add_legend(figure: Figure, panel: Axes, *, columns: int) -> None:
    """Add the legend of one panel below all panels."""
    figure.legend(
        *panel.get_legend_handles_labels(), fontsize=8, ncols=columns, loc="outside lower center"
    )


def look_from(cfg: CfgNode, weights: Path, scene: Scene) -> ImageAttention:
    """Return the attention from the point that `scene` asks about."""
    seen = compute_attention(Predictor(cfg, weights=weights), scene.image, points=[scene.point])
    return replace(seen, image=scene.image)  # `compute_attention` takes the colors for BGR
