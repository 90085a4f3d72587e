"""ResNets with non-local blocks, plain and under an FPN."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ResNet, build_resnet_backbone
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import (
    build_resnet_fpn_backbone,
    build_retinanet_resnet_fpn_backbone,
)

from ...config import BACKBONE_KEY, NonLocalOptions, builds_nonlocal_blocks, check_config
from ...utils.errors import ConfigError
from ..insertion import add_backbone_blocks


def add_from_config(cfg: CfgNode, backbone: Backbone) -> Backbone:
    """Put the blocks of MODEL.RESNETS.NON_LOCAL into `backbone`; ConfigError if they do not fit."""
    check_config(cfg)
    node = cfg.MODEL.RESNETS.NON_LOCAL
    try:
        return add_backbone_blocks(
            backbone,
            after_blocks=node.AFTER_BLOCKS,
            options=NonLocalOptions.from_config(node),
            axes=node.AXES,
            group_frames=node.GROUP_FRAMES,
        )
    except ValueError as error:
        raise ConfigError(f"{BACKBONE_KEY}.{error}") from error


@BACKBONE_REGISTRY.register()
@builds_nonlocal_blocks
def build_nonlocal_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Detectron2's ``build_resnet_backbone`` with the blocks of MODEL.RESNETS.NON_LOCAL."""
    return add_from_config(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
@builds_nonlocal_blocks
def build_nonlocal_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's ``build_resnet_fpn_backbone`` with the blocks of MODEL.RESNETS.NON_LOCAL."""
    return add_from_config(cfg, build_resnet_fpn_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
@builds_nonlocal_blocks
def build_nonlocal_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's ``build_retinanet_resnet_fpn_backbone``, P6 and P7 from res5, with the blocks
    of MODEL.RESNETS.NON_LOCAL."""
    return add_from_config(cfg, build_retinanet_resnet_fpn_backbone(cfg, input_shape))
