"""Classification of videos as a task of the engine."""

from typing import Any

from detectron2.config import CfgNode
from torch import nn

from ..config import Config
from ..data.video.build import TestLoader, build_test_loader, build_train_loader
from ..data.video.skipping import log_skipped, skipped_file
from ..evaluation.video_evaluation import VideoEvaluator, build_evaluator
from ..tasks import Task
from ..utils.errors import ConfigError, UserError


def check(cfg: Config) -> None:
    """Raise ConfigError for values of Detectron2's own keys that have no meaning for clips."""
    if not isinstance(cfg, CfgNode):
        raise UserError("videos are trained from YAML configs; there is no LazyConfig for them")
    allowed = {
        "INPUT.MIN_SIZE_TRAIN_SAMPLING": (cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING, ("choice", "range")),
        "INPUT.RANDOM_FLIP": (cfg.INPUT.RANDOM_FLIP, ("horizontal", "none")),
        "DATALOADER.SAMPLER_TRAIN": (cfg.DATALOADER.SAMPLER_TRAIN, ("TrainingSampler",)),
    }
    if cfg.INPUT.CROP.ENABLED:
        allowed["INPUT.CROP.TYPE"] = (cfg.INPUT.CROP.TYPE, ("absolute",))
    for key, (value, values) in allowed.items():
        if value not in values:
            raise ConfigError(f"{key} is '{value}'; allowed for videos: {', '.join(values)}")
    sizes = tuple(cfg.INPUT.MIN_SIZE_TRAIN)
    for key, size in [*(("TRAIN", s) for s in sizes), ("TEST", cfg.INPUT.MIN_SIZE_TEST)]:
        if type(size) is not int or size < 1:
            raise ConfigError(f"INPUT.MIN_SIZE_{key} has {size}; allowed for videos: 1 or more")
    is_range = cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range"
    if is_range and (len(sizes) != 2 or sizes[0] > sizes[1]):
        raise ConfigError(
            f"INPUT.MIN_SIZE_TRAIN is {sizes}; allowed with MIN_SIZE_TRAIN_SAMPLING 'range': the "
            "smallest and the largest size"
        )
    if not cfg.INPUT.CROP.ENABLED:
        return
    crop = tuple(cfg.INPUT.CROP.SIZE)
    if len(crop) != 2 or not all(side == int(side) and 1 <= side <= min(sizes) for side in crop):
        raise ConfigError(
            f"INPUT.CROP.SIZE is {list(crop)}; allowed for videos: height and width in pixels, at "
            f"most {min(sizes)}, the smallest INPUT.MIN_SIZE_TRAIN"
        )


def go_on(cfg: CfgNode, name: str, model: nn.Module, loader: Any, evaluator: Any) -> Any:
    """Return a loader without the videos that an evaluation which was cut off has finished.

    Loaders and evaluators of other classes than ours start from the beginning.
    """
    if not (isinstance(loader, TestLoader) and isinstance(evaluator, VideoEvaluator)):
        return loader
    done = evaluator.resume(model)
    return build_test_loader(cfg, name, without=done) if done else loader


TASK = Task(
    build_train_loader=build_train_loader,
    build_test_loader=build_test_loader,
    build_evaluator=build_evaluator,
    check=check,
    go_on=go_on,
    start=lambda cfg: skipped_file(cfg.OUTPUT_DIR).unlink(missing_ok=True),
    report=lambda cfg: log_skipped(cfg.OUTPUT_DIR),
)
