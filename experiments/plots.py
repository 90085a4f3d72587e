"""The images of ``docs/experiments.md``: one for all experiments, and those of the panoramas."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from nl_detectron.data.relational import CLASSES, draw_panorama

from .hypotheses import Group
from .plan import FAR, LABELS, METRIC
from .results import Results, values
from .statistics import Interval, mean

OF = {"crates": "box", "walkers": "keypoint"}
_SEED = 5  # of the examples; any will do
_ANSWERS = {"crates": CLASSES["crates"], "walkers": ("seen from behind", "facing us")}


def plot_arms(found: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Draw a row for each arm: its mean, and its seeds as dots.

    Args:
        found: of each seed, by the arm's name.
        label: what `found` is.
    """
    figure = Figure(figsize=(7, 0.9 + 0.27 * len(found)), layout="constrained")
    panel = figure.subplots()
    for row, seeds in enumerate(found.values()):
        panel.plot([mean(seeds).estimate] * 2, [row - 0.3, row + 0.3], color="C0")
        panel.plot(seeds, [row] * len(seeds), ".", color="C0", alpha=0.5)
    panel.set_yticks(range(len(found)), list(found), fontsize=8)
    panel.invert_yaxis()
    panel.set_xlim(right=102)
    panel.set_xlabel(label)
    panel.grid(axis="x", alpha=0.3)
    return figure


def plot_examples() -> Figure:
    """Draw two panoramas of each task, one with the cue at the thing and one far from it."""
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    panels = iter(figure.subplots(4, 1))
    for task in METRIC:
        for distance, answer in ((0, 0), (FAR, 1)):
            panel = next(panels)
            rng = np.random.default_rng(_SEED)
            panel.imshow(draw_panorama(rng, task, distance, answer).image)
            panel.set_title(f"{task}, cue {distance} pixels away: {_ANSWERS[task][answer]}")
            panel.set_axis_off()
    return figure


def plot_distance(results: Results) -> Figure:
    """Draw AP against the distance of the cue, a panel for each task."""
    arms = {"crates": ("baseline", "res4"), "walkers": ("baseline", "res4", "head")}
    figure, panels = _panels(results)
    for task, panel in panels.items():
        for arm in arms[task]:
            points = _by_distance(results, task, arm)
            centers = [interval.estimate for interval in points.values()]
            below = [interval.estimate - interval.low for interval in points.values()]
            panel.errorbar(
                list(points), centers, yerr=below, marker="o", capsize=4, label=LABELS[arm]
            )
        _finish(panel, task, "distance of the cue, pixels", list(points))
    return figure


def _panels(results: Results) -> tuple[Figure, dict]:
    """Return a figure with a panel for each task of which there are results."""
    tasks = [task for task in METRIC if any(t.task == task for t in results)]
    figure = Figure(figsize=(5.5 * len(tasks), 4), layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    return figure, dict(zip(tasks, panels, strict=True))


def _by_distance(results: Results, task: str, arm: str) -> dict[int, Interval]:
    distances = sorted({t.distance for t in results if (t.task, t.arm) == (task, arm)})
    groups = (Group(task=task, distance=distance, arm=arm) for distance in distances)
    return {group.distance: mean(values(results, group)) for group in groups}


def plot_iteration(results: Results) -> Figure:
    """Draw AP against iterations far from the cue, a panel for each task."""
    arms = {
        "crates": ("baseline", "wider", "res4", "dot_product"),
        "walkers": ("baseline", "head", "res4", "head_res4"),
    }
    figure, panels = _panels(results)
    for task, panel in panels.items():
        for arm in arms[task]:
            curves = [
                outcome.curve
                for t, outcome in results.items()
                if (t.setting, t.task, t.distance, t.arm) == ("cpu", task, FAR, arm)
            ]
            if not curves:
                continue
            iterations = sorted(curves[0])
            means = [mean([curve[i] for curve in curves]) for i in iterations]
            (line,) = panel.plot(
                iterations, [m.estimate for m in means], marker="o", label=LABELS[arm]
            )
            panel.fill_between(
                iterations,
                [m.low for m in means],
                [m.high for m in means],
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
        _finish(panel, task, f"iterations, cue {FAR} pixels away", [])
    return figure


def _finish(panel, task: str, x: str, ticks: Sequence[int]) -> None:
    panel.set_title(task)
    panel.set_xlabel(x)
    if ticks:
        panel.set_xticks(ticks)
    panel.set_ylabel(f"{OF[task]} AP")
    panel.set_ylim(0, 100)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
