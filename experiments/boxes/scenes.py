"""Panoramas in which a square, far from a cross, is or is not of the cross's colour.

Whether they match is a product between two places: every colour is equally frequent in both, at
the left and at the right, and both answers are for each. The class of a square is its colour and
the answer. The colour is there so that a detector has to keep it: of two classes, matched and not,
it first learns that both are squares, and forgets the colours before it can compare them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from numpy.typing import NDArray

HEIGHT, WIDTH = 32, 352
SIDE = 24
"""Of every object, in pixels."""

COLORS = ((220, 40, 40), (40, 220, 40), (40, 40, 220), (220, 220, 220))
NAMES = ("red", "green", "blue", "white")
CLASSES = tuple(f"{name}, {answer}" for name in NAMES for answer in ("alone", "matched"))

RECEPTIVE_FIELD = 267
"""Of a feature of res4, in pixels."""

NEAR, FAR = 8, 192
"""Pixels between the square and the cross, from edge to edge: within what a region's features see,
and beyond it."""

TASKS = ("match", "among", "colors")
"""Find squares and say whether they match; the same among rings; find squares and crosses and name
their colours."""

RINGS = 2
"""In a panorama of the task ``among``: distractors, of any colours and anywhere."""

_GRAY = (90, 150)  # of the background; a panorama has one
_NOISE = 24  # levels of each pixel's noise


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A panorama with what is to be found.

    Attributes:
        image: uint8 (HEIGHT, WIDTH, 3).
        boxes: (N, 4), x0, y0, x1, y1.
        classes: (N,).
        cue: x0, y0, x1, y1 of the cross.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    cue: tuple[int, int, int, int]

    @property
    def center(self) -> tuple[float, float]:
        """Of the first box, x and y."""
        x0, y0, x1, y1 = self.boxes[0].tolist()
        return (x0 + x1) / 2, (y0 + y1) / 2

    def record(self) -> dict:
        """What `GeneralizedRCNN` takes."""
        instances = Instances((HEIGHT, WIDTH))
        instances.gt_boxes = Boxes(torch.from_numpy(self.boxes).float())
        instances.gt_classes = torch.from_numpy(self.classes)
        image = torch.from_numpy(self.image.transpose(2, 0, 1).copy())
        return {"image": image, "height": HEIGHT, "width": WIDTH, "instances": instances}


def draw_scene(rng: np.random.Generator, task: str, distance: int) -> Scene:
    """Return one panorama: a square and a cross, and of the task ``among`` rings.

    Args:
        rng: source of all that is random.
        task: one of `TASKS`.
        distance: pixels between the square and the cross.

    Raises:
        ValueError: there is no such task, or the objects do not fit.
    """
    if task not in TASKS:
        raise ValueError(f"task is '{task}'; allowed: {', '.join(TASKS)}")
    room = WIDTH - 2 * SIDE - distance
    if room < 0 or distance < 0:
        raise ValueError(f"distance is {distance}; allowed: 0 to {WIDTH - 2 * SIDE}")
    image = rng.integers(_NOISE, size=(HEIGHT, WIDTH, 3), dtype=np.uint8)
    image += rng.integers(*_GRAY, dtype=np.uint8)
    matched = int(rng.integers(2))
    color = int(rng.integers(len(COLORS)))
    other = (color + 1 + int(rng.integers(len(COLORS) - 1))) % len(COLORS)
    cross_color = color if matched else other
    left = int(rng.integers(room + 1))
    square, cross = rng.permuted([left, left + SIDE + distance]).tolist()
    rows = rng.integers(HEIGHT - SIDE + 1, size=2).tolist()
    boxes = [(x, y, x + SIDE, y + SIDE) for x, y in zip((square, cross), rows, strict=True)]
    looks = ((_SQUARE, COLORS[color]), (_CROSS, COLORS[cross_color]))
    for (x0, y0, x1, y1), (mask, look) in zip(boxes, looks, strict=True):
        image[y0:y1, x0:x1][mask] = look
    if task == "among":
        _draw_rings(rng, image, [square, cross])
    if task == "colors":
        found, classes = boxes, [color, len(COLORS) + cross_color]
    else:
        found, classes = boxes[:1], [2 * color + matched]
    return Scene(
        image=image,
        boxes=np.array(found, dtype=np.float64),
        classes=np.array(classes, dtype=np.int64),
        cue=boxes[1],
    )


def _draw_rings(rng: np.random.Generator, image: NDArray[np.uint8], taken: list[int]) -> None:
    """Draw rings beside what has its left side at one of `taken`."""
    for _ in range(RINGS):
        apart = np.abs(np.arange(WIDTH - SIDE + 1)[:, None] - taken).min(1) >= SIDE
        x, y = int(rng.choice(np.flatnonzero(apart))), int(rng.integers(HEIGHT - SIDE + 1))
        image[y : y + SIDE, x : x + SIDE][_RING] = COLORS[rng.integers(len(COLORS))]
        taken = [*taken, x]


def _masks() -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    third, quarter = SIDE // 3, SIDE // 4
    cross = np.zeros((SIDE, SIDE), dtype=bool)
    cross[third:-third] = cross[:, third:-third] = True
    ring = np.ones_like(cross)
    ring[quarter:-quarter, quarter:-quarter] = False
    return np.ones_like(cross), cross, ring


_SQUARE, _CROSS, _RING = _masks()
