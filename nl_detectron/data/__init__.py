"""The embedded data set ``nl_shapes``: drawn, written in COCO's format, registered."""

from .register import cache_root, register_all, register_generated
from .shapes import make_shapes
from .video.register import register_videos

__all__ = ["cache_root", "make_shapes", "register_all", "register_generated", "register_videos"]
