"""Clips with two distant objects of the same color or of two colors.

A match is a product between two places: each color is equally frequent in both classes, first or
second, on the left or on the right, and so is each shape, moment and place. A network whose
features do not see both objects, and which sums over its features, can at best answer one half.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..drawing import COLORS, GRAY, NOISE

FRAMES, HEIGHT, WIDTH = 8, 16, 120
SIDE = 8
"""Side of an object in pixels."""

KINDS = ("s", "t", "st")
"""Apart in space within a frame, in time at one place, or in both."""

FAR = 96
"""Pixels between the objects, edge to edge. A feature without a block sees 91."""

_RGB = np.array(tuple(COLORS.values()))
_CROSS = np.zeros((SIDE, SIDE), dtype=bool)
_CROSS[SIDE // 3 : -(SIDE // 3)] = _CROSS[:, SIDE // 3 : -(SIDE // 3)] = True
_SHAPES = (np.ones_like(_CROSS), _CROSS)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question about clips.

    Attributes:
        asks: ``match``: do the colors match? ``shape``: are both objects crosses? They share their
            shape.
        kinds: of the clips, equally frequent.
        gap: pixels between objects that are apart in space.
        lag: frames between objects that are apart in time; None for any frames that C2D's pooling
            over pairs of frames does not join.
    """

    asks: str = "match"
    kinds: tuple[str, ...] = KINDS
    gap: int = FAR
    lag: int | None = None


SPACE_DIAL, TIME_DIAL = (8, 32, 56, 80, FAR), (1, 2, 4, 6)
TASKS = {
    "all": Task(),
    "control": Task(asks="shape"),
    **{f"s_{gap}": Task(kinds=("s",), gap=gap) for gap in SPACE_DIAL},
    **{f"t_{lag}": Task(kinds=("t",), lag=lag) for lag in TIME_DIAL},
}
"""All kinds; all kinds with a local question; one distance in space or in time."""


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips with their labels.

    Attributes:
        frames: uint8 (N, 3, FRAMES, HEIGHT, WIDTH), RGB.
        labels: (N,), 0 or 1.
        kinds: (N,), indices into KINDS.
        places: (N, 2, 3), frame, y and x of both objects' upper left corners.
    """

    frames: Tensor
    labels: NDArray[np.int64]
    kinds: NDArray[np.int64]
    places: NDArray[np.int64]

    def batch(self) -> list[dict]:
        """Return the input of a `VideoClassifier`."""
        return [
            {"clips": clip[None], "labels": [label]}
            for clip, label in zip(self.frames, self.labels.tolist(), strict=True)
        ]


def draw_clips(rng: np.random.Generator, task: Task, count: int) -> Clips:
    """Return clips; labels, kinds and colors take turns.

    Args:
        rng: source of all random numbers.
        task: what to draw.
        count: a multiple of labels times kinds, for equal parts.
    """
    turns = list(product((0, 1), (KINDS.index(kind) for kind in task.kinds)))
    labels, kinds = np.array([turns[i % len(turns)] for i in range(count)]).reshape(-1, 2).T
    places = _places(rng, task, kinds)
    # Colors take turns as well, from a random start: all pairs are equally frequent.
    turn, colors = np.arange(count) // len(turns), len(_RGB)
    first = (turn + rng.integers(colors)) % colors
    apart = 1 + (turn // colors + rng.integers(colors - 1)) % (colors - 1)
    same, shapes = (rng.integers(2, size=count) for _ in range(2))
    if task.asks == "match":
        same = labels
    else:
        shapes = labels
    pairs = np.stack([first, np.where(same == 1, first, (first + apart) % colors)], axis=1)
    frames = rng.integers(NOISE, size=(count, 3, FRAMES, HEIGHT, WIDTH), dtype=np.uint8)
    frames += rng.integers(*GRAY, size=(count, 1, 1, 1, 1), dtype=np.uint8)
    for clip, shape, pair, at in zip(frames, shapes, pairs, places, strict=True):
        for color, (t, y, x) in zip(pair, at, strict=True):
            window = clip[:, t, y : y + SIDE, x : x + SIDE]
            window[:, _SHAPES[shape]] = _RGB[color][:, None]
    return Clips(frames=torch.from_numpy(frames), labels=labels, kinds=kinds, places=places)


def _places(rng: np.random.Generator, task: Task, kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    count = len(kinds)
    in_space, in_time = (
        np.array([axis in KINDS[kind] for kind in kinds], dtype=bool) for axis in ("s", "t")
    )
    left = rng.integers(WIDTH - 2 * SIDE - task.gap + 1, size=count)
    x = np.stack([left, left + SIDE + task.gap], axis=1)
    x = rng.permuted(x, axis=1)  # which object is on the left
    y = rng.integers(HEIGHT - SIDE + 1, size=(count, 2))
    t = _moments(rng, task.lag, count)
    # Apart in time alone: both where the first is. In space alone: both when the first is.
    x[:, 1] = np.where(in_space, x[:, 1], x[:, 0])
    y[:, 1] = np.where(in_space, y[:, 1], y[:, 0])
    t[:, 1] = np.where(in_time, t[:, 1], t[:, 0])
    return np.stack([t, y, x], axis=2)


def _moments(rng: np.random.Generator, lag: int | None, count: int) -> NDArray[np.int64]:
    """Draw pairs of frames: with lag 1 those that the pooling joins, otherwise others."""
    lags = range(1, FRAMES) if lag is None else (lag,)
    every = product(range(FRAMES), repeat=2)
    allowed = [(a, b) for a, b in every if abs(a - b) in lags and (a // 2 == b // 2) == (lag == 1)]
    return rng.permuted(np.array(allowed)[rng.integers(len(allowed), size=count)], axis=1)
