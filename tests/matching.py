"""Objects of the experiments' images from pixels alone, and images without their cue."""

import dataclasses

import numpy as np
import torch

from experiments.drawing import COLORS, Scene


def objects(image: np.ndarray, side: int) -> list[tuple[int, int, int, bool]]:
    """Return left, top, color and shape (cross or not) of each object in (H, W, 3), by color."""
    found = []
    for number, color in enumerate(COLORS.values()):
        mask = np.all(image == np.array(color), axis=-1)
        columns = np.flatnonzero(mask.any(0))
        # Objects of one image are apart, each of its width.
        for group in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            if len(group):
                part = mask[:, group[0] : group[-1] + 1]
                rows = np.flatnonzero(part.any(1))
                assert len(group) == len(rows) == side
                found.append((int(group[0]), int(rows[0]), number, not part[rows[0], 0]))
    return found


def with_and_without_cue(scene: Scene) -> list[dict]:
    """Return the model's inputs for a scene, and for the same with its cue painted over."""
    x0, y0, x1, y1 = scene.cue
    painted = scene.image.copy()
    painted[y0:y1, x0:x1] = 120
    return [scene.record(), dataclasses.replace(scene, image=painted).record()]


def scale_at_random(model: torch.nn.Module) -> torch.nn.Module:
    """Draw biases and the norms' scales, of which some start at zero; return the model."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model
