"""``nl_clips``: short videos of things that move, meet and answer each other.

`CLASSES` says which class is told by what:

- *looks*: a single frame shows what it is.
- *motion*: a single frame says nothing. Balloons that hover, sway and bob are drawn alike and are
  at any moment equally likely at every place; only how they move differs.
- *relation*: neither a single frame nor any sum over frames and places says anything. Two signals,
  at opposite sides and in moments that no temporal pooling joins, are of one colour or of two.
  Every colour is equally frequent, first or second, at the left or at the right, in both classes
  of a pair; so are the times and the places. What tells is only whether the two match: a product
  between places.

All classes stay what they are when a clip is mirrored or runs round from its end to its beginning.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from . import canvas, clip_sprites, generated, landscape, people, things
from .canvas import Color, Sprite

SIZE = 96
"""Width and height of a frame, in pixels."""

NUM_FRAMES, FRAMES_PER_SECOND = 28, 14

COLORS: tuple[Color, ...] = ((230, 48, 48), (250, 214, 44), (46, 186, 84), (66, 104, 240))
"""Of the signals."""

# The frames in which a signal can be seen: seven each, and seven without any before and after, so
# that three consecutive frames of a clip that takes every third one never show both.
_MOMENTS = ((3, 10), (17, 24))
_SIDES = (10.5, SIZE - 10.5)  # where the two signals are, along x


@dataclass(frozen=True)
class Scene:
    """A still background, RGB uint8 ``(SIZE, SIZE, 3)``, and what stands before it in a frame."""

    background: np.ndarray
    sprites: Callable[[int], Sequence[Sprite]]

    def frames(self) -> np.ndarray:
        """Return the frames, RGB uint8 ``(NUM_FRAMES, SIZE, SIZE, 3)``."""
        return np.stack(
            [canvas.draw(self.background, self.sprites(t)) for t in range(NUM_FRAMES)]
        )


@dataclass(frozen=True)
class ClipClass:
    """One class: its name, what tells it (looks, motion or relation), and what draws a scene."""

    name: str
    told_by: str
    scene: Callable[[np.random.Generator], Scene]


def _cars(rng: np.random.Generator) -> Scene:
    """Two cars meet: they pass each other, the nearer one below the other."""
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
            bounce = 0.4 * np.sin(2.1 * t + y)
            at = x if way > 0 else SIZE - x
            placed.append(sprite.placed(at, y + bounce, size, mirror=bool(way < 0)))
        return placed

    return Scene(background, sprites)


def _kite(rng: np.random.Generator) -> Scene:
    """A person flies a kite, which draws figures of eight."""
    background, _ = _landscape(rng)
    x = rng.uniform(0.25, 0.75) * SIZE
    person = people.person(rng).placed(x, rng.uniform(84, 92), rng.uniform(34, 40))
    hand = person.keypoints[people.KEYPOINT_NAMES.index("right_wrist")]
    kite, size = things.kite(rng), rng.uniform(26, 32)
    middle = np.array([np.clip(SIZE - x, 30, 66), rng.uniform(32, 38)])
    period, phase = rng.uniform(16, 26), rng.uniform(0, 2 * np.pi)

    def sprites(t: int) -> list[Sprite]:
        a = phase + 2 * np.pi * t / period
        x, y = middle + (22 * np.sin(a), 7 * np.sin(2 * a))
        flying = kite.placed(x, y, size, angle=30 * np.cos(a))
        string = canvas.Part((250, 248, 240), (canvas.capsule(hand, (x, y - 0.4 * size), 0.7),), False)
        return [Sprite("string", (string,)), person, flying]

    return Scene(background, sprites)


def _ball(rng: np.random.Generator) -> Scene:
    """A ball hops from one side to the other."""
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
    """A balloon in the air.

    Its place in any single frame has the same distribution whether it moves or not.
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


def _flags(rng: np.random.Generator, *, match: bool) -> Scene:
    """Two towers; one hoists a flag and takes it down, and then the other one does."""
    background, horizon = _landscape(rng)
    towers, tops = [], []
    for x in _SIDES:
        height = rng.uniform(42, 50)
        y = horizon + rng.uniform(0.35, 0.6) * (SIZE - horizon)
        towers.append(clip_sprites.tower(rng).placed(x, y, height))
        tops.append(y - height)
    background = canvas.draw(background, towers)
    moments, colors = _signals(rng, match=match)
    phase = rng.uniform(0, 2 * np.pi, 2)

    def sprites(t: int) -> list[Sprite]:
        flying = []
        for i, (x, top) in enumerate(zip(_SIDES, tops, strict=True)):
            first, end = moments[i]
            if first <= t < end:
                lowered = 9.0 if t in (first, end - 1) else 0.0
                flag = clip_sprites.flag(colors[i], phase[i] + 1.1 * t)
                flying.append(flag.placed(x - 7.5, top + lowered, 15.0))
        return flying

    return Scene(background, sprites)


def _fireworks(rng: np.random.Generator, *, match: bool) -> Scene:
    """A rocket rises at one side of the night sky and bursts; then one does at the other side."""
    background, horizon = _landscape(rng, landscape.DARK)
    moments, colors = _signals(rng, match=match)
    heights = rng.uniform(16, 26, 2)
    turns = rng.uniform(0, 1, 2)

    def sprites(t: int) -> list[Sprite]:
        seen = []
        for i, (x, y) in enumerate(zip(_SIDES, heights, strict=True)):
            first, end = moments[i]
            if first - 3 <= t < first:
                rising = y + (first - t) / 3 * (horizon - y)
                seen.append(clip_sprites.rocket().placed(x, rising, 7.0))
            elif first <= t < end:
                age = (t - first + 0.5) / (end - first)
                seen.append(clip_sprites.burst(colors[i], age, turns[i]).placed(x, y, 11.0))
        return seen

    return Scene(background, sprites)


def _signals(
    rng: np.random.Generator, *, match: bool
) -> tuple[list[tuple[int, int]], list[Color]]:
    """Return the moments of the left and of the right signal, and their colours."""
    moments = [_MOMENTS[i] for i in rng.permutation(2)]
    left = rng.integers(len(COLORS))
    right = left if match else (left + rng.integers(1, len(COLORS))) % len(COLORS)
    return moments, [COLORS[left], COLORS[right]]


def _landscape(
    rng: np.random.Generator, palettes: Sequence[landscape.Palette] = landscape.PALETTES
) -> tuple[np.ndarray, float]:
    """Return a background with a tree or a house in the distance, and the row of its horizon."""
    background, horizon = landscape.landscape(rng, SIZE, SIZE, palettes)
    still = []
    for _ in range(rng.integers(0, 3)):
        thing = (things.house, things.tree)[rng.integers(2)](rng)
        depth = rng.uniform(0.05, 0.25)
        y = horizon + depth * (SIZE - horizon)
        still.append(thing.placed(rng.uniform(0.28, 0.72) * SIZE, y, rng.uniform(14, 24)))
    return canvas.draw(background, still), horizon


CLASSES = (
    ClipClass("cars meet", "looks", _cars),
    ClipClass("kite flies", "looks", _kite),
    ClipClass("ball hops", "looks", _ball),
    ClipClass("balloon hovers", "motion", _balloon),
    ClipClass("balloon sways", "motion", partial(_balloon, sways=True)),
    ClipClass("balloon bobs", "motion", partial(_balloon, bobs=True)),
    ClipClass("flags match", "relation", partial(_flags, match=True)),
    ClipClass("flags differ", "relation", partial(_flags, match=False)),
    ClipClass("fireworks match", "relation", partial(_fireworks, match=True)),
    ClipClass("fireworks differ", "relation", partial(_fireworks, match=False)),
)
"""All there is to know about the classes; metadata and documentation take it from here."""
