"""``nl_clips``: short videos of things that move, meet and answer each other.

`CLASSES` has the cue of each class:

- *looks*: a single frame shows the class.
- *motion*: a single frame has no information. Balloons that hover, sway and bob look the same and
  have the same distribution of places at any moment; only their motion differs.
- *relation*: neither a single frame nor a sum over frames and places has information. Two signals,
  at opposite sides and in moments that no temporal pooling joins, have one color or two. Every
  color is equally frequent, first or second, at the left or at the right, in both classes of a
  pair; so are the times and the places. Only the match between the two tells the class, a product
  between places.

Mirroring a clip, or continuing from its end to its beginning, does not change its class.
"""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import canvas, clip_sprites, landscape, people, things
from .canvas import Color, Part, Sprite
from .generated import make_dataset

SIZE = 96
"""Width and height of a frame, in pixels."""

NUM_FRAMES, FRAMES_PER_SECOND = 28, 14

SPLITS = ("train", "val")

COLORS: tuple[Color, ...] = ((230, 48, 48), (250, 214, 44), (46, 186, 84), (66, 104, 240))
"""Colors of the signals."""

_BURSTS = (13.0, 34.0)  # of fireworks, along y

# Landscapes behind the signals. They are few, as a network would memorize a relation's answer by
# the background if each clip had a different one.
_NUM_STAGES = 8

_STRING: Color = (250, 248, 240)

# Frames that show a signal: seven each, and seven without any before and after, so that three
# consecutive frames of a clip with stride 3 never show both.
_MOMENTS = ((3, 10), (17, 24))
_SIDES = (10.0, SIZE - 10.0)  # where the two signals are, along x


def make_clips(
    root: Path, *, num_train: int = 2100, num_val: int = 420, seed: int = 0, progress: bool = True
) -> Path:
    """Make the dataset under `root` unless it exists, and return its folder.

    Each split is a folder ``{split}`` of H.264 files and a list ``{split}.txt`` of lines
    ``path label``, as `register_videos` reads it. The classes take turns. Classes with a relation
    have two turns, as they need the most examples to learn.

    Args:
        root: folder of datasets; it need not exist.
        num_train, num_val: number of videos in the splits ``train`` and ``val``.
        seed: seed of the videos.
        progress: show a progress bar while the dataset is made.

    Raises:
        UserError: `root` cannot be written, or PyAV is not installed.
    """
    from ...video import writing  # needs PyAV, unlike registering the dataset

    def write_split(folder: Path, split: str, indices: Iterable[int]) -> None:
        lines = []
        for index in indices:
            label, scene = make_scene(split, index, seed=seed)
            path = f"{split}/{index + 1:06d}.mp4"
            writing.write_video(folder / path, scene.frames(), rate=FRAMES_PER_SECOND)
            lines.append(f"{path} {label}\n")
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")

    sources = [canvas, clip_sprites, landscape, people, things, writing, sys.modules[__name__]]
    splits = dict(zip(SPLITS, (num_train, num_val), strict=True))
    return make_dataset(
        root, "nl_clips", splits, write_split, seed=seed, sources=sources, progress=progress
    )


def make_scene(split: str, index: int, *, seed: int = 0) -> tuple[int, "Scene"]:
    """Return class and scene of video `index` of `split`, counted from 0, as `make_clips` does."""
    turn = [*range(len(CLASSES)), *class_groups()["relation"]]
    label = turn[index % len(turn)]
    return label, CLASSES[label].scene(np.random.default_rng([seed, SPLITS.index(split), index]))


def signal_regions(file: Path) -> list[dict[str, Any]]:
    """Return the regions of both signals in a video of a relation; none for other videos.

    Each region has its class as ``label``, and the boxes of its parts in each frame that shows it,
    ``[frame, x0, y0, x1, y1]`` in pixels: a banner, or two bursts of fireworks.

    Args:
        file: a video of the dataset with its name from `make_clips`.
    """
    label, scene = make_scene(file.parent.name, int(file.stem) - 1)
    signals: tuple[list[Any], list[Any]] = ([], [])
    for t in range(NUM_FRAMES):
        for sprite in scene.sprites(t):
            if sprite.category in ("banner", "burst"):
                box = [float(v) for v in sprite.bounds()]
                signals[box[0] + box[2] > SIZE].append([t, *box])
    return [{"label": CLASSES[label].name, "boxes": boxes} for boxes in signals if boxes]


def class_groups() -> dict[str, list[int]]:
    """Return class indices by their cue: ``looks``, ``motion`` or ``relation``."""
    groups: dict[str, list[int]] = {}
    for index, clip_class in enumerate(CLASSES):
        groups.setdefault(clip_class.told_by, []).append(index)
    return groups


@dataclass(frozen=True)
class Scene:
    """A still background, RGB uint8 ``(SIZE, SIZE, 3)``, and the sprites of each frame."""

    background: np.ndarray
    sprites: Callable[[int], Sequence[Sprite]]

    def frames(self) -> np.ndarray:
        """Return the frames, RGB uint8 ``(NUM_FRAMES, SIZE, SIZE, 3)``."""
        return np.stack([canvas.draw(self.background, self.sprites(t)) for t in range(NUM_FRAMES)])


@dataclass(frozen=True)
class ClipClass:
    """One class: its name, its cue (looks, motion or relation), and its drawing function."""

    name: str
    told_by: str
    scene: Callable[[np.random.Generator], Scene]


def _cars(rng: np.random.Generator) -> Scene:
    """Draw two cars that pass each other, the nearer one below the other."""
    background, horizon = _landscape(rng)
    cars = []
    first = rng.choice([-1, 1])
    for depth, way in ((0.45, first), (0.8, -first)):
        size, sprite = rng.uniform(15, 18) * (0.7 + 0.4 * depth), things.car(rng)
        y = horizon + depth * (SIZE - horizon)
        start, speed = rng.uniform(-0.1, 0.15) * SIZE, rng.uniform(2.6, 3.6)
        cars.append((sprite, y, size, way, start, speed))

    def sprites(t: int) -> list[Sprite]:
        placed = []
        for sprite, y, size, way, start, speed in cars:
            x = start + speed * t
            at = x if way > 0 else SIZE - x
            bounce = 0.4 * np.sin(2.1 * t + y)
            placed.append(sprite.placed(at, y + bounce, size, mirror=bool(way < 0)))
        return placed

    return Scene(background, sprites)


def _kite(rng: np.random.Generator) -> Scene:
    """Draw a person who flies a kite in figures of eight."""
    background, _ = _landscape(rng)
    x = rng.uniform(0.25, 0.75) * SIZE
    person = people.person(rng).placed(x, rng.uniform(84, 92), rng.uniform(34, 40))
    assert person.keypoints is not None
    hand = person.keypoints[people.KEYPOINT_NAMES.index("right_wrist")]
    kite, size = things.kite(rng), rng.uniform(26, 32)
    middle = np.array([np.clip(SIZE - x, 30, 66), rng.uniform(32, 38)])
    period, phase = rng.uniform(16, 26), rng.uniform(0, 2 * np.pi)

    def sprites(t: int) -> list[Sprite]:
        a = phase + 2 * np.pi * t / period
        x, y = middle + np.array([22 * np.sin(a), 7 * np.sin(2 * a)])
        flying = kite.placed(x, y, size, angle=30 * np.cos(a))
        string = canvas.capsule(hand, (x, y - 0.4 * size), 0.7)
        return [Sprite("string", (Part(_STRING, (string,), border=False),)), person, flying]

    return Scene(background, sprites)


def _ball(rng: np.random.Generator) -> Scene:
    """Draw a ball that hops from one side to the other."""
    background, horizon = _landscape(rng)
    ball, size = things.ball(rng), rng.uniform(17, 22)
    ground = horizon + rng.uniform(0.5, 0.95) * (SIZE - horizon)
    height, hop, phase = rng.uniform(26, 40), rng.uniform(8, 12), rng.uniform(0, 1)
    way, speed = rng.choice([-1, 1]), rng.uniform(2.4, 3.2)
    start = SIZE / 2 - speed * rng.uniform(10, 18)

    def sprites(t: int) -> list[Sprite]:
        x = start + speed * t
        part = (t / hop + phase) % 1
        y = ground - height * 4 * part * (1 - part)
        # Turned around its middle, half a unit above the origin.
        angle = way * 14.0 * t
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        at = x if way > 0 else SIZE - x
        return [ball.placed(at - 0.5 * size * s, y - 0.5 * size * (1 - c), size, angle=angle)]

    return Scene(background, sprites)


def _balloon(rng: np.random.Generator, *, sways: bool = False, bobs: bool = False) -> Scene:
    """Draw a balloon in the air.

    Its place in a single frame has the same distribution with and without motion.
    """
    background, _ = _landscape(rng)
    balloon, size = clip_sprites.balloon(rng), rng.uniform(28, 34)
    middle = rng.uniform((40, 56), (SIZE - 40, 62))
    reach = np.array([24.0, 20.0])
    phase = rng.uniform(0, 2 * np.pi, 2)
    step = 2 * np.pi / rng.uniform(14, 20) * np.array([sways, bobs])

    def sprites(t: int) -> list[Sprite]:
        x, y = middle + reach * np.sin(phase + step * t)
        return [balloon.placed(x, y, size)]

    return Scene(background, sprites)


def _banners(rng: np.random.Generator, *, match: bool) -> Scene:
    """Draw two towers that hoist a banner and take it down, one after the other."""
    stage = np.random.default_rng(rng.integers(_NUM_STAGES))
    background, horizon = landscape.landscape(stage, SIZE, SIZE, landscape.DARK)
    towers, tops = [], []
    for x in _SIDES:
        height = stage.uniform(44, 50)
        y = horizon + stage.uniform(0.5, 0.75) * (SIZE - horizon)
        towers.append(clip_sprites.tower(stage).placed(x, y, height))
        tops.append(y - height)
    background = canvas.draw(background, towers)
    moments, colors = _signals(rng, match=match)
    phase = rng.uniform(0, 2 * np.pi)

    def sprites(t: int) -> list[Sprite]:
        flying = []
        for x, top, (first, end), color in zip(_SIDES, tops, moments, colors, strict=True):
            if first <= t < end:
                unrolled = 0.6 if t in (first, end - 1) else 1.0
                banner = clip_sprites.banner(color, unrolled, phase + 1.1 * t)
                flying.append(banner.placed(x, top, 38.0))
        return flying

    return Scene(background, sprites)


def _fireworks(rng: np.random.Generator, *, match: bool) -> Scene:
    """Draw rockets that burst at one side of the night sky, then others at the other side."""
    stage = np.random.default_rng(rng.integers(_NUM_STAGES))
    background, horizon = landscape.landscape(stage, SIZE, SIZE, landscape.DARK)
    moments, colors = _signals(rng, match=match)
    turn = rng.uniform(0, 1)

    def sprites(t: int) -> list[Sprite]:
        seen = []
        for x, (first, end), color in zip(_SIDES, moments, colors, strict=True):
            for y in _BURSTS:
                if first - 3 <= t < first:
                    rising = y + (first - t) / 3 * (horizon - y)
                    seen.append(clip_sprites.rocket().placed(x, rising, 7.0))
                elif first <= t < end:
                    age = (t - first + 0.5) / (end - first)
                    seen.append(clip_sprites.burst(color, age, turn).placed(x, y, 14.0))
        return seen

    return Scene(background, sprites)


def _signals(rng: np.random.Generator, *, match: bool) -> tuple[list[tuple[int, int]], list[Color]]:
    """Return the moments of the left and of the right signal, and their colors."""
    moments = [_MOMENTS[i] for i in rng.permutation(2)]
    left = rng.integers(len(COLORS))
    right = left if match else (left + rng.integers(1, len(COLORS))) % len(COLORS)
    return moments, [COLORS[left], COLORS[right]]


def _landscape(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return a background with a tree or a house in the distance, and the row of its horizon."""
    background, horizon = landscape.landscape(rng, SIZE, SIZE)
    still = []
    for _ in range(rng.integers(0, 3)):
        thing = (things.house, things.tree)[rng.integers(2)](rng)
        y = horizon + rng.uniform(0.05, 0.25) * (SIZE - horizon)
        still.append(thing.placed(rng.uniform(0.1, 0.9) * SIZE, y, rng.uniform(14, 24)))
    return canvas.draw(background, still), horizon


CLASSES = (
    ClipClass("cars meet", "looks", _cars),
    ClipClass("kite flies", "looks", _kite),
    ClipClass("ball hops", "looks", _ball),
    ClipClass("balloon hovers", "motion", _balloon),
    ClipClass("balloon sways", "motion", partial(_balloon, sways=True)),
    ClipClass("balloon bobs", "motion", partial(_balloon, bobs=True)),
    ClipClass("banners match", "relation", partial(_banners, match=True)),
    ClipClass("banners differ", "relation", partial(_banners, match=False)),
    ClipClass("fireworks match", "relation", partial(_fireworks, match=True)),
    ClipClass("fireworks differ", "relation", partial(_fireworks, match=False)),
)
"""All classes, the source of metadata and documentation."""
