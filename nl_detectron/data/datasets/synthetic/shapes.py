"""``nl_shapes``: a small dataset of landscapes with people, houses, trees and toys."""

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from . import canvas, coco, landscape, people, things
from .canvas import SCALE, Sprite
from .generated import make_dataset

CLASSES = ("person", "ball", "kite", "house", "tree", "car", "umbrella")

_SIZES = ((128, 128), (160, 128), (144, 128), (128, 160), (128, 144))
_CROWD_EVERY = 10  # images
_MIN_VISIBLE = 0.5  # of the area without objects in front
_MIN_AREA = 60.0  # square pixels

# Heights in pixels at the bottom of an image, where things are nearest.
_HEIGHTS = {
    "person": (74, 104), "ball": (20, 32), "house": (70, 96), "tree": (84, 120),
    "car": (32, 44), "umbrella": (62, 88),
}  # fmt: skip
_THINGS = {
    "ball": things.ball, "house": things.house, "tree": things.tree, "car": things.car,
    "umbrella": things.umbrella,
}  # fmt: skip


def make_shapes(
    root: Path, *, num_train: int = 500, num_val: int = 100, seed: int = 0, progress: bool = True
) -> Path:
    """Make the dataset under `root` unless it exists, and return its folder.

    Args:
        root: folder of datasets; it need not exist.
        num_train: number of images in split ``train``.
        num_val: number of images in split ``val``.
        seed: seed of the images.
        progress: show a progress bar while the dataset is made.

    Raises:
        UserError: `root` cannot be written.
    """
    splits = {"train": num_train, "val": num_val}

    def draw(split: str, index: int) -> coco.AnnotatedImage:
        rng = np.random.default_rng([seed, list(splits).index(split), index])
        return draw_scene(rng, crowd=index % _CROWD_EVERY == 3)

    def write_split(folder: Path, split: str, indices: Iterable[int]) -> None:
        drawn = (draw(split, index) for index in indices)
        coco.write_split(folder, split, CLASSES, drawn, description="nl_shapes")

    sources = [canvas, coco, landscape, people, things, sys.modules[__name__]]
    return make_dataset(
        root, "nl_shapes", splits, write_split, seed=seed, sources=sources, progress=progress
    )


def draw_scene(rng: np.random.Generator, *, crowd: bool = False) -> coco.AnnotatedImage:
    """Return one image: some people and things in a landscape, nearer ones in front.

    Objects that are nearly hidden by others are removed, so that every visible object is
    annotated. With `crowd`, many small people stand together in the distance.
    """
    width, height = _SIZES[rng.integers(len(_SIZES))]
    background, horizon = landscape.landscape(rng, width, height)
    groups = [_crowd(rng, width, horizon)] if crowd else []
    groups += [[sprite] for sprite in _objects(rng, width, height, horizon)]
    masks = [
        np.logical_or.reduce([canvas.silhouette(s, width, height) for s in group])
        for group in groups
    ]
    kept = [
        i
        for i, (mask, seen) in enumerate(zip(masks, _visible(masks), strict=True))
        if np.count_nonzero(seen)
        >= max(_MIN_VISIBLE * np.count_nonzero(mask), _MIN_AREA * SCALE**2)
    ]
    groups = [groups[i] for i in kept]
    visible = _visible([masks[i] for i in kept])

    sprites = [sprite for group in groups for sprite in group]
    shadows = [_shadow(s) for s in sprites if s.category != "kite"]
    image = canvas.draw(landscape.with_shadows(background, shadows), sprites)
    annotations = []
    for group, seen in zip(groups, visible, strict=True):
        category_id = CLASSES.index(group[0].category) + 1
        if len(group) > 1:
            annotations.append(coco.crowd(category_id, seen))
        else:
            annotations.append(coco.instance(category_id, seen, group[0].keypoints))
    return image, annotations


def _objects(rng: np.random.Generator, width: int, height: int, horizon: float) -> list[Sprite]:
    """Return the objects of a scene, placed, the farthest first."""
    names = ["person"] * rng.integers(1, 4)
    names += list(rng.choice(list(_THINGS), rng.integers(1, 5)))
    # Depth of the feet: 0 at the horizon, 1 at the lower edge. Tall things stand farther away.
    depths = [rng.uniform(0.25, 0.7 if n in ("house", "tree") else 1.0) for n in names]
    sprites = []
    for depth, name in sorted(zip(depths, names, strict=True)):
        size = rng.uniform(*_HEIGHTS[name]) * (0.45 + 0.55 * depth)
        sprite = (
            people.person(rng, back=rng.random() < 0.15)
            if name == "person"
            else (_THINGS[name](rng))
        )
        mirror = name != "person" and rng.random() < 0.5
        angle = rng.uniform(-12, 12) if name == "umbrella" else 0.0
        x, y = rng.uniform(0.06, 0.94) * width, horizon + depth * (height - horizon) * 0.98
        sprites.append(sprite.placed(x, y, size, angle=angle, mirror=mirror))
    for _ in range(rng.integers(0, 3)):
        size, angle = rng.uniform(30, 50), rng.uniform(-40, 40)
        x, y = rng.uniform(0.12, 0.88) * width, rng.uniform(0.6, 1.1) * horizon
        sprites.insert(0, things.kite(rng).placed(x, y, size, angle=angle))
    return sprites


def _crowd(rng: np.random.Generator, width: int, horizon: float) -> list[Sprite]:
    """Return many small people who stand close together, far away."""
    left, step = rng.uniform(0.1, 0.5) * width, rng.uniform(5, 6.5)
    feet = [
        (horizon + rng.uniform(7, 12), left + step * i + rng.uniform(-1.5, 1.5))
        for i in range(rng.integers(7, 11))
    ]
    return [
        people.person(rng, back=rng.random() < 0.3).placed(x, y, rng.uniform(24, 30))
        for y, x in sorted(feet)
    ]


def _visible(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Return the part of each mask that the following ones do not cover."""
    visible: list[np.ndarray] = []
    covered = np.zeros_like(masks[0])
    for mask in reversed(masks):
        visible.insert(0, mask & ~covered)
        covered |= mask
    return visible


def _shadow(sprite: Sprite) -> np.ndarray:
    x0, _, x1, y1 = sprite.bounds()
    rx = 0.5 * (x1 - x0)
    return canvas.ellipse((x0 + x1) / 2 + 0.1 * rx, y1, rx, min(0.2 * rx, 5.0) + 0.6)
