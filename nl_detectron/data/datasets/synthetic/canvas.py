"""Sprites of colored polygons, and a super-sampled canvas.

Coordinates are continuous image pixels: pixel ``i`` covers ``[i, i + 1)``, x to the right and y
down. A sprite has its own unit and stands on the origin until it is placed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

Color = tuple[int, int, int]
"""Red, green, blue in 0..255."""

Point = Sequence[float] | np.ndarray

SCALE = 4
"""Sub-pixels per pixel along each axis; their average smooths the edges."""

_FRACTION_BITS = 4


def mix(a: Color, b: Color, t: float) -> Color:
    """Return the color at `t` on the way from `a` (0) to `b` (1)."""
    return tuple(round(p + (q - p) * t) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def darker(color: Color, amount: float = 0.35) -> Color:
    """Return `color` with a share of black, slightly blue as shadows are."""
    return mix(color, (20, 20, 45), amount)


def lighter(color: Color, amount: float = 0.35) -> Color:
    """Return `color` with a share of white."""
    return mix(color, (255, 255, 255), amount)


def ellipse(x: float, y: float, rx: float, ry: float | None = None, n: int = 28) -> np.ndarray:
    """Return an ellipse (a circle without `ry`) as a polygon ``(n, 2)``."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    return np.stack([x + rx * np.cos(t), y + (rx if ry is None else ry) * np.sin(t)], axis=1)


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> np.ndarray:
    """Return points ``(16, 2)`` on an ellipse between two angles in degrees (90 is down)."""
    t = np.radians(np.linspace(start, stop, 16))
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], axis=1)


def capsule(a: Point, b: Point, width: float) -> np.ndarray:
    """Return the outline of a thick line from `a` to `b` with round ends."""
    (ax, ay), (bx, by) = a, b
    angle = np.degrees(np.arctan2(by - ay, bx - ax))
    r = width / 2
    return np.concatenate(
        [arc(bx, by, r, r, angle - 90, angle + 90), arc(ax, ay, r, r, angle + 90, angle + 270)]
    )


def polygon(*points: Point) -> np.ndarray:
    """Return the polygon through `points` as an array."""
    return np.array(points, dtype=np.float64)


@dataclass(frozen=True)
class Part:
    """Polygons of one color; a border is drawn around all of them before any is filled."""

    color: Color
    polygons: tuple[np.ndarray, ...]
    border: bool = True


@dataclass(frozen=True)
class Sprite:
    """One object: its parts from back to front and, for a person, the keypoints.

    Attributes:
        category: name of the category.
        parts: parts from back to front.
        keypoints: ``(K, 2)``, NaN for points that the object does not show; None without any.
        border: width of the border lines, in the unit of the coordinates.
    """

    category: str
    parts: tuple[Part, ...]
    keypoints: np.ndarray | None = None
    border: float = 0.02

    def placed(
        self, x: float, y: float, scale: float, *, angle: float = 0.0, mirror: bool = False
    ) -> "Sprite":
        """Return the sprite scaled, rotated clockwise by `angle` degrees, its origin at ``(x, y)``.

        Do not mirror a sprite with keypoints: its left and right would be wrong.
        """
        c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
        turn = scale * np.array([[c, s], [-s, c]])
        if mirror:
            turn = np.diag([-1.0, 1.0]) @ turn

        def move(points: np.ndarray) -> np.ndarray:
            return points @ turn + (x, y)

        return replace(
            self,
            parts=tuple(replace(p, polygons=tuple(map(move, p.polygons))) for p in self.parts),
            keypoints=None if self.keypoints is None else move(self.keypoints),
            border=self.border * scale,
        )

    def bounds(self) -> tuple[float, float, float, float]:
        """Return ``x0, y0, x1, y1`` around all polygons."""
        points = np.concatenate([q for p in self.parts for q in p.polygons])
        return (*points.min(axis=0), *points.max(axis=0))


def silhouette(sprite: Sprite, width: int, height: int) -> np.ndarray:
    """Return a mask of the sub-pixels of an image that `sprite` covers.

    Returns:
        uint8 0 or 1, ``(height * SCALE, width * SCALE)``.
    """
    mask = np.zeros((height * SCALE, width * SCALE), np.uint8)
    for part in sprite.parts:
        _draw(mask, part, 1, 1, sprite.border)
    return mask


def draw(background: np.ndarray, sprites: Sequence[Sprite]) -> np.ndarray:
    """Draw `sprites`, the farthest first, with light from the upper left.

    Args:
        background: RGB uint8 ``(H, W, 3)``.
        sprites: sprites from back to front.

    Returns:
        The image, of the same kind and size as `background`.
    """
    image = background.copy()
    if not sprites:
        return image
    height, width = image.shape[:2]
    x0, y0, x1, y1 = _changed_pixels(sprites, width, height)
    pixels = np.empty((height * SCALE, width * SCALE, 3), np.uint8)
    changed = pixels[y0 * SCALE : y1 * SCALE, x0 * SCALE : x1 * SCALE]  # the rest is not read
    cv2.resize(image[y0:y1, x0:x1], changed.shape[1::-1], changed, interpolation=cv2.INTER_NEAREST)
    for sprite in sprites:
        for part in sprite.parts:
            _draw(pixels, part, part.color, darker(part.color), sprite.border)
        _shade(pixels, sprite)
    image[y0:y1, x0:x1] = cv2.resize(changed, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    return image


def _changed_pixels(
    sprites: Sequence[Sprite], width: int, height: int
) -> tuple[int, int, int, int]:
    """Return ``x0, y0, x1, y1`` around the pixels that `draw` changes, at least one."""
    bounds = np.array([sprite.bounds() for sprite in sprites])
    margins = np.array([[1 + sprite.border] for sprite in sprites])  # 1: of the shading
    low = np.floor((bounds[:, :2] - margins).min(axis=0)).clip(0, (width - 1, height - 1))
    high = np.ceil((bounds[:, 2:] + margins).max(axis=0)).clip(low + 1, (width, height))
    return (*low.astype(int).tolist(), *high.astype(int).tolist())


def _shade(pixels: np.ndarray, sprite: Sprite) -> None:
    """Make the upper left of a sprite brighter and its lower right darker."""
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = (round(v * SCALE) for v in sprite.bounds())
    x0, x1 = np.clip([x0 - SCALE, x1 + SCALE], 0, width)
    y0, y1 = np.clip([y0 - SCALE, y1 + SCALE], 0, height)
    if x0 == x1 or y0 == y1:
        return
    region = pixels[y0:y1, x0:x1]
    covered = silhouette(sprite, width // SCALE, height // SCALE)[y0:y1, x0:x1]
    slope = np.add.outer(
        np.linspace(0.14, -0.02, y1 - y0, dtype=np.float32),
        np.linspace(0, -0.16, x1 - x0, dtype=np.float32),
    )
    light = cv2.merge([1 + slope] * 3)
    lit = cv2.multiply(region, light, dtype=cv2.CV_8U)
    cv2.copyTo(lit, covered, region)


def _draw(
    target: np.ndarray, part: Part, color: Color | int, border_color: Color | int, border: float
) -> None:
    # OpenCV's fixed-point numbers, which count from sub-pixel centers.
    one = 1 << _FRACTION_BITS
    outlines = [np.rint((p * SCALE - 0.5) * one).astype(np.int32) for p in part.polygons]
    if part.border:
        width = max(round(2 * border * SCALE), 1)
        cv2.polylines(target, outlines, True, border_color, width, shift=_FRACTION_BITS)
    for outline in outlines:  # one by one: together, overlaps would cancel out
        cv2.fillPoly(target, [outline], color, shift=_FRACTION_BITS)
