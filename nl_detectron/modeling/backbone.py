"""ResNets with non-local blocks, plain and under an FPN."""

from collections.abc import Sequence
from typing import TypeVar

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ResNet, build_resnet_backbone
from detectron2.modeling.backbone import FPN, Backbone
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone

from ..config import BACKBONE_KEY, STAGES, NonLocalOptions, check_config
from ..errors import ConfigError
from .blocks import build_block, insert_after

AnyResNet = TypeVar("AnyResNet", bound=Backbone)


def add_nonlocal_blocks(
    resnet: AnyResNet,
    *,
    after_blocks: Sequence[Sequence[int]],
    options: NonLocalOptions,
    dims: int = 2,
    axes: str = "spacetime",
    group_frames: Sequence[int] = (0,) * len(STAGES),
) -> AnyResNet:
    """Put non-local blocks into `resnet`, which is changed and returned.

    Args:
        resnet: a `ResNet` of Detectron2, or a `VideoResNet`.
        after_blocks: for each of res2 to res5 the residual blocks, counted from 0, that a
            non-local block follows; a negative number counts from the stage's end. The paper's
            single block, right before the last residual block of res4, is ``[[], [], [-2], []]``.
        options: how each block is made.
        dims: 2 for images, 3 for clips.
        axes: what a position of a clip sees; see `NonLocalBlock`.
        group_frames: for each of res2 to res5 the number of consecutive time steps that see each
            other; 0 for all.

    Every weight of `resnet` keeps its name; a block's are called
    ``<stage>.nonlocal_after_<number>``. The blocks of a frozen stage are frozen.

    Raises:
        ValueError: for a stage that `resnet` does not have, a number outside its stage, two
            numbers for one place, or options that do not suit the stage's width.
    """
    for stage_name, numbers, frames in zip(STAGES, after_blocks, group_frames, strict=True):
        if not numbers:
            continue
        if stage_name not in resnet.stage_names:
            built = ", ".join(resnet.stage_names)
            raise ValueError(f"AFTER_BLOCKS asks for blocks in {stage_name}; built are {built}")
        stage = getattr(resnet, stage_name)
        places = [_place(number, len(stage), stage_name) for number in numbers]
        if len(set(places)) < len(places):
            raise ValueError(f"AFTER_BLOCKS names a place of {stage_name} twice: {numbers}")
        frozen = not any(p.requires_grad for p in stage.parameters())
        blocks = {
            str(i): build_block(stage[i].out_channels, options, dims=dims, axes=axes, frames=frames)
            for i in places
        }
        insert_after(stage, blocks, where=stage_name)
        if frozen:
            for block in blocks.values():
                block.freeze()
    return resnet


def _place(number: int, length: int, stage_name: str) -> int:
    if not -length <= number < length:
        raise ValueError(
            f"AFTER_BLOCKS has {number} for {stage_name}; allowed: {-length} to {length - 1}"
        )
    return number % length


def add_from_config(cfg: CfgNode, resnet: AnyResNet, *, dims: int) -> AnyResNet:
    """Put the blocks of MODEL.RESNETS.NON_LOCAL into `resnet`; ConfigError if they do not fit."""
    check_config(cfg)
    node = cfg.MODEL.RESNETS.NON_LOCAL
    try:
        return add_nonlocal_blocks(
            resnet,
            after_blocks=node.AFTER_BLOCKS,
            options=NonLocalOptions.from_config(node),
            dims=dims,
            axes=node.AXES,
            group_frames=node.GROUP_FRAMES,
        )
    except ValueError as error:
        raise ConfigError(f"{BACKBONE_KEY}.{error}") from error


@BACKBONE_REGISTRY.register()
def build_nonlocal_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Detectron2's ``build_resnet_backbone`` with the blocks of MODEL.RESNETS.NON_LOCAL."""
    return add_from_config(cfg, build_resnet_backbone(cfg, input_shape), dims=2)


@BACKBONE_REGISTRY.register()
def build_nonlocal_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """Detectron2's ``build_resnet_fpn_backbone`` with the blocks of MODEL.RESNETS.NON_LOCAL."""
    fpn = build_resnet_fpn_backbone(cfg, input_shape)
    add_from_config(cfg, fpn.bottom_up, dims=2)
    return fpn


for _builder in (build_nonlocal_resnet_backbone, build_nonlocal_resnet_fpn_backbone):
    _builder.builds_nonlocal_blocks = True
