"""Classification of videos as a task of the engine."""

import os
from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import ConfigError, UserError
from ..config import Config
from ..tasks import Task
from .evaluation import build_evaluator
from .loading import build_test_loader, build_train_loader


def check(cfg: Config) -> None:
    """Raise ConfigError for keys of the data that cannot work, UserError for lists not on disk."""
    if not isinstance(cfg, CfgNode):
        raise UserError("videos are trained from YAML configs; there is no LazyConfig for them")
    check_input(cfg)
    _check_files(dict.fromkeys(cfg.DATASETS.TRAIN + cfg.DATASETS.TEST))


def check_input(cfg: CfgNode) -> None:
    """Raise ConfigError for values of Detectron2's own keys that have no meaning for clips."""
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


def _check_files(names: Iterable[str]) -> None:
    for name in names:
        if name not in DatasetCatalog:
            continue  # the engine says so, with the nearest name
        metadata = MetadataCatalog.get(name)
        for path in (metadata.get("list_file"), metadata.get("video_root")):
            if path and not os.path.exists(path):
                root = os.environ.get("DETECTRON2_DATASETS")
                where = f"is '{root}'" if root else "is not set, so ./datasets is used"
                raise UserError(
                    f"data set '{name}' is not there: no {os.path.abspath(path)}. "
                    f"DETECTRON2_DATASETS {where}; point it at the folder that holds the data "
                    "sets, or use nl_clips_train and nl_clips_val, which need no download"
                )


TASK = Task(
    build_train_loader=build_train_loader,
    build_test_loader=build_test_loader,
    build_evaluator=build_evaluator,
    check=check,
)
