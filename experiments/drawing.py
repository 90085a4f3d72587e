"""Images of small objects in front of noise, with their ground truth."""

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.structures import Boxes, Instances, Keypoints
from numpy.typing import NDArray

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 220, 40),
    "blue": (40, 40, 220),
    "white": (220, 220, 220),
}
GRAY = (90, 150)
"""Range of the background's gray level."""

NOISE = 24
"""Levels of each pixel's noise."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An image, its objects, and the cue to the question about it.

    Attributes:
        image: uint8 (H, W, 3).
        boxes: (N, 4), x0, y0, x1, y1.
        classes: (N,).
        keypoints: (N, K, 3), x, y and COCO's visibility; None without keypoints.
        cue: box of the object that has the answer.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float64]
    classes: NDArray[np.int64]
    keypoints: NDArray[np.float64] | None = None
    cue: Box

    def record(self) -> dict:
        """Return the input of a `GeneralizedRCNN`."""
        height, width = self.image.shape[:2]
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.from_numpy(self.boxes).float())
        instances.gt_classes = torch.from_numpy(self.classes)
        if self.keypoints is not None:
            instances.gt_keypoints = Keypoints(self.keypoints)
        image = torch.from_numpy(self.image.transpose(2, 0, 1).copy())
        return {"image": image, "height": height, "width": width, "instances": instances}


def background(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    image = rng.integers(NOISE, size=(height, width, 3), dtype=np.uint8)
    image += rng.integers(*GRAY, dtype=np.uint8)
    return image


def two_colors(rng: np.random.Generator) -> tuple[str, str]:
    """Return two different names of `COLORS`."""
    names = tuple(COLORS)
    first = int(rng.integers(len(names)))
    return names[first], names[(first + 1 + int(rng.integers(len(names) - 1))) % len(names)]
