"""Drawings of detections, attention and scores."""

from .detections import draw_instances
from .drawing import draw_sheet, draw_strip
from .page import Page
from .statistics_drawing import draw_statistics

__all__ = [
    "Page",
    "draw_instances",
    "draw_sheet",
    "draw_statistics",
    "draw_strip",
]
