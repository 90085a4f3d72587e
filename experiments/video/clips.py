"""Clips in which two objects, far apart in space, in time or in both, are of one colour or of two.

Whether they match is a product between two places: every colour is equally frequent in both
classes, first or second, at the left or at the right, and so is every shape, moment and place. So
a network none of whose features sees both objects, and which sums over its features, can at best
answer one half for any clip.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRAMES, HEIGHT, WIDTH = 8, 16, 120
SIDE = 8
"""Of an object, in pixels."""

COLORS = ((220, 40, 40), (40, 220, 40), (40, 40, 220), (220, 220, 220))
SHAPES = ("square", "cross")

KINDS = ("s", "t", "st")
"""Apart in space within a frame, in time at one place, or in both."""

RECEPTIVE_FIELD = 91
"""Of a feature of the network without a block, in pixels."""

FAR = 96
"""Pixels between the objects, from edge to edge: more than any feature sees."""

_GRAY = (90, 150)  # of the background; a clip has one
_NOISE = 24  # levels of each pixel's noise


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked about which clips.

    Attributes:
        asks: ``match``: are the colours the same? ``shape``: are the objects crosses? They share
            their shape, which each of them shows.
        kinds: of the clips, in equal parts.
        gap: pixels between objects that are apart in space.
        lag: frames between objects that are apart in time; None for any frames that C2D's pooling
            over two consecutive frames does not join.
    """

    asks: str = "match"
    kinds: tuple[str, ...] = KINDS
    gap: int = FAR
    lag: int | None = None


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips with their answers.

    Attributes:
        frames: uint8 (N, 3, FRAMES, HEIGHT, WIDTH), RGB.
        labels: (N,), 0 or 1.
        kinds: (N,), indices into KINDS.
        places: (N, 2, 3), frame, y and x of the upper left corner of the first and the second
            object.
    """

    frames: Tensor
    labels: NDArray[np.int64]
    kinds: NDArray[np.int64]
    places: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, start: int, stop: int) -> list[dict]:
        """What `VideoClassifier` takes."""
        return [
            {"clips": self.frames[i : i + 1], "labels": [int(self.labels[i])]}
            for i in range(start, min(stop, len(self)))
        ]


def draw_clips(rng: np.random.Generator, task: Task, count: int) -> Clips:
    """Return `count` clips; labels, kinds and colours take turns.

    Raises:
        ValueError: kinds and labels do not come out even, or objects do not fit.
    """
    turns = list(product((0, 1), (KINDS.index(kind) for kind in task.kinds)))
    if count % len(turns):
        raise ValueError(f"count is {count}; allowed: multiples of {len(turns)}")
    labels, kinds = np.array([turns[i % len(turns)] for i in range(count)]).reshape(-1, 2).T
    places = _places(rng, task, kinds)
    # Colours take turns as well, from a random start: all pairs are equally frequent.
    turn, colors = np.arange(count) // len(turns), len(COLORS)
    first = (turn + rng.integers(colors)) % colors
    apart = 1 + (turn // colors + rng.integers(colors - 1)) % (colors - 1)
    same, shapes = (rng.integers(2, size=count) for _ in range(2))
    if task.asks == "match":
        same = labels
    else:
        shapes = labels
    pairs = np.stack([first, np.where(same == 1, first, (first + apart) % colors)], axis=1)
    frames = rng.integers(_NOISE, size=(count, 3, FRAMES, HEIGHT, WIDTH), dtype=np.uint8)
    frames += rng.integers(*_GRAY, size=(count, 1, 1, 1, 1), dtype=np.uint8)
    for clip, shape, pair, at in zip(frames, shapes, pairs, places, strict=True):
        for color, (t, y, x) in zip(pair, at, strict=True):
            window = clip[:, t, y : y + SIDE, x : x + SIDE]
            window[:, _MASKS[SHAPES[shape]]] = np.reshape(COLORS[color], (3, 1))
    return Clips(frames=torch.from_numpy(frames), labels=labels, kinds=kinds, places=places)


def _mask(shape: str) -> NDArray[np.bool_]:
    mask = np.ones((SIDE, SIDE), dtype=bool)
    if shape == "cross":
        third = SIDE // 3
        for rows in (slice(0, third), slice(-third, None)):
            for columns in (slice(0, third), slice(-third, None)):
                mask[rows, columns] = False
    return mask


_MASKS = {shape: _mask(shape) for shape in SHAPES}


def _places(rng: np.random.Generator, task: Task, kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    count = len(kinds)
    room = WIDTH - 2 * SIDE - task.gap
    if room < 0:
        raise ValueError(f"gap is {task.gap}; allowed: 0 to {WIDTH - 2 * SIDE}")
    in_space, in_time = (
        np.array([axis in KINDS[kind] for kind in kinds], dtype=bool) for axis in ("s", "t")
    )
    left = rng.integers(room + 1, size=count)
    x = np.stack([left, left + SIDE + task.gap], axis=1)
    x = rng.permuted(x, axis=1)  # which object is at the left
    y = rng.integers(HEIGHT - SIDE + 1, size=(count, 2))
    t = _moments(rng, task.lag, count)
    # Apart in time alone: both where the first is. In space alone: both when the first is.
    x[:, 1] = np.where(in_space, x[:, 1], x[:, 0])
    y[:, 1] = np.where(in_space, y[:, 1], y[:, 0])
    t[:, 1] = np.where(in_time, t[:, 1], t[:, 0])
    return np.stack([t, y, x], axis=2)


def _moments(rng: np.random.Generator, lag: int | None, count: int) -> NDArray[np.int64]:
    every = list(product(range(FRAMES), repeat=2))
    if lag is None:
        allowed = [(a, b) for a, b in every if a // 2 != b // 2]
    elif lag == 1:  # all in frames that the pooling joins
        allowed = [(a, b) for a, b in every if a != b and a // 2 == b // 2]
    else:
        allowed = [(a, b) for a, b in every if abs(a - b) == lag]
    return rng.permuted(np.array(allowed)[rng.integers(len(allowed), size=count)], axis=1)
