"""People whose left glove has the color of their hat, and whose right glove has another.

A match is a product between two places: each color is equally frequent in the hat, in both gloves
and at both places. Further keypoints, one for the glove and one for the hat of each color, are
visible if the person has it. They need no comparison, and make the head keep the colors. AP counts
the left and the right glove only.
"""

import cv2
import numpy as np

from ..drawing import COLORS, Scene, background, two_colors

SIZE = 56
"""Height and width of an image, which one person fills: 14 x 14 features of stride 4."""

SIDE = 7
"""Side of a hat and of a glove in pixels."""

KEYPOINTS = (
    *("left glove", "right glove"),
    *(f"{color} {thing}" for thing in ("glove", "hat") for color in COLORS),
)
SIDES = slice(0, 2)
"""The keypoints in `KEYPOINTS` that depend on the match."""

NEAR, FAR = 4, 42
"""Pixels between the hat and the gloves, edge to edge: within the head's receptive field, which
reaches 42 pixels up from a glove, and beyond it."""

_BODY = (60, 60, 60)


def draw_person(rng: np.random.Generator, distance: int, *, first_row: bool = False) -> Scene:
    """Return a person in front of noise.

    Args:
        rng: source of all random numbers.
        distance: pixels between the hat's lower and the gloves' upper edge.
        first_row: put the hat at the image's upper edge, not in any row.
    """
    image = background(rng, SIZE, SIZE)
    own, other = two_colors(rng)
    top = 0 if first_row else int(rng.integers(SIZE - 2 * SIDE - distance + 1))
    below = top + SIDE + distance
    hat = (int(rng.integers(SIZE - SIDE + 1)), top)
    half = SIZE // 2
    columns = [int(rng.integers(half - SIDE + 1)), half + int(rng.integers(half - SIDE + 1))]
    gloves = [(x, below) for x in rng.permuted(columns).tolist()]
    for glove in gloves:
        cv2.line(image, _middle(hat), _middle(glove), _BODY)
    keypoints = np.zeros((1, len(KEYPOINTS), 3))
    things = ((hat, own, "hat"), (gloves[0], own, "glove"), (gloves[1], other, "glove"))
    for (x, y), color, thing in things:
        image[y : y + SIDE, x : x + SIDE] = COLORS[color]
        keypoints[0, KEYPOINTS.index(f"{color} {thing}")] = (*_middle((x, y)), 2)
    keypoints[0, SIDES] = [(*_middle(glove), 2) for glove in gloves]
    x, y = hat
    image[y + 2 : y + SIDE - 2, x + 2 : x + SIDE - 2] = 0  # what tells a hat from a glove
    left_x, left_y, _ = keypoints[0, 0].tolist()
    return Scene(
        image=image,
        boxes=np.array([[0.0, 0.0, SIZE, SIZE]]),
        classes=np.zeros(1, dtype=np.int64),
        keypoints=keypoints,
        point=(left_x, left_y),
        cue=(x, y, x + SIDE, y + SIDE),
    )


def _middle(corner: tuple[int, int]) -> tuple[int, int]:
    return corner[0] + SIDE // 2, corner[1] + SIDE // 2
