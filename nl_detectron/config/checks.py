"""Checks of config values: this package's keys, and Detectron2's keys that fail obscurely."""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from detectron2.config import CfgNode
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

from ..layers import PAIRWISE_FORMS
from ..layers.nonlocal_block import AXES, build_norm
from ..utils.errors import ConfigError, nearest, short_repr
from .defaults import BACKBONE_KEY, HEAD_KEY, STAGES

Entry = TypeVar("Entry", bound=Callable[..., Any])

# Registered backbone builders and keypoint heads that build the blocks of NON_LOCAL.
BLOCK_BUILDERS: set[Callable[..., Any]] = set()
# Names that a trainer knows. Add those that custom methods read.
SCHEDULERS = {"WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"}
SAMPLERS = {
    f"{kind}TrainingSampler"
    for kind in ("", "RepeatFactor", "RandomSubset", "Weighted", "WeightedCategory")
}


def builds_nonlocal_blocks(entry: Entry) -> Entry:
    """Mark a registered backbone builder or keypoint head that builds non-local blocks.

    `check_config` refuses a config with blocks in any other one.
    """
    BLOCK_BUILDERS.add(entry)
    return entry


class Rule(NamedTuple):
    """Allowed values of a key; they count if the switch `when` is on."""

    key: str
    expected: str
    holds: Callable[[Any], bool]
    when: str = ""


def _at_least(key: str, smallest: int) -> Rule:
    return Rule(key, f"{smallest} or more", lambda v: v is not None and smallest <= v < math.inf)


def _one_of(key: str, *values: Any, when: str = "") -> Rule:
    return Rule(key, " or ".join(map(str, values)), lambda v: v in values, when)


def _each(test: Callable[[Any], bool], length: int | None = None) -> Callable[[Any], bool]:
    """Return a test of lists whose elements pass `test`."""
    return lambda v: (
        isinstance(v, list | tuple) and (length is None or len(v) == length) and all(map(test, v))
    )


def _whole(smallest: float) -> Callable[[Any], bool]:
    return lambda v: type(v) is int and v >= smallest


def _is_norm(norm: Any) -> bool:
    try:
        build_norm(norm, channels=32)
    except ValueError:
        return False
    return True


def _block_rules(key: str) -> list[Rule]:
    return [
        _one_of(f"{key}.PAIRWISE", *PAIRWISE_FORMS),
        Rule(f"{key}.REDUCTION", "1 or more", _whole(1)),
        Rule(f"{key}.SUBSAMPLE", "1 or more", _whole(1)),
        Rule(f"{key}.NORM", 'a norm of detectron2.layers.get_norm, such as BN, or ""', _is_norm),
        Rule(f"{key}.SCALE", "True or False", lambda v: type(v) is bool),
        Rule(f"{key}.INIT_STD", "above 0", lambda v: type(v) is float and 0 < v < math.inf),
    ]


_STAGES = f"one each for {', '.join(STAGES)}"
_OURS = [
    *_block_rules(BACKBONE_KEY),
    Rule(
        f"{BACKBONE_KEY}.AFTER_BLOCKS",
        f"4 lists of whole numbers, {_STAGES}",
        _each(_each(_whole(-math.inf)), len(STAGES)),
    ),
    _one_of(f"{BACKBONE_KEY}.AXES", *AXES),
    Rule(
        f"{BACKBONE_KEY}.GROUP_FRAMES",
        f"4 numbers of time steps, {_STAGES}, 0 for all",
        _each(_whole(0), len(STAGES)),
    ),
    _one_of("MODEL.VIDEO_RESNET.TEMPORAL", "c2d", "i3d_3x1x1", "i3d_3x3x3"),
    _one_of("MODEL.VIDEO_RESNET.STEM_TIME_STRIDE", 1, 2),
    _one_of("MODEL.VIDEO_RESNET.POOLING", "official", "paper"),
    *_block_rules(HEAD_KEY),
    Rule(f"{HEAD_KEY}.EVERY_CONVS", "0 (off) or more", _whole(0)),
    Rule("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "a list of widths from 1 on", _each(_whole(1))),
    _at_least("SOLVER.ACCUMULATE_STEPS", 1),
    _at_least("INPUT.CLIP.FRAMES", 1),
    _at_least("INPUT.CLIP.STRIDE", 1),
    _at_least("TEST.CLIPS", 1),
    _at_least("TEST.CROPS", 1),
    _one_of("TEST.VIEW_POOLING", "mean", "max"),
    _at_least("TEST.ATTENTION_SAMPLES", 0),
    _at_least("MODEL.VIDEO_CLASSIFIER.NUM_CLASSES", 1),
    Rule(
        "MODEL.VIDEO_CLASSIFIER.DROPOUT",
        "0 to below 1",
        lambda v: v is not None and 0 <= v < 1,
    ),
    _one_of("MODEL.VIDEO_CLASSIFIER.MULTI_LABEL", True, False),
    Rule("DATALOADER.MAX_BAD_VIDEOS", "0 to 1", lambda v: v is not None and 0 <= v <= 1),
]
_DETECTRON2 = [
    _at_least("SOLVER.MAX_ITER", 1),
    _at_least("SOLVER.IMS_PER_BATCH", 1),
    _at_least("SOLVER.CHECKPOINT_PERIOD", 1),
    _at_least("SOLVER.BASE_LR", 0),
    Rule("SOLVER.STEPS", "a list of iterations", _each(lambda v: isinstance(v, int | float))),
    _one_of("SOLVER.WARMUP_METHOD", "constant", "linear"),
    _one_of(
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        *("value", "norm", "full_model"),
        when="SOLVER.CLIP_GRADIENTS.ENABLED",
    ),
    _one_of("MODEL.KEYPOINT_ON", False, when="TEST.AUG.ENABLED"),  # Detectron2 has no such code
    _at_least("DATALOADER.NUM_WORKERS", 0),
    _at_least("MODEL.ROI_HEADS.NUM_CLASSES", 1),
    _at_least("MODEL.RETINANET.NUM_CLASSES", 1),
    Rule("INPUT.MIN_SIZE_TRAIN", "one or more sizes in pixels", bool),
    _one_of("INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice", "range"),
    _one_of("INPUT.RANDOM_FLIP", "horizontal", "vertical", "none"),
    _one_of(
        "INPUT.CROP.TYPE",
        *("relative_range", "relative", "absolute", "absolute_range"),
        when="INPUT.CROP.ENABLED",
    ),
    _one_of("INPUT.MASK_FORMAT", "polygon", "bitmask", when="MODEL.MASK_ON"),
]
_CLIPS = [  # Detectron2's keys, where the model takes videos
    _one_of("INPUT.RANDOM_FLIP", "horizontal", "none"),
    _one_of("INPUT.CROP.TYPE", "absolute", when="INPUT.CROP.ENABLED"),
    _one_of("DATALOADER.SAMPLER_TRAIN", "TrainingSampler"),
    Rule(
        "MODEL.RESNETS.OUT_FEATURES",
        f"some of stem, {', '.join(STAGES)}",
        lambda v: v and set(v) <= {"stem", *STAGES},
    ),
    Rule("MODEL.RESNETS.DEFORM_ON_PER_STAGE", "False for all stages", lambda v: not any(v)),
    Rule("INPUT.MIN_SIZE_TRAIN", "sizes of 1 or more", _each(_whole(1))),
    Rule("INPUT.MIN_SIZE_TEST", "1 or more", _whole(1)),
]
_NAMES: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": ROI_KEYPOINT_HEAD_REGISTRY,
    "SOLVER.LR_SCHEDULER_NAME": SCHEDULERS,
    "DATALOADER.SAMPLER_TRAIN": SAMPLERS,
}
_REQUIRED = ("MODEL.META_ARCHITECTURE", "MODEL.BACKBONE.NAME")
_NO_NAMES = ("", "PrecomputedProposals")  # Detectron2 then looks up no name
_WITHOUT_KEYPOINTS = ("ProposalNetwork", "RetinaNet", "SemanticSegmentor", "VideoClassifier")


def check_config(cfg: CfgNode) -> None:
    """Check the values of this package's keys.

    `load_config`, this package's builders and ``nl_detectron.utils.env`` call this.

    Raises:
        ConfigError: a value is invalid, or the chosen backbone or head does not build the blocks
            of the config. `builds_nonlocal_blocks` marks custom builders that do. The message
            names the key, the allowed values and the value.
    """
    _check(cfg, _OURS)
    if any(cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS):
        _check_builds(
            f"{BACKBONE_KEY}.AFTER_BLOCKS", BACKBONE_REGISTRY, "BACKBONE", cfg.MODEL.BACKBONE.NAME
        )
    head, key = cfg.MODEL.ROI_KEYPOINT_HEAD, f"{HEAD_KEY}.EVERY_CONVS"
    every, depth = head.NON_LOCAL.EVERY_CONVS, len(head.CONV_DIMS)
    if every > depth:
        raise _error(key, f"0 (off) to {depth}, the head's depth", every)
    if not every:
        return
    if not cfg.MODEL.KEYPOINT_ON or cfg.MODEL.META_ARCHITECTURE in _WITHOUT_KEYPOINTS:
        raise _error(
            key, "0 without a keypoint head (MODEL.KEYPOINT_ON, MODEL.META_ARCHITECTURE)", every
        )
    _check_builds(key, ROI_KEYPOINT_HEAD_REGISTRY, "ROI_KEYPOINT_HEAD", head.NAME)


def check_detectron2_keys(cfg: CfgNode) -> None:
    """Raise ConfigError for values of Detectron2's keys that end a run with an obscure error.

    `modeling.build_model` does so for values that do not suit each other in the model.
    """
    for key, names in _NAMES.items():
        name = attrgetter(key)(cfg)
        if name not in names and (key in _REQUIRED or name not in _NO_NAMES):
            known = [n if isinstance(n, str) else n[0] for n in names]
            raise ConfigError(
                f"{key} is {short_repr(name)}, which is not registered.{nearest(str(name), known)}"
            )
    _check(cfg, _DETECTRON2)
    last = cfg.SOLVER.MAX_ITER
    # Detectron2 ignores later steps, with a warning.
    steps = [0, *(step for step in cfg.SOLVER.STEPS if step <= last), last]
    ascending = all(earlier < later for earlier, later in pairwise(steps))
    if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and not ascending:
        raise _error(
            "SOLVER.STEPS",
            f"ascending and below SOLVER.MAX_ITER, which is {last}",
            cfg.SOLVER.STEPS,
        )


def check_clips(cfg: CfgNode) -> None:
    """Raise ConfigError for values of Detectron2's keys that do not suit clips."""
    _check(cfg, _CLIPS)
    sizes, crop = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP.SIZE
    is_range = cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range"
    if is_range and (len(sizes) != 2 or sizes[0] > sizes[1]):
        raise _error(
            "INPUT.MIN_SIZE_TRAIN",
            "the smallest and the largest size with MIN_SIZE_TRAIN_SAMPLING 'range'",
            sizes,
        )
    fits = _each(lambda side: side == int(side) and 1 <= side <= min(sizes), 2)
    if cfg.INPUT.CROP.ENABLED and not fits(crop):
        raise _error(
            "INPUT.CROP.SIZE",
            f"height and width, at most the smallest INPUT.MIN_SIZE_TRAIN, {min(sizes)}",
            crop,
        )


def _check(cfg: CfgNode, rules: Iterable[Rule]) -> None:
    for rule in rules:
        value = attrgetter(rule.key)(cfg)
        if (not rule.when or attrgetter(rule.when)(cfg)) and not rule.holds(value):
            raise _error(rule.key, rule.expected, value)


def _check_builds(key: str, registry: Registry, section: str, name: str) -> None:
    """Check that the registered `name` builds the blocks of `key`."""
    capable = [n for n, entry in registry if entry in BLOCK_BUILDERS]
    if name not in capable:
        raise ConfigError(
            f"{key} adds blocks, so MODEL.{section}.NAME must be one of {', '.join(capable)}, "
            f"got '{name}'"
        )


def _error(key: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(f"{key} must be {expected}, got {short_repr(value)}")
