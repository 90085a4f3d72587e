"""Seeing where non-local blocks look: attention in the image's coordinates, drawn and browsed."""

from .attention import Attention, Look, Query, attention_rows, find_blocks, look
from .detections import draw_instances
from .drawing import draw_attention, draw_detections, draw_sheet, heat_map
from .geometry import Axis, Grid
from .page import Page

__all__ = [
    "Attention",
    "Axis",
    "Grid",
    "Look",
    "Page",
    "Query",
    "attention_rows",
    "draw_attention",
    "draw_detections",
    "draw_instances",
    "draw_sheet",
    "find_blocks",
    "heat_map",
    "look",
]
