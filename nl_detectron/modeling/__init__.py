"""Models with blocks: backbones, keypoint head and video classifier, registered with Detectron2."""

from .backbone.resnet import (
    build_nonlocal_resnet_backbone,
    build_nonlocal_resnet_fpn_backbone,
    build_nonlocal_retinanet_resnet_fpn_backbone,
)
from .backbone.video_resnet import VideoResNet, build_nonlocal_video_resnet_backbone
from .build import build_model
from .insertion import add_backbone_blocks
from .meta_arch.video_classifier import VideoClassifier
from .roi_heads.keypoint_head import NonLocalKRCNNConvDeconvUpsampleHead

__all__ = [
    "NonLocalKRCNNConvDeconvUpsampleHead",
    "VideoClassifier",
    "VideoResNet",
    "add_backbone_blocks",
    "build_model",
    "build_nonlocal_resnet_backbone",
    "build_nonlocal_resnet_fpn_backbone",
    "build_nonlocal_retinanet_resnet_fpn_backbone",
    "build_nonlocal_video_resnet_backbone",
]
