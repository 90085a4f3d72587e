"""The config keys of non-local blocks: their defaults, and what values they may have.

```yaml
MODEL:
  RESNETS:
    NON_LOCAL:
      AFTER_BLOCKS: [[], [], [], []]   # res2..res5: 0-based residual blocks followed by a block;
                                       # negative counts from the end: -2 is before the last
      PAIRWISE: embedded_gaussian      # gaussian, embedded_gaussian, dot_product, concatenation
      REDUCTION: 2                     # inner width = channels / REDUCTION
      SUBSAMPLE: 2                     # stride of the max-pooling before phi and g; 1 is off
      NORM: BN                         # after W_z: what detectron2's get_norm takes; "" is none
      SCALE: True                      # softmax forms divide by the square root of the width
  ROI_KEYPOINT_HEAD:
    NON_LOCAL:
      EVERY_CONVS: 0                   # a block after every so many convolutions; 0 is off
      ...                              # and PAIRWISE to SCALE as above
SOLVER:
  ACCUMULATE_STEPS: 1                  # batches of IMS_PER_BATCH that make up one update
WANDB:
  PROJECT: ""                          # of Weights & Biases, where curves go too; "" is off
```
"""

from dataclasses import dataclass, fields
from typing import Any, Self

from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, ROI_KEYPOINT_HEAD_REGISTRY
from fvcore.common.registry import Registry

from .errors import ConfigError
from .layers import PAIRWISE_FORMS
from .layers.nonlocal_block import build_norm

BACKBONE_KEY = "MODEL.RESNETS.NON_LOCAL"
HEAD_KEY = "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL"
STAGES = ("res2", "res3", "res4", "res5")


@dataclass(frozen=True, kw_only=True)
class NonLocalOptions:
    """How a block is made, wherever it goes; the keys PAIRWISE to SCALE of the module's table."""

    pairwise: str = "embedded_gaussian"
    reduction: int = 2
    subsample: int = 2
    norm: str = "BN"
    scale: bool = True

    @classmethod
    def from_config(cls, node: CfgNode) -> Self:
        return cls(**{field.name: node[field.name.upper()] for field in fields(cls)})

    @classmethod
    def default_node(cls) -> dict[str, Any]:
        return {field.name.upper(): field.default for field in fields(cls)}


def add_nonlocal_config(cfg: CfgNode) -> None:
    """Add this package's keys to `cfg`. With their defaults every model is built as before."""
    defaults = NonLocalOptions.default_node()
    cfg.MODEL.RESNETS.NON_LOCAL = CfgNode({"AFTER_BLOCKS": [[] for _ in STAGES], **defaults})
    cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL = CfgNode({"EVERY_CONVS": 0, **defaults})
    cfg.SOLVER.ACCUMULATE_STEPS = 1
    cfg.WANDB = CfgNode({"PROJECT": ""})


def check_config(cfg: CfgNode) -> None:
    """Raise ConfigError, naming key, value and what is allowed, for a value that cannot work.

    Blocks that are asked for but that the chosen backbone or head would not build are an error
    too. Builders and scripts call this; a registered builder or head of your own counts as one
    that builds blocks if it has an attribute ``builds_nonlocal_blocks = True``.
    """
    _check_options(BACKBONE_KEY, cfg.MODEL.RESNETS.NON_LOCAL)
    _check_after_blocks(cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS)
    if any(cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS):
        _check_builds(
            f"{BACKBONE_KEY}.AFTER_BLOCKS", BACKBONE_REGISTRY, "BACKBONE", cfg.MODEL.BACKBONE.NAME
        )

    head = cfg.MODEL.ROI_KEYPOINT_HEAD
    _check_options(HEAD_KEY, head.NON_LOCAL)
    every_key, every = f"{HEAD_KEY}.EVERY_CONVS", head.NON_LOCAL.EVERY_CONVS
    convs = len(head.CONV_DIMS)
    if not 0 <= every <= convs:
        raise ConfigError(f"{every_key} is {every}; allowed: 0 (off) to {convs}, the head's depth")
    if every:
        if not cfg.MODEL.KEYPOINT_ON:
            raise ConfigError(f"{every_key} is {every}, but MODEL.KEYPOINT_ON is False: no head")
        _check_builds(every_key, ROI_KEYPOINT_HEAD_REGISTRY, "ROI_KEYPOINT_HEAD", head.NAME)
        reduction = head.NON_LOCAL.REDUCTION
        if any(width % reduction for width in head.CONV_DIMS):
            raise ConfigError(
                f"{HEAD_KEY}.REDUCTION is {reduction}; allowed: a divisor of each of "
                f"{list(head.CONV_DIMS)}, the head's widths"
            )

    if cfg.SOLVER.ACCUMULATE_STEPS < 1:
        raise ConfigError(
            f"SOLVER.ACCUMULATE_STEPS is {cfg.SOLVER.ACCUMULATE_STEPS}; allowed: 1 or more"
        )


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


def _check_options(key: str, node: CfgNode) -> None:
    if node.PAIRWISE not in PAIRWISE_FORMS:
        allowed = ", ".join(PAIRWISE_FORMS)
        raise ConfigError(f"{key}.PAIRWISE is '{node.PAIRWISE}'; allowed: {allowed}")
    for name in ("REDUCTION", "SUBSAMPLE"):
        if node[name] < 1:
            raise ConfigError(f"{key}.{name} is {node[name]}; allowed: 1 or more")
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
