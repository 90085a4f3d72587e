"""Datasets: the embedded ones, which are drawn at first use, and lists of videos."""

from ..utils.file_io import cache_root
from .catalog import check_datasets
from .datasets.builtin import register_all, register_generated
from .datasets.register import register_datasets
from .datasets.register_videos import register_videos
from .datasets.synthetic.clips import make_clips
from .datasets.synthetic.shapes import make_shapes

__all__ = [
    "cache_root",
    "check_datasets",
    "make_clips",
    "make_shapes",
    "register_all",
    "register_datasets",
    "register_generated",
    "register_videos",
]
