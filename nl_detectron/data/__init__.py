"""The embedded data set ``nl_shapes``: drawn, written in COCO's format, registered."""

from .available import check_datasets
from .register import cache_root, register_all, register_generated
from .shapes import make_shapes

__all__ = ["cache_root", "check_datasets", "make_shapes", "register_all", "register_generated"]
