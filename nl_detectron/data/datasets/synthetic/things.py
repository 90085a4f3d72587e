"""Sprites of everything but people, one unit high and standing on the origin."""

import numpy as np

from .canvas import Color, Part, Sprite, arc, capsule, darker, ellipse, lighter, mix, polygon
from .people import CLOTHES

_BRIGHT = CLOTHES[:9]
_GLASS: Color = (186, 226, 240)
_WOOD: Color = (142, 98, 62)


def _colors(rng: np.random.Generator, n: int) -> list[Color]:
    return [_BRIGHT[i] for i in rng.choice(len(_BRIGHT), n, replace=False)]


def ball(rng: np.random.Generator) -> Sprite:
    """Return a ball with stripes, segments or spots."""
    base, other = _colors(rng, 2)
    other = other if rng.random() < 0.5 else (250, 248, 240)
    turn = rng.uniform(0, 360)
    kind = rng.integers(3)
    if kind == 0:
        marks = [arc(0, -0.5, 0.5, 0.5, turn + a, turn + a + 60) for a in (0, 120, 240)]
        marks = [np.concatenate([[(0, -0.5)], m]) for m in marks]
    elif kind == 1:
        sides = [arc(0, -0.5, 0.5, 0.5, turn + a, turn + a + 50) for a in (0, 130)]
        marks = [np.concatenate(sides)]
    else:
        spots = np.radians(turn + np.arange(0, 360, 72))
        marks = [ellipse(0.31 * np.cos(a), -0.5 + 0.31 * np.sin(a), 0.1) for a in spots]
    parts = (
        Part(base, (ellipse(0, -0.5, 0.5),)),
        Part(other, tuple(marks), border=False),
        Part(lighter(base, 0.7), (ellipse(-0.18, -0.7, 0.1, 0.07),), border=False),
    )
    return Sprite("ball", parts, border=0.03)


def kite(rng: np.random.Generator) -> Sprite:
    """Return a diamond of four panels with bows on its tail."""
    a, b, bow = _colors(rng, 3)
    top, left, middle, right, low = (0, -1), (-0.3, -0.7), (0, -0.7), (0.3, -0.7), (0, -0.24)
    parts = [
        Part(bow, (capsule(low, (0.06, -0.1), 0.02), capsule((0.06, -0.1), (0, 0), 0.02))),
        Part(a, (polygon(top, right, low, left),)),
        Part(b, (polygon(top, right, middle), polygon(left, middle, low)), border=False),
    ]
    for x, y in ((0.05, -0.13), (0.01, -0.02)):
        wings = polygon((x - 0.08, y - 0.04), (x, y), (x + 0.08, y - 0.04))
        parts.append(Part(bow, (wings, wings * (1, -1) + (0, 2 * y))))
    return Sprite("kite", tuple(parts), border=0.014)


def house(rng: np.random.Generator) -> Sprite:
    """Return a house with a pitched roof, a door, windows and perhaps a chimney."""
    roof, door = _colors(rng, 2)
    walls: tuple[Color, ...] = (
        (250, 236, 208), (238, 214, 190), (214, 226, 236), (244, 206, 188), (222, 232, 204),
    )  # fmt: skip
    wall = walls[rng.integers(len(walls))]
    half = rng.uniform(0.4, 0.62)
    eaves = -rng.uniform(0.5, 0.58)
    parts = []
    if rng.random() < 0.6:
        x = half * rng.choice([-0.55, 0.55])
        parts.append(Part(mix(roof, _WOOD, 0.6), (_box(x - 0.06, -0.98, x + 0.06, -0.6),)))
    parts.append(Part(wall, (_box(-half, eaves, half, 0),)))
    ridge = half * rng.choice([0.0, 0.45])
    edge = half + 0.08
    gable = polygon((-edge, eaves), (-ridge, -0.95), (ridge, -0.95), (edge, eaves))
    parts.append(Part(roof, (gable,)))
    x = half * rng.choice([-0.5, 0.0, 0.5])
    parts.append(Part(door, (_box(x - 0.09, -0.32, x + 0.09, 0),)))
    for x_window in (v * half for v in (-0.58, 0.0, 0.58)):
        if abs(x_window - x) > 0.2:
            parts.append(Part(_GLASS, (_box(x_window - 0.08, -0.4, x_window + 0.08, -0.2),)))
    return Sprite("house", tuple(parts), border=0.014)


def tree(rng: np.random.Generator) -> Sprite:
    """Return a fir or a tree with a round crown."""
    greens: tuple[Color, ...] = (
        (72, 146, 84), (54, 122, 92), (126, 168, 72), (214, 150, 62), (196, 92, 64),
    )  # fmt: skip
    if rng.random() < 0.5:
        green = greens[rng.integers(3)]
        parts = [Part(_WOOD, (_box(-0.06, -0.2, 0.06, 0),))]
        for i, (low, high, half) in enumerate(
            ((-0.14, -0.58, 0.32), (-0.37, -0.8, 0.26), (-0.6, -1.0, 0.19))
        ):
            tier = polygon((-half, low), (0, high), (half, low), (0, low + 0.05))
            parts.append(Part(lighter(green, 0.1 * i), (tier,)))
    else:
        green = greens[rng.integers(5)]
        lobes = [(-0.2, -0.52, 0.19), (0.2, -0.54, 0.19), (-0.1, -0.76, 0.2), (0.11, -0.75, 0.21)]
        crown = tuple(ellipse(x, y, r * rng.uniform(0.95, 1.08)) for x, y, r in lobes)
        crown += (ellipse(0, -0.6, 0.22),)
        glow = ellipse(-0.12, -0.76, 0.1, 0.08), ellipse(0.13, -0.66, 0.07, 0.05)
        trunk = polygon((-0.07, 0), (-0.04, -0.45), (0.04, -0.45), (0.07, 0))
        parts = [
            Part(_WOOD, (trunk,)),
            Part(green, crown),
            Part(lighter(green, 0.22), glow, border=False),
        ]
    return Sprite("tree", tuple(parts), border=0.014)


def car(rng: np.random.Generator) -> Sprite:
    """Return a car from the side, about twice as long as high."""
    (paint,) = _colors(rng, 1)
    back = rng.uniform(-0.75, -0.55)
    cabin = polygon((back, -0.55), (back + 0.14, -1), (0.28, -1), (0.55, -0.55))
    panes = (
        polygon((back + 0.1, -0.57), (back + 0.2, -0.9), (-0.14, -0.9), (-0.14, -0.57)),
        polygon((-0.05, -0.57), (-0.05, -0.9), (0.23, -0.9), (0.42, -0.57)),
    )
    body = capsule((-0.82, -0.42), (0.82, -0.38), 0.32), _box(-0.95, -0.42, 0.95, -0.2)
    parts = [Part(paint, (cabin, *body)), Part(_GLASS, panes, border=False)]
    parts.append(Part((255, 240, 170), (ellipse(0.92, -0.4, 0.06, 0.07),), border=False))
    parts.append(Part((214, 60, 56), (ellipse(-0.94, -0.42, 0.05, 0.08),), border=False))
    for x in (-0.52, 0.54):
        parts.append(Part((62, 60, 70), (ellipse(x, -0.2, 0.2),)))
        parts.append(Part((206, 206, 212), (ellipse(x, -0.2, 0.09),), border=False))
    return Sprite("car", tuple(parts), border=0.025)


def umbrella(rng: np.random.Generator) -> Sprite:
    """Return a sunshade: a striped half dome on a pole."""
    a, b = _colors(rng, 2)
    b = b if rng.random() < 0.4 else (250, 246, 236)
    low, half, ribs = -0.58, 0.52, 5
    rim = [
        arc(-half + half / ribs * (2 * i + 1), low, half / ribs, 0.05, 180, 360)[::-1]
        for i in range(ribs)
    ][::-1]
    dome = np.concatenate([arc(0, low, half, 0.4, 180, 360), *rim])
    stripes = []
    for i in range(1, ribs, 2):
        x0, x1 = (-half + 2 * half / ribs * k for k in (i, i + 1))
        sides = [arc(0, low, abs(x), 0.4, 180 if x < 0 else 360, 270) for x in (x0, x1)]
        stripes.append(np.concatenate([sides[0], sides[1][::-1]]))
    parts = (
        Part(lighter(_WOOD, 0.2), (capsule((0, 0), (0, -0.7), 0.05),)),
        Part(a, (dome,)),
        Part(b, tuple(stripes), border=False),
        Part(darker(a, 0.2), (ellipse(0, low - 0.4, 0.025),)),
    )
    return Sprite("umbrella", parts, border=0.014)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))
