"""Seeing where non-local blocks look: attention in the coordinates of images and of the frames of
clips, drawn and browsed."""

from .attention import Attention, Look, Query, Row, attention_rows, find_blocks, look
from .clip import Clip, ClipQuery, check_point, plan_clip, read_clip
from .clip_attention import ClipAttention, ClipLook, SeenBlock, look_at_clip
from .clip_drawing import animate, draw_strip, write_animation
from .clip_page import ClipPage
from .detections import draw_instances
from .drawing import draw_attention, draw_detections, draw_sheet, heat_map
from .geometry import Axis, ClipGrid, Grid
from .page import Page
from .partners import PartnerShare, partner_shares

__all__ = [
    "Attention",
    "Axis",
    "Clip",
    "ClipAttention",
    "ClipGrid",
    "ClipLook",
    "ClipPage",
    "ClipQuery",
    "Grid",
    "Look",
    "Page",
    "PartnerShare",
    "Query",
    "Row",
    "SeenBlock",
    "animate",
    "attention_rows",
    "check_point",
    "draw_attention",
    "draw_detections",
    "draw_instances",
    "draw_sheet",
    "draw_strip",
    "find_blocks",
    "heat_map",
    "look",
    "look_at_clip",
    "partner_shares",
    "plan_clip",
    "read_clip",
    "write_animation",
]
