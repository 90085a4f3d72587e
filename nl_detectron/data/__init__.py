"""Data sets: the embedded ones, which are drawn at first use, and lists of videos."""

from .clips import make_clips
from .register import cache_root, register_all, register_generated
from .shapes import make_shapes
from .video.register import register_videos

__all__ = [
    "cache_root",
    "make_clips",
    "make_shapes",
    "register_all",
    "register_generated",
    "register_videos",
]
