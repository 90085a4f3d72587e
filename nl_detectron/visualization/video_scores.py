"""Frames of a video with the scores of classes drawn on them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

COUNT = 5
"""Largest number of classes to draw."""

# Okabe and Ito's colors, distinct for any color vision; gray is any other class.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167))
_OTHER, _TEXT, _CURSOR = (150, 150, 150), (255, 255, 255), (255, 255, 255)
_VEIL = 0.65  # darkening of the frame below bars and strip
_LEAST_ROW = 11  # in pixels: the font of a lower row is unreadable
_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


class ScoreOverlay:
    """Overlay of a frame: bars of the best classes at the top left, a strip of scores below.

    The strip has scores from 0 at the lower edge to 1 at the upper edge, in the colors of the
    bars; a vertical line marks the frame.

    Args:
        size: height and width of the frames.
        classes: C names.
        best: up to `COUNT` class numbers with curves in the strip.
        times: (N,), ascending, as shares of the strip's width, 0 to 1.
        scores: (N, C) at these times, constant before the first and after the last.
    """

    def __init__(
        self,
        size: tuple[int, int],
        classes: Sequence[str],
        best: Sequence[int],
        *,
        times: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        height, width = size
        self.classes = classes
        self.colors = dict(zip(best, _COLORS, strict=False))
        self.strip_height = max(8, height // 7)
        room = (height - self.strip_height) // (COUNT + 1)  # the last part stays free
        self.row_height = max(_LEAST_ROW, min(room, height // 16 + 8, width // 16))
        self.bars_width = min(width, max(16 * self.row_height, width // 3))
        self.width = width
        self._font = ImageFont.truetype(str(_FONT), round(0.72 * self.row_height))
        self._strip = np.zeros((self.strip_height, width, 3), np.uint8)
        columns = np.arange(self.width)
        at = (columns + 0.5) / self.width
        for c, color in self.colors.items():
            values = np.interp(at, times, scores[:, c])
            rows = np.round((1 - values) * (self.strip_height - 1))
            line = np.stack([columns, rows], axis=1).astype(np.int32)
            thickness = max(1, self.strip_height // 30)
            cv2.polylines(self._strip, [line], False, color, thickness, cv2.LINE_AA)

    def draw(self, frame: np.ndarray, scores: np.ndarray, position: float) -> np.ndarray:
        """Return `frame`, RGB uint8 (H, W, 3), with the bars of `scores` (C,) and the strip.

        Args:
            position: position of the frame in the strip, at least 0 and below 1.
        """
        drawn = frame.copy()
        bars = self._draw_bars(scores)
        _blend(drawn[: bars.shape[0], : bars.shape[1]], bars)
        _blend(drawn[-self.strip_height :], self._strip[-len(drawn) :])
        drawn[-self.strip_height :, int(position * self.width)] = _CURSOR
        return drawn

    def _draw_bars(self, scores: np.ndarray) -> np.ndarray:
        best = np.argsort(-scores, kind="stable")[:COUNT].tolist()
        image = Image.new("RGB", (self.bars_width, self.row_height * len(best)))
        draw = ImageDraw.Draw(image)
        for row, c in enumerate(best):
            top, length = row * self.row_height, round(float(scores[c]) * self.bars_width)
            if length:
                box = (0, top + 1, length - 1, top + self.row_height - 2)
                draw.rectangle(box, fill=tuple(v * 2 // 3 for v in self.colors.get(c, _OTHER)))
            text = f"{100 * scores[c]:.0f} %  {self.classes[c]}"
            middle = top + self.row_height / 2
            draw.text((3, middle), text, font=self._font, fill=_TEXT, anchor="lm")
        return np.asarray(image)


def _blend(part: np.ndarray, over: np.ndarray) -> None:
    """Blend `over` into `part` of a frame: bright pixels are opaque, black ones darken it."""
    over = over[: part.shape[0], : part.shape[1]]
    opacity = np.maximum(_VEIL, over.max(axis=2, keepdims=True) / np.float32(255))
    part[:] = np.round(over + (1 - opacity) * part).clip(0, 255)
