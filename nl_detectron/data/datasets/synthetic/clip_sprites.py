"""Sprites of ``nl_clips`` in addition to those of images: balloon, tower, banners, fireworks.

A sprite is one unit high and stands on the origin, unless its docstring states otherwise.
"""

import numpy as np

from .canvas import Color, Part, Sprite, arc, capsule, darker, ellipse, lighter, polygon
from .people import CLOTHES

_BASKET: Color = (150, 104, 66)
_STONE: tuple[Color, ...] = ((216, 208, 196), (198, 190, 186), (222, 202, 176))
_SPARK: Color = (255, 246, 214)


def balloon(rng: np.random.Generator) -> Sprite:
    """Return a hot-air balloon of two colors in stripes; the origin is under its basket."""
    a, b = (CLOTHES[i] for i in rng.choice(9, 2, replace=False))
    b = b if rng.random() < 0.5 else (250, 246, 236)
    y, half, mouth = -0.62, 0.38, -0.2
    crown = arc(0, y, half, 0.38, 180, 360)
    envelope = np.concatenate([crown, polygon((half, y), (0.1, mouth), (-0.1, mouth))])
    stripes = []
    for left, right in ((-0.62, -0.22), (0.22, 0.62)):
        sides = [
            np.concatenate(
                [arc(0, y, abs(x) * half, 0.38, 270, 180 if x < 0 else 360), [(x * 0.1, mouth)]]
            )
            for x in (left, right)
        ]
        stripes.append(np.concatenate([sides[0], sides[1][::-1]]))
    ropes = tuple(capsule((0.09 * s, mouth), (0.06 * s, -0.12), 0.015) for s in (-1, 1))
    parts = (
        Part(darker(_BASKET), ropes, border=False),
        Part(_BASKET, (polygon((-0.08, -0.12), (0.08, -0.12), (0.07, 0), (-0.07, 0)),)),
        Part(a, (envelope,)),
        Part(b, tuple(stripes), border=False),
        Part(lighter(a, 0.5), (ellipse(-0.17, -0.82, 0.06, 0.09),), border=False),
    )
    return Sprite("balloon", parts, border=0.022)


def tower(rng: np.random.Generator) -> Sprite:
    """Return a round tower with battlements and an empty mast."""
    stone = _STONE[rng.integers(len(_STONE))]
    teeth = tuple(
        polygon((x, -0.72), (x + 0.07, -0.72), (x + 0.07, -0.62), (x, -0.62))
        for x in (-0.19, -0.035, 0.12)
    )
    wall = polygon((-0.15, 0), (-0.13, -0.56), (0.13, -0.56), (0.15, 0))
    parts = (
        Part((120, 96, 80), (capsule((0, -0.6), (0, -1), 0.025),)),
        Part(stone, (wall, polygon((-0.19, -0.64), (0.19, -0.64), (0.15, -0.5), (-0.15, -0.5)))),
        Part(stone, teeth),
        Part(darker(stone, 0.6), (capsule((0, -0.38), (0, -0.32), 0.06),), border=False),
        Part(darker(stone, 0.6), (capsule((0, 0), (0, -0.12), 0.12),), border=False),
    )
    return Sprite("tower", parts, border=0.016)


def banner(color: Color, unrolled: float, phase: float) -> Sprite:
    """Return a banner that hangs from its yard at the origin, with two tails.

    Args:
        color: of the cloth, which is one unit long.
        unrolled: the share of its length that hangs down.
        phase: of the waves that the wind makes, in radians.
    """
    down = np.linspace(0, 1, 10)
    wave = 0.05 * down * np.sin(6 * down - phase)
    left, right = (np.stack([x + wave, unrolled * down], axis=1) for x in (-0.28, 0.28))
    notch = (left[-1] + right[-1]) / 2 - (0, 0.2 * unrolled)
    cloth = np.concatenate([left, notch[None], right[::-1]])
    parts = (
        Part(color, (cloth,)),
        Part((120, 96, 80), (capsule((-0.3, 0), (0.3, 0), 0.06),)),
    )
    return Sprite("banner", parts, border=0.02)


def rocket() -> Sprite:
    """Return a rocket's spark, its tail below it and the origin at its head."""
    return Sprite("rocket", (Part(_SPARK, (capsule((0, 0), (0, 1), 0.22),), border=False),))


def burst(color: Color, age: float, turn: float) -> Sprite:
    """Return fireworks around the origin: rays that fly apart, fall a little and burn out.

    Args:
        color: of the rays; full-grown, they are one unit long.
        age: 0 at the start, 1 at the end.
        turn: of all rays, in radians.
    """
    reach = 1 - (1 - age) ** 2
    outer, inner = 0.25 + 0.75 * reach, 0.85 * age * reach
    rays = []
    for angle in turn + np.arange(0, 2 * np.pi, np.pi / 5):
        ray = np.array([np.cos(angle), np.sin(angle)])
        fall = np.array([0, 0.15 * age**2])
        rays.append(capsule(inner * ray + fall, outer * ray + fall, 0.34 * (1.2 - age)))
    parts = [Part(color, tuple(rays), border=False)]
    if age < 0.5:
        parts.append(Part(lighter(color, 0.75), (ellipse(0, 0, 0.3 - 0.4 * age),), border=False))
    return Sprite("burst", tuple(parts))
