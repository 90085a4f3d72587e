"""What values config keys may have: this package's, and Detectron2's that fail obscurely."""

import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from detectron2.config import CfgNode
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
)
from fvcore.common.registry import Registry
from PIL import Image

from ..errors import ConfigError, nearest
from ..layers import PAIRWISE_FORMS
from ..layers.nonlocal_block import AXES, build_norm
from .config_file import short_repr
from .keys import BACKBONE_KEY, HEAD_KEY, STAGES

# Detectron2's keys whose wrong values end in an error that does not name them.
_REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": ROI_KEYPOINT_HEAD_REGISTRY,
}
_NOT_REGISTERED = ("", "PrecomputedProposals")  # as Detectron2 calls nothing at all
_REQUIRED = ("MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME")
_RESNET_DEPTHS = (18, 34, 50, 101, 152)
_SMALLEST = {
    "SOLVER.MAX_ITER": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.BASE_LR": 0,
    "SOLVER.ACCUMULATE_STEPS": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "INPUT.CLIP.FRAMES": 1,
    "INPUT.CLIP.STRIDE": 1,
    "TEST.CLIPS": 1,
    "TEST.CROPS": 1,
    "MODEL.VIDEO_CLASSIFIER.NUM_CLASSES": 1,
}


def check_config(cfg: CfgNode) -> None:
    """Raise ConfigError, naming key, value and what is allowed, for a value that cannot work.

    Blocks that are asked for but that the chosen backbone or head would not build are an error
    too. Builders and scripts call this; a registered builder or head of your own counts as one
    that builds blocks if it has an attribute ``builds_nonlocal_blocks = True``.
    """
    _check_options(BACKBONE_KEY, cfg.MODEL.RESNETS.NON_LOCAL)
    _check_after_blocks(cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS)
    _check_clip_options(cfg)
    if any(cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS):
        _check_builds(
            f"{BACKBONE_KEY}.AFTER_BLOCKS", BACKBONE_REGISTRY, "BACKBONE", cfg.MODEL.BACKBONE.NAME
        )

    head = cfg.MODEL.ROI_KEYPOINT_HEAD
    _check_options(HEAD_KEY, head.NON_LOCAL)
    widths = head.CONV_DIMS
    if not isinstance(widths, list | tuple) or not all(type(w) is int and w > 0 for w in widths):
        raise ConfigError(
            f"MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS is {widths}; allowed: a list of widths from 1 on"
        )
    every_key, every = f"{HEAD_KEY}.EVERY_CONVS", head.NON_LOCAL.EVERY_CONVS
    convs = len(widths)
    if type(every) is not int or not 0 <= every <= convs:
        raise ConfigError(f"{every_key} is {every}; allowed: 0 (off) to {convs}, the head's depth")
    if every:
        if not cfg.MODEL.KEYPOINT_ON:
            raise ConfigError(f"{every_key} is {every}, but MODEL.KEYPOINT_ON is False: no head")
        _check_builds(every_key, ROI_KEYPOINT_HEAD_REGISTRY, "ROI_KEYPOINT_HEAD", head.NAME)
        reduction = head.NON_LOCAL.REDUCTION
        if any(width % reduction for width in widths):
            raise ConfigError(
                f"{HEAD_KEY}.REDUCTION is {reduction}; allowed: a divisor of each of "
                f"{list(widths)}, the head's widths"
            )

    _check_smallest(cfg, "SOLVER.ACCUMULATE_STEPS")
    _check_video(cfg)


def check_detectron2_keys(cfg: CfgNode) -> None:
    """Raise ConfigError for values of Detectron2's own keys that would end a run obscurely."""
    for key, registry in _REGISTRIES.items():
        name = attrgetter(key)(cfg)
        if name not in registry and (key in _REQUIRED or name not in _NOT_REGISTERED):
            known = nearest(str(name), [name for name, _ in registry])
            raise ConfigError(f"{key} is {short_repr(name)}, which is not registered.{known}")
    for key in _SMALLEST:
        _check_smallest(cfg, key)
    _check_channels(cfg)
    builder = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)
    is_stock = builder.__module__.startswith(("detectron2.", "nl_detectron."))
    depth = cfg.MODEL.RESNETS.DEPTH
    if is_stock and "_resnet_" in cfg.MODEL.BACKBONE.NAME and depth not in _RESNET_DEPTHS:
        raise ConfigError(
            f"MODEL.RESNETS.DEPTH is {depth}; allowed: {', '.join(map(str, _RESNET_DEPTHS))}"
        )
    if cfg.INPUT.MIN_SIZE_TRAIN in ((), [], None):
        raise ConfigError("INPUT.MIN_SIZE_TRAIN is empty; allowed: one or more sizes in pixels")


def _check_channels(cfg: CfgNode) -> None:
    """INPUT.FORMAT is a format of images with as many channels as MODEL.PIXEL_MEAN."""
    channels, means = cfg.INPUT.FORMAT, len(cfg.MODEL.PIXEL_MEAN)
    try:
        shape = convert_PIL_to_numpy(Image.new("RGB", (1, 1)), channels).shape
    except Exception as error:  # of any type, from Pillow
        raise ConfigError(
            f"INPUT.FORMAT is {short_repr(channels)}; allowed: BGR, RGB, L, YUV-BT.601 and Pillow's"
        ) from error
    if shape[2:] != (means,):
        raise ConfigError(
            f"INPUT.FORMAT is {short_repr(channels)}, of {(*shape, 1)[2]} channels, but "
            f"MODEL.PIXEL_MEAN has {means} values; set it and MODEL.PIXEL_STD to one for each"
        )


def _check_smallest(cfg: CfgNode, key: str) -> None:
    value = attrgetter(key)(cfg)
    if value is None or not _SMALLEST[key] <= value < math.inf:
        raise ConfigError(f"{key} is {value}; allowed: {_SMALLEST[key]} or more")


def _check_after_blocks(after_blocks: Any) -> None:
    key = f"{BACKBONE_KEY}.AFTER_BLOCKS"
    stages = list(after_blocks) if isinstance(after_blocks, list | tuple) else []
    if len(stages) != len(STAGES) or not all(isinstance(s, list | tuple) for s in stages):
        raise ConfigError(
            f"{key} is {after_blocks}; allowed: {len(STAGES)} lists, one each for "
            f"{', '.join(STAGES)}"
        )
    for stage, blocks in zip(STAGES, stages, strict=True):
        if not all(type(block) is int for block in blocks):
            raise ConfigError(f"{key} has {list(blocks)} for {stage}; allowed: whole numbers")


def _check_clip_options(cfg: CfgNode) -> None:
    """AXES and GROUP_FRAMES have values that a block knows, and a backbone of clips."""
    node = cfg.MODEL.RESNETS.NON_LOCAL
    _check_choice(f"{BACKBONE_KEY}.AXES", node.AXES, AXES)
    groups = list(node.GROUP_FRAMES) if isinstance(node.GROUP_FRAMES, list | tuple) else []
    if len(groups) != len(STAGES) or not all(type(g) is int and g >= 0 for g in groups):
        raise ConfigError(
            f"{BACKBONE_KEY}.GROUP_FRAMES is {node.GROUP_FRAMES}; allowed: {len(STAGES)} numbers "
            f"of time steps, one each for {', '.join(STAGES)}, 0 for all"
        )
    name = cfg.MODEL.BACKBONE.NAME
    if name in BACKBONE_REGISTRY and getattr(BACKBONE_REGISTRY.get(name), "takes_clips", False):
        return
    if AXES[0] != node.AXES or any(groups):
        raise ConfigError(
            f"{BACKBONE_KEY} has AXES {node.AXES} and GROUP_FRAMES {groups}, but the backbone "
            f"'{name}' takes images; allowed: AXES {AXES[0]} and GROUP_FRAMES {[0] * len(STAGES)}"
        )


def _check_video(cfg: CfgNode) -> None:
    share = cfg.DATALOADER.MAX_BAD_VIDEOS
    if share is None or not 0 <= share <= 1:
        raise ConfigError(f"DATALOADER.MAX_BAD_VIDEOS is {share}; allowed: a share, 0 to 1")
    for key in ("INPUT.CLIP.FRAMES", "INPUT.CLIP.STRIDE", "TEST.CLIPS", "TEST.CROPS"):
        _check_smallest(cfg, key)
    classifier, key = cfg.MODEL.VIDEO_CLASSIFIER, "MODEL.VIDEO_CLASSIFIER"
    _check_smallest(cfg, f"{key}.NUM_CLASSES")
    dropout = classifier.DROPOUT
    if dropout is None or not 0 <= dropout < 1:
        raise ConfigError(f"{key}.DROPOUT is {dropout}; allowed: 0 to below 1")
    _check_choice(f"{key}.MULTI_LABEL", classifier.MULTI_LABEL, (True, False))
    _check_choice("TEST.VIEW_POOLING", cfg.TEST.VIEW_POOLING, ("mean", "max"))


def _check_choice(key: str, value: Any, allowed: Sequence[Any]) -> None:
    if value not in allowed:
        raise ConfigError(f"{key} is {short_repr(value)}; allowed: {', '.join(map(str, allowed))}")


def _check_options(key: str, node: CfgNode) -> None:
    _check_choice(f"{key}.PAIRWISE", node.PAIRWISE, PAIRWISE_FORMS)
    for name in ("REDUCTION", "SUBSAMPLE"):
        if type(node[name]) is not int or node[name] < 1:
            raise ConfigError(f"{key}.{name} is {node[name]}; allowed: 1 or more")
    if type(node.SCALE) is not bool:
        raise ConfigError(f"{key}.SCALE is {node.SCALE}; allowed: True, False")
    if type(node.INIT_STD) is not float or not 0 < node.INIT_STD < math.inf:
        raise ConfigError(f"{key}.INIT_STD is {node.INIT_STD}; allowed: a number above 0")
    try:
        build_norm(node.NORM, channels=32)
    except ValueError as error:
        raise ConfigError(f"{key}.NORM: {error}") from error


def _check_builds(key: str, registry: Registry, section: str, name: str) -> None:
    """Blocks are asked for by `key`: the registered `name` must be one that builds them."""
    capable = [n for n, entry in registry if getattr(entry, "builds_nonlocal_blocks", False)]
    if name not in capable:
        raise ConfigError(
            f"{key} asks for blocks, which MODEL.{section}.NAME '{name}' does not build; "
            f"allowed: {', '.join(capable)}"
        )
