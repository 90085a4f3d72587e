"""``nl_relational``: wide panoramas in which what a thing is depends on something far away.

Two tasks, each made for any distance in pixels between what is asked and the cue that answers:

- ``crates``: a crate on a plain, and a gate. All crates are drawn alike; the gate's colour, one of
  four, is the crate's class.
- ``walkers``: a long lying figure with two hands at its right end, drawn alike. Whether the upper
  one is its left or its right hand depends on whether the figure faces us, which its face shows:
  a bright one or the dark back of a head, the distance to the left of the hands.

At distance 0 the gate stands behind the crate and the face is behind the hands: a control, which a
few convolutions can solve.

Why this is fair to models of any kind. Each image is drawn alike whatever the cue says: the
pixels outside the cue do not depend on the answer, so that there is no other way to know it. All
else is the same at every distance: size of the image, number and size of things, number of
classes; only where the cue is changes. Position, background, colours of the clothes and noise
are random and independent of the answer. Every answer is as frequent as the others. There is one
cue and nothing that looks like it: no selective attention is needed, only reach, which depth
gives as well as a non-local block does. The images of a distance are those of another distance
drawn with other random numbers, and are the same for all models.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES

from . import canvas, coco
from .canvas import Color, Part, Sprite, capsule, ellipse, polygon
from .generated import folder_name

TASKS = ("crates", "walkers")
DISTANCES = (0, 128, 256, 384)
"""In pixels: those with names in the catalogs."""

WIDTH, HEIGHT = 512, 64
NUM_TRAIN, NUM_VAL = 400, 200
CLASSES = {
    "crates": ("red crate", "yellow crate", "green crate", "blue crate"),
    "walkers": ("person",),
}

CUE_COLORS: dict[str, tuple[Color, ...]] = {
    "crates": ((222, 44, 44), (240, 214, 40), (48, 176, 72), (52, 84, 220)),
    "walkers": ((60, 40, 36), (252, 222, 120)),  # the back of a head, a face
}
"""The colour of the cue for each answer."""

_GROUND, _CRATE_SIZE = 60.0, (24.0, 28.0)
_GATE_WIDTH, _GATE_HEIGHT = 64.0, 56.0
_HEAD_WIDTH, _HEAD_HEIGHT = 96.0, 48.0
_BODY_LENGTH, _ARM_LENGTH = 400.0, 20.0
_UPPER_AND_LOWER = (("right_wrist", "left_wrist"), ("left_wrist", "right_wrist"))  # by answer
_MARGIN = 33.0  # from the sides, of the middle of a crate or gate and of the end of a body


def make_relational(
    root: Path,
    task: str,
    distance: int,
    *,
    num_train: int = NUM_TRAIN,
    num_val: int = NUM_VAL,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Return the folder of a task's data set under `root`, made first if it is not there.

    Annotations have one key more than COCO's: ``cue``, the cue's box in COCO's form.

    Args:
        root: folder of data sets; it need not exist.
        task: one of `TASKS`.
        distance: between the thing and its cue, in pixels along x; 0 to 384.
        num_train, num_val: number of images in the splits ``train`` and ``val``.
        seed: other images for another seed.
        progress: show a progress bar while the data set is made.

    Raises:
        UserError: `root` cannot be written.
        ValueError: there is no such task, or the panorama is too narrow for the distance.
    """
    sources = [canvas, coco, sys.modules[__name__]]
    name = f"nl_relational_{task}_d{distance}"
    folder = root / folder_name(name, (task, distance, num_train, num_val, seed), sources)
    splits = {"train": num_train, "val": num_val}

    def draw(split: str, index: int) -> coco.AnnotatedImage:
        rng = np.random.default_rng([seed, list(splits).index(split), index])
        return draw_panorama(rng, task, distance, answer=index % len(CUE_COLORS[task]))

    if not folder.is_dir():
        coco.write(folder, CLASSES[task], splits, draw, description=name, progress=progress)
    return folder


def draw_panorama(
    rng: np.random.Generator, task: str, distance: int, answer: int
) -> coco.AnnotatedImage:
    """Return one image; with equal random numbers it differs with `answer` in the cue alone.

    Args:
        rng: source of all that is random.
        task: one of `TASKS`.
        distance: between the thing and its cue, in pixels along x; 0 to 384.
        answer: what the cue says: index of the class, or for walkers 1 if it faces us, else 0.

    Raises:
        ValueError: there is no such task, or the panorama is too narrow for the distance.
    """
    if task not in TASKS:
        raise ValueError(f"task is '{task}'; allowed: {', '.join(TASKS)}")
    if not 0 <= distance <= max(DISTANCES):
        raise ValueError(f"distance is {distance}; allowed: 0 to {max(DISTANCES)}")
    background = _background(rng)
    if task == "crates":
        return _crate_and_gate(rng, background, distance, answer)
    return _walker(rng, background, distance, answer)


def wrists(answer: int, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Return a walker's keypoints (17, 2), NaN but for the wrists, from its two hands (x, y)."""
    keypoints = np.full((len(COCO_PERSON_KEYPOINT_NAMES), 2), np.nan)
    for name, point in zip(_UPPER_AND_LOWER[answer], (upper, lower), strict=True):
        keypoints[COCO_PERSON_KEYPOINT_NAMES.index(name)] = point
    return keypoints


def read_cue(task: str, image: np.ndarray, cue: Sequence[float]) -> int:
    """Return the answer that an image shows at its cue: that of the nearest colour.

    Args:
        task: one of `TASKS`.
        image: RGB uint8 (64, 512, 3).
        cue: the cue's box: x, y, width and height in pixels. What may stand before the cue hides
            the middle and the lower half only.
    """
    x, y, width, height = cue
    row, column = int(y + height / 4), int(x + width / 8)
    seen = image[row - 2 : row + 3, column - 2 : column + 3].mean(axis=(0, 1))
    distances = [np.square(seen - color).sum() for color in CUE_COLORS[task]]
    return int(np.argmin(distances))


def _background(rng: np.random.Generator) -> np.ndarray:
    """Return a plain with a slow change of brightness and some noise."""
    tint = rng.uniform(170, 182, 3)
    ends = rng.uniform(0.97, 1.03, 2)
    light = np.linspace(ends[0], ends[1], WIDTH)[None, :, None]
    noise = rng.normal(0, 5, (HEIGHT, WIDTH, 1))
    return np.clip(tint * light + noise, 0, 255).astype(np.uint8)


def _crate_and_gate(
    rng: np.random.Generator, background: np.ndarray, distance: int, answer: int
) -> coco.AnnotatedImage:
    x = rng.uniform(_MARGIN, WIDTH - _MARGIN - distance)
    x, cue = (x, x + distance) if rng.random() < 0.5 else (x + distance, x)
    crate = _crate(rng).placed(x, _GROUND, rng.uniform(*_CRATE_SIZE))
    gate = _gate(CUE_COLORS["crates"][answer]).placed(cue, _GROUND, 1.0)
    annotation = coco.instance(answer + 1, canvas.silhouette(crate, WIDTH, HEIGHT))
    annotation["cue"] = _box(gate)
    return coco.AnnotatedImage(canvas.draw(background, [gate, crate]), [annotation])


def _crate(rng: np.random.Generator) -> Sprite:
    wood = (int(rng.integers(120, 160)),) * 3
    board = canvas.darker(wood, 0.25)
    return Sprite(
        "crate",
        (
            Part(wood, (polygon((-0.5, -1), (0.5, -1), (0.5, 0), (-0.5, 0)),)),
            Part(board, (capsule((-0.4, -0.9), (0.4, -0.1), 0.1),), border=False),
            Part(board, (capsule((-0.4, -0.1), (0.4, -0.9), 0.1),), border=False),
        ),
        border=0.04,
    )


def _gate(color: Color) -> Sprite:
    right, top = _GATE_WIDTH / 2, -_GATE_HEIGHT
    wall = polygon((-right, top), (right, top), (right, 0), (-right, 0))
    return Sprite("gate", (Part(color, (wall,)),), border=1.0)


def _box(sprite: Sprite) -> list[float]:
    x0, y0, x1, y1 = sprite.bounds()
    return [x0, y0, x1 - x0, y1 - y0]


def _walker(
    rng: np.random.Generator, background: np.ndarray, distance: int, answer: int
) -> coco.AnnotatedImage:
    hands = rng.uniform(_BODY_LENGTH + _MARGIN, WIDTH - _HEAD_WIDTH / 2 - 1)
    row = rng.uniform(26, 38)
    red, green, blue = (int(v) for v in rng.uniform(60, 140, 3))
    clothes = (red, green, blue)
    skin = canvas.lighter(clothes, 0.6)
    up, down = np.array([hands, row - _ARM_LENGTH]), np.array([hands, row + _ARM_LENGTH])
    body = Sprite(
        "person",
        (
            Part(clothes, (capsule((hands - _BODY_LENGTH, row), (hands, row), 9.0),)),
            Part(clothes, (capsule(up, down, 5.0),)),
            Part(skin, tuple(ellipse(x, y, 3.5) for x, y in (up, down))),
        ),
        border=1.0,
    )
    face = Part(CUE_COLORS["walkers"][answer], (ellipse(0, 0, _HEAD_WIDTH / 2, _HEAD_HEIGHT / 2),))
    head = Sprite("head", (face,), border=1.0).placed(hands - distance, row, 1.0)
    whole = replace(body, parts=head.parts + body.parts)
    visible = canvas.silhouette(whole, WIDTH, HEIGHT)
    annotation = coco.instance(1, visible, wrists(answer, up, down))
    annotation["cue"] = _box(head)
    return coco.AnnotatedImage(canvas.draw(background, [head, body]), [annotation])
