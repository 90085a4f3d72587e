"""Where the blocks go: backbones and keypoint head, registered with Detectron2."""

from .backbone import (
    add_nonlocal_blocks,
    build_nonlocal_resnet_backbone,
    build_nonlocal_resnet_fpn_backbone,
)
from .keypoint_head import NonLocalKRCNNConvDeconvUpsampleHead

__all__ = [
    "NonLocalKRCNNConvDeconvUpsampleHead",
    "add_nonlocal_blocks",
    "build_nonlocal_resnet_backbone",
    "build_nonlocal_resnet_fpn_backbone",
]
