"""The images of ``docs/experiments.md`` about clips."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.modeling import build_model
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nl_detectron.visualization.clip_attention import look_at_clip
from nl_detectron.visualization.clip_drawing import draw_strip

from ..plots import plot_arms
from ..statistics import mean
from .clips import FRAMES, KINDS, SIDE, Task, draw_clips
from .plan import CORE, LABELS, LARGER_BATCH, LATEST_SEEDS, SPACE_DIAL, TIME_DIAL, VideoTrial
from .results import VideoResults, values
from .trial import as_clip, validation_set

CHANCE = {"accuracy": 50.0, "cross_entropy": float(np.log(2))}
_SEED = 3  # of the examples; any will do
_COLORS = {"none": "C7", "spacetime": "C0", "space": "C1", "time": "C2"}


def plot_examples() -> Figure:
    """Draw a clip of each kind, its frames below each other in two columns."""
    clips = draw_clips(np.random.default_rng(_SEED), Task(), 2 * len(KINDS))
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    panels = figure.subplots(FRAMES, len(KINDS))
    for column, kind in enumerate(KINDS):
        index = int(np.flatnonzero(clips.kinds == column)[column % 2])
        answer = ("different", "the same")[clips.labels[index]]
        for frame, panel in enumerate(panels[:, column]):
            panel.imshow(clips.frames[index, :, frame].permute(1, 2, 0).numpy())
            panel.set_axis_off()
        panels[0, column].set_title(f"{kind}: {answer}", fontsize=9)
    return figure


def plot_kinds(results: VideoResults) -> Figure:
    """Draw the accuracy of the four arms on each kind of clip; dots are seeds."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panel = figure.subplots()
    groups = (*KINDS, "control")
    for number, arm in enumerate(CORE):
        found = [values(results, arm=LARGER_BATCH[arm], kind=kind) for kind in KINDS]
        found.append(values(results, arm=arm, kind="control"))
        at = np.arange(len(groups)) + 0.2 * (number - 1.5)
        heights = [mean(of_kind).estimate if of_kind else 0 for of_kind in found]
        panel.bar(at, heights, 0.18, color=_COLORS[arm], alpha=0.6, label=LABELS[arm])
        for place, of_kind in zip(at, found, strict=True):
            panel.plot([place] * len(of_kind), of_kind, ".", color="black", markersize=4)
    panel.set_xticks(range(len(groups)), ["apart in space", "in time", "in both", "control"])
    panel.axhline(CHANCE["accuracy"], color="black", linewidth=0.8, linestyle=":")
    panel.set_ylim(30, 102)
    panel.set_ylabel("accuracy, %")
    _legend(figure, panel)
    return figure


def plot_curves(results: VideoResults) -> Figure:
    """Draw the cross-entropy on the validation set against iterations; a line is a seed."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    arms_of = {"matching": LARGER_BATCH, "control": {arm: arm for arm in CORE}}
    for panel, (task, arms) in zip(panels, arms_of.items(), strict=True):
        for arm, trained in arms.items():
            panel.plot([], [], color=_COLORS[arm], label=LABELS[arm])  # for the legend
            for t, outcome in results.items():
                if (t.setting, t.task, t.arm) == ("cpu", task, trained):
                    losses = [score.cross_entropy for score in outcome.curve.values()]
                    panel.plot(list(outcome.curve), losses, color=_COLORS[arm], alpha=0.7)
        panel.axhline(CHANCE["cross_entropy"], color="black", linewidth=0.8, linestyle=":")
        panel.set_title(task)
        panel.set_xlabel("iterations")
    panels[0].set_ylabel("cross-entropy on the validation set")
    _legend(figure, panels[0])
    return figure


def _legend(figure: Figure, panel: Axes) -> None:
    """Say below the panels what is drawn in one of them, and so in all."""
    figure.legend(
        *panel.get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside lower center"
    )


def plot_networks(results: VideoResults) -> Figure:
    """Draw the accuracy of every network that was trained on clips of all kinds."""
    found = {label: values(results, arm=arm, kind="all") for arm, label in LABELS.items()}
    return plot_arms({label: of for label, of in found.items() if of}, "accuracy, %")


def plot_dial(results: VideoResults) -> Figure | None:
    """Draw accuracy against the distance in space and in time; None without such trials."""
    tasks = {trial.task for trial in results}
    every = ((SPACE_DIAL, "pixels between the objects"), (TIME_DIAL, "frames between them"))
    dials = [(dial, label) for dial, label in every if tasks & set(dial)]
    if not dials:
        return None
    figure = Figure(figsize=(4 * len(dials), 3.6), layout="constrained")
    panels = figure.subplots(1, len(dials), sharey=True, squeeze=False)[0]
    for panel, (dial, label) in zip(panels, dials, strict=True):
        for arm in ("none", "spacetime"):
            _plot_along(panel, results, list(dial), arm)
        panel.axhline(CHANCE["accuracy"], color="black", linewidth=0.8, linestyle=":")
        panel.set_xlabel(label)
    panels[0].set_ylabel("accuracy, %")
    _legend(figure, panels[0])
    return figure


def _plot_along(panel, results: VideoResults, tasks: Sequence[str], arm: str) -> None:
    found = {int(task[2:]): values(results, arm=arm, kind=task) for task in tasks}
    found = {distance: of_seeds for distance, of_seeds in found.items() if of_seeds}
    means = [mean(of_seeds).estimate for of_seeds in found.values()]
    panel.plot(list(found), means, marker="o", color=_COLORS[arm], label=LABELS[arm])
    for distance, of_seeds in found.items():
        panel.plot([distance] * len(of_seeds), of_seeds, ".", color=_COLORS[arm], alpha=0.5)


def plot_attention(output: Path) -> Figure | None:
    """Draw where both objects attend, in the first clip of the validation set in which they are
    apart in both and match; None if the network's weights are not under `output`."""
    arm, seed = LARGER_BATCH["spacetime"], LATEST_SEEDS[0]
    trial = VideoTrial(setting="cpu", task="matching", arm=arm, seed=seed)
    if not trial.weights(output).is_file():
        return None
    model = build_model(trial.config(output)).eval()
    model.load_state_dict(torch.load(trial.weights(output), weights_only=True)["model"])
    val = validation_set(trial.task)
    index = int(np.flatnonzero((val.kinds == KINDS.index("st")) & (val.labels == 1))[0])
    look = look_at_clip(model, as_clip(val, index), class_names=("different", "the same"))
    rows = []
    for t, y, x in val.places[index].tolist():
        rows += look.attend(look.clip.point(t, x + SIDE / 2, y + SIDE / 2))
    return draw_strip(look, rows)


def save_all(results: VideoResults, folder: Path, output: Path) -> dict[str, str]:
    """Write the images into `folder`; return their files' names by what they show.

    One whose network is not under `output` is left as it is.
    """
    figures = {
        "examples": plot_examples(),
        "kinds": plot_kinds(results),
        "curves": plot_curves(results),
        "dial": plot_dial(results),
        "networks": plot_networks(results),
        "attention": plot_attention(output),
    }
    names = {}
    for what, figure in figures.items():
        name = f"video_{what}.png"
        if figure is not None:
            figure.savefig(folder / name, dpi=110)
        if (folder / name).is_file():
            names[what] = name
    return names
