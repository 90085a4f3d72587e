"""People whose left glove has the colour of their hat, and whose right one has another.

Which glove is the left one is a product between two places: every colour is equally frequent in
the hat, in both gloves and at both places. So that the head has to keep the colours there is a
keypoint for the glove, and for the hat, of each colour as well, visible where a person has it;
these need no comparison. AP is of the left and the right glove alone.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances, Keypoints
from numpy.typing import NDArray

SIZE = 56
"""Height and width of an image, which one person fills: 14 x 14 features at stride 4."""

SIDE = 7
"""Of a hat and a glove, in pixels."""

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 220, 40),
    "blue": (40, 40, 220),
    "white": (220, 220, 220),
}
KEYPOINTS = (
    *("left glove", "right glove"),
    *(f"{color} {thing}" for thing in ("glove", "hat") for color in COLORS),
)
SIDES = slice(0, 2)
"""Of `KEYPOINTS`, those that the match tells."""

REACH = 42
"""Pixels above a glove that its features see without a block, the head's eight convolutions
included; more in some places between."""

NEAR, FAR = 4, 42
"""Pixels between the hat and the gloves, from edge to edge: well within `REACH`, and not."""

_GRAY = (90, 150)  # of the background; an image has one
_NOISE = 24  # levels of each pixel's noise
_BODY = (60, 60, 60)


@dataclass(frozen=True, kw_only=True)
class Person:
    """An image of one person.

    Attributes:
        image: uint8 (SIZE, SIZE, 3).
        keypoints: (K, 3), x, y and COCO's visibility, 2 or 0.
        hat: x0, y0, x1, y1.
    """

    image: NDArray[np.uint8]
    keypoints: NDArray[np.float64]
    hat: tuple[int, int, int, int]

    @property
    def left_glove(self) -> tuple[float, float]:
        """Its centre, x and y."""
        x, y, _ = self.keypoints[0].tolist()
        return x, y

    def record(self) -> dict:
        """What `GeneralizedRCNN` takes."""
        instances = Instances((SIZE, SIZE))
        instances.gt_boxes = Boxes(torch.tensor([[0.0, 0.0, SIZE, SIZE]]))
        instances.gt_classes = torch.zeros(1, dtype=torch.int64)
        instances.gt_keypoints = Keypoints(self.keypoints[None])
        image = torch.from_numpy(self.image.transpose(2, 0, 1).copy())
        return {"image": image, "height": SIZE, "width": SIZE, "instances": instances}


def draw_person(rng: np.random.Generator, distance: int, *, first_row: bool = False) -> Person:
    """Return a person in front of noise.

    Args:
        rng: source of all that is random.
        distance: pixels between the hat's lower and the gloves' upper edge.
        first_row: the hat is at the image's upper edge, not wherever there is room.

    Raises:
        ValueError: the person does not fit.
    """
    room = SIZE - 2 * SIDE - distance
    if room < 0 or distance < 0:
        raise ValueError(f"distance is {distance}; allowed: 0 to {SIZE - 2 * SIDE}")
    image = rng.integers(_NOISE, size=(SIZE, SIZE, 3), dtype=np.uint8)
    image += rng.integers(*_GRAY, dtype=np.uint8)
    own = int(rng.integers(len(COLORS)))
    other = (own + 1 + int(rng.integers(len(COLORS) - 1))) % len(COLORS)
    top = 0 if first_row else int(rng.integers(room + 1))
    below = top + SIDE + distance
    hat = (int(rng.integers(SIZE - SIDE + 1)), top)
    half = SIZE // 2
    columns = [int(rng.integers(half - SIDE + 1)), half + int(rng.integers(half - SIDE + 1))]
    left, right = ((x, below) for x in rng.permuted(columns).tolist())
    for glove in (left, right):
        cv2.line(image, _middle(hat), _middle(glove), _BODY)
    keypoints = np.zeros((len(KEYPOINTS), 3))
    things = ((hat, own, "hat"), (left, own, "glove"), (right, other, "glove"))
    for (x, y), color, thing in things:
        name = tuple(COLORS)[color]
        image[y : y + SIDE, x : x + SIDE] = COLORS[name]
        keypoints[KEYPOINTS.index(f"{name} {thing}")] = (*_middle((x, y)), 2)
    for number, glove in enumerate((left, right)):
        keypoints[number] = (*_middle(glove), 2)
    x, y = hat
    image[y + 2 : y + SIDE - 2, x + 2 : x + SIDE - 2] = 0  # what tells a hat from a glove
    return Person(image=image, keypoints=keypoints, hat=(x, y, x + SIDE, y + SIDE))


def _middle(corner: tuple[int, int]) -> tuple[int, int]:
    return corner[0] + SIDE // 2, corner[1] + SIDE // 2
