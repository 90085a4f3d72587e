"""Data sets: the embedded ones, which are drawn at first use, and lists of videos."""

from .available import check_datasets
from .clips import make_clips
from .register import cache_root, register_all, register_generated
from .shapes import make_shapes
from .video.register import register_videos

__all__ = [
    "cache_root",
    "check_datasets",
    "make_clips",
    "make_shapes",
    "register_all",
    "register_generated",
    "register_videos",
]
