"""Panoramas with a square and, far from it, a cross of the same color or of another.

A match is a product between two places: each color is equally frequent in both objects, on the left
and on the right, and each answer is equally frequent for each color. The class of a square is its
color and the answer. With two classes, matched or not, a detector first learns that both are
squares, and drops the colors before it can compare them.
"""

import numpy as np
from numpy.typing import NDArray

from ..drawing import COLORS, Scene, background, two_colors

HEIGHT, WIDTH = 32, 352
SIDE = 24
"""Side of every object in pixels."""

CLASSES = tuple(f"{name}, {answer}" for name in COLORS for answer in ("alone", "matched"))

NEAR, FAR = 8, 192
"""Pixels between the square and the cross, edge to edge: within a region's receptive field, and
beyond it."""

RINGS = 2
"""Distractors in a panorama of the task ``among``, of any color."""


def draw_scene(rng: np.random.Generator, task: str, distance: int) -> Scene:
    """Return one panorama.

    Args:
        rng: source of all random numbers.
        task: ``match``: find the square and its class; ``among``: the same among rings; ``colors``:
            find square and cross, with their colors as classes.
        distance: pixels between the square and the cross.
    """
    image = background(rng, HEIGHT, WIDTH)
    matched = int(rng.integers(2))
    color, other = two_colors(rng)
    cross_color = color if matched else other
    left = int(rng.integers(WIDTH - 2 * SIDE - distance + 1))
    columns = rng.permuted([left, left + SIDE + distance]).tolist()
    rows = rng.integers(HEIGHT - SIDE + 1, size=2).tolist()
    square, cross = ((x, y, x + SIDE, y + SIDE) for x, y in zip(columns, rows, strict=True))
    for (x0, y0, x1, y1), mask, name in ((square, _SQUARE, color), (cross, _CROSS, cross_color)):
        image[y0:y1, x0:x1][mask] = COLORS[name]
    if task == "among":
        _draw_rings(rng, image, columns)
    number, cross_number = (list(COLORS).index(name) for name in (color, cross_color))
    if task == "colors":
        boxes, classes = [square, cross], [number, len(COLORS) + cross_number]
    else:
        boxes, classes = [square], [2 * number + matched]
    return Scene(
        image=image,
        boxes=np.array(boxes, dtype=np.float64),
        classes=np.array(classes, dtype=np.int64),
        point=(square[0] + SIDE / 2, square[1] + SIDE / 2),
        cue=cross,
    )


def _draw_rings(rng: np.random.Generator, image: NDArray[np.uint8], taken: list[int]) -> None:
    """Draw rings that overlap no object; `taken` has the objects' left sides."""
    for _ in range(RINGS):
        apart = np.abs(np.arange(WIDTH - SIDE + 1)[:, None] - taken).min(1) >= SIDE
        x, y = int(rng.choice(np.flatnonzero(apart))), int(rng.integers(HEIGHT - SIDE + 1))
        color = tuple(COLORS.values())[rng.integers(len(COLORS))]
        image[y : y + SIDE, x : x + SIDE][_RING] = color
        taken = [*taken, x]


_SQUARE = np.ones((SIDE, SIDE), dtype=bool)
_CROSS = np.zeros_like(_SQUARE)
_CROSS[SIDE // 3 : -(SIDE // 3)] = _CROSS[:, SIDE // 3 : -(SIDE // 3)] = True
_RING = np.ones_like(_SQUARE)
_RING[SIDE // 4 : -(SIDE // 4), SIDE // 4 : -(SIDE // 4)] = False
