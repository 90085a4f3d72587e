"""Backgrounds: a sky with clouds and a sun, hills, and ground with some texture."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import Color, ellipse, mix


@dataclass(frozen=True)
class Palette:
    """Colors of one place at one time of day."""

    sky_top: Color
    sky_low: Color
    hill: Color
    ground_far: Color
    ground_near: Color
    sun: Color


PALETTES = (
    Palette(
        (96, 174, 228), (214, 238, 246), (126, 178, 140), (166, 206, 118), (112, 170, 84),
        (255, 244, 190),
    ),  # meadow
    Palette(
        (112, 190, 226), (236, 246, 240), (86, 160, 190), (240, 222, 172), (224, 192, 132),
        (255, 250, 214),
    ),  # beach
    Palette(
        (110, 100, 170), (252, 190, 148), (150, 108, 146), (190, 150, 132), (142, 110, 112),
        (255, 226, 160),
    ),  # dusk
    Palette(
        (158, 192, 222), (240, 242, 246), (176, 196, 214), (246, 248, 252), (214, 226, 240),
        (255, 252, 240),
    ),  # snow
    Palette(
        (148, 196, 214), (250, 234, 206), (196, 150, 92), (222, 190, 114), (186, 146, 82),
        (255, 240, 196),
    ),  # autumn
    Palette(
        (38, 50, 96), (112, 118, 170), (62, 76, 118), (84, 112, 116), (56, 82, 92),
        (246, 242, 222),
    ),  # night
)  # fmt: skip


DARK = (PALETTES[2], PALETTES[5])
"""Dusk and night."""


def landscape(
    rng: np.random.Generator, width: int, height: int, palettes: Sequence[Palette] = PALETTES
) -> tuple[np.ndarray, float]:
    """Return a landscape, RGB uint8 ``(height, width, 3)``, and the row of its horizon."""
    palette = palettes[int(rng.integers(len(palettes)))]
    horizon = height * rng.uniform(0.36, 0.5)
    rows = np.arange(height) + 0.5
    sky = _gradient(palette.sky_top, palette.sky_low, rows / horizon)
    image = np.repeat(sky[:, None], width, axis=1)

    if rng.random() < 0.7:
        x, y, r = rng.uniform(0, width), rng.uniform(0.1, 0.75) * horizon, rng.uniform(5, 10)
        _lay(image, palette.sun, [ellipse(x, y, 2.5 * r)], 0.35, r)
        _lay(image, palette.sun, [ellipse(x, y, r)], 1.0, 0.5)
    for _ in range(rng.integers(0, 4)):
        x, y, r = rng.uniform(0, width), rng.uniform(0.08, 0.8) * horizon, rng.uniform(6, 11)
        puffs = [ellipse(x, y, 2.2 * r, 0.5 * r)]
        puffs += [ellipse(x + k * r, y - 0.35 * r, 0.9 * r, 0.6 * r) for k in rng.uniform(-1, 1, 2)]
        _lay(image, mix(palette.sky_low, (255, 255, 255), 0.7), puffs, 0.75, 1.5)

    along = np.linspace(0, width, 48)
    for distance in (0.55, 0.2):
        crest = np.zeros_like(along)
        for waves in (1, 2, 4):
            phase = rng.uniform(0, 2 * np.pi)
            crest += (
                np.sin(2 * np.pi * waves * along / width * rng.uniform(0.7, 1.2) + phase) / waves
            )
        top = horizon - (0.06 + 0.08 * distance) * height - crest * 0.035 * height
        hill = np.concatenate([np.stack([along, top], 1), [(width, height), (0, height)]])
        _lay(image, mix(palette.hill, palette.sky_low, distance), [hill], 1.0, 0.5)
    ground = _gradient(
        palette.ground_far, palette.ground_near, (rows - horizon) / (height - horizon)
    )
    image[rows >= horizon] = ground[rows >= horizon, None]

    # Broad streaks on the ground and a fine grain everywhere.
    coarse = rng.normal(0, 0.035, (height // 5, width // 14)).astype(np.float32)
    streaks = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, 0.012, (height, width)).astype(np.float32)
    share = np.where(rows < horizon, 0.15, 1.0)[:, None]
    image *= (1 + share * streaks + grain)[..., None]
    return np.rint(image.clip(0, 255)).astype(np.uint8), horizon


def with_shadows(image: np.ndarray, ellipses: Sequence[np.ndarray]) -> np.ndarray:
    """Return a copy of `image`, uint8 ``(H, W, 3)``, with soft shadows in the polygons."""
    shaded = image.astype(np.float32)
    _lay(shaded, (24, 30, 58), ellipses, 0.36, 1.2)
    return np.rint(shaded).astype(np.uint8)


def _gradient(a: Color, b: Color, t: np.ndarray) -> np.ndarray:
    t = t.astype(np.float32).clip(0, 1)[:, None]
    return np.array(a, np.float32) * (1 - t) + np.array(b, np.float32) * t


def _lay(
    image: np.ndarray, color: Color, shapes: Sequence[np.ndarray], opacity: float, blur: float
) -> None:
    """Draw polygons of one color on a float image, their edges blurred by `blur` pixels."""
    alpha = np.zeros(image.shape[:2], np.float32)
    for shape in shapes:
        cv2.fillPoly(alpha, [np.rint((shape - 0.5) * 16).astype(np.int32)], opacity, shift=4)
    soft = np.asarray(cv2.GaussianBlur(alpha, (0, 0), blur))[..., None]
    image += (np.array(color, np.float32) - image) * soft
