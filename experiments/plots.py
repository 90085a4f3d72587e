"""Pictures of the experiments: examples of the data, and AP by distance."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from . import boxes, keypoints, video
from .results import Results

NAMES = {
    "none": "no block",
    "spacetime": "spacetime block",
    "space": "block in space only",
    "time": "block in time only",
    "block": "1 block in res4",
    "head": "4 blocks in the head",
    "wider": "no block, wider",
}
COLORS = {"none": "C7", "block": "C0", "head": "C0", "wider": "C1"}


Line = tuple[str, str, str, Mapping[int, Sequence[float]]]
"""An arm, a note for the legend, a style, and the values of its seeds by distance."""


def pictures(results: Mapping[str, Results]) -> Iterator[tuple[str, Figure]]:
    """Yield names and pictures."""
    yield "video_examples", plot_clips()
    yield "boxes_examples", plot_boxes()
    yield "boxes_by_distance", plot_ap(_lines_of_boxes(results["boxes"]), "sign")
    yield "keypoints_examples", plot_people()
    yield "keypoints_by_distance", plot_ap(_lines_of_keypoints(results["keypoints"]), "hat")


def plot_clips() -> Figure:
    """Draw a clip of each kind, its frames below each other."""
    kinds = video.KINDS
    clips = video.draw_clips(np.random.default_rng(3), video.TASKS["all"], 2 * len(kinds))
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    panels = figure.subplots(video.FRAMES, len(kinds))
    for column, kind in enumerate(kinds):
        index = int(np.flatnonzero(clips.kinds == column)[column % 2])
        answer = ("different", "the same")[clips.labels[index]]
        for frame, panel in enumerate(panels[:, column]):
            title = f"{kind}: {answer}" if frame == 0 else ""
            show(panel, clips.frames[index, :, frame].permute(1, 2, 0).numpy(), title)
    return figure


def plot_boxes() -> Figure:
    """Draw panoramas with their classes, far from the sign and near it, alone and among rings."""
    rng = np.random.default_rng(0)
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    shown = product(("match", "among"), (boxes.FAR, boxes.NEAR))
    for panel, (task, distance) in zip(figure.subplots(4, 1), shown, strict=True):
        scene = boxes.draw_scene(rng, task, distance)
        show(panel, scene.image, f"{distance} pixels: {boxes.CLASSES[scene.classes[0]]}")
    return figure


def plot_people() -> Figure:
    """Draw people with their left and right, by the distance of the hat."""
    rng = np.random.default_rng(0)
    figure = Figure(figsize=(7, 2), layout="constrained")
    distances = (keypoints.FAR, *reversed(keypoints.DIAL))
    for panel, distance in zip(figure.subplots(1, 5), distances, strict=True):
        person = keypoints.draw_person(rng, distance)
        show(panel, person.image, f"{distance} pixels")
        assert person.keypoints is not None
        sides = person.keypoints[0, keypoints.SIDES].tolist()
        for (x, y, _), side in zip(sides, "LR", strict=True):
            panel.text(x, y, side, ha="center", va="center_baseline", fontsize=7, weight="bold")
    return figure


def _lines_of_boxes(results: Results) -> Iterator[Line]:
    for (task, note, style), arm in product(
        (("match", "", "-"), ("among", ", among rings", "--")), ("none", "block", "wider")
    ):
        values = {d: results.values("AP", task=task, distance=d, arm=arm) for d in boxes.DIAL}
        yield arm, note, style, values


def _lines_of_keypoints(results: Results) -> Iterator[Line]:
    """Yield both heads with the hat in the first row, as it always is far away, and in any row."""
    dial = keypoints.DIAL
    tasks = dict.fromkeys(dial[:-1], "first_row") | {keypoints.FAR: "match"}
    for arm in ("none", "head"):
        longer = {
            d: results.values("AP", task=task, distance=d, arm=f"{arm}_longer")
            for d, task in tasks.items()
        }
        values = {d: results.values("AP", task="match", distance=d, arm=arm) for d in dial}
        yield arm, ", hat in the first row", "-", longer
        yield arm, ", in any row", "--", values


def plot_ap(lines: Iterator[Line], cue: str) -> Figure:
    """Draw AP against the distance of the cue: means as lines, seeds as dots."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    panel = figure.subplots()
    for arm, note, style, by_distance in lines:
        color, label = COLORS[arm], NAMES[arm] + note
        found = {distance: values for distance, values in by_distance.items() if values}
        means = [np.mean(values) for values in found.values()]
        panel.plot(list(found), means, style, marker="o", color=color, label=label)
        for distance, values in found.items():
            panel.plot([distance] * len(values), values, ".", color=color, alpha=0.5)
    panel.set(xlabel=f"pixels to the {cue}", ylabel="AP, %", ylim=(0, 102))
    figure.legend(fontsize=8, ncols=2, loc="outside lower center")
    return figure


def show(panel: Axes, image: NDArray[np.uint8], title: str = "") -> None:
    panel.imshow(image)
    panel.set_title(title, fontsize=9)
    panel.set_axis_off()
