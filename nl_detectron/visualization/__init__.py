"""Drawings of detections, attention, scores and curves."""

from .clip_drawing import animate, draw_strip
from .clip_page import ClipPage
from .detections import draw_instances
from .drawing import draw_attention, draw_sheet
from .page import Page

__all__ = [
    "ClipPage",
    "Page",
    "animate",
    "draw_attention",
    "draw_instances",
    "draw_sheet",
    "draw_strip",
]
