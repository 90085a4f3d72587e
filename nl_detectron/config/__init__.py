"""The config: keys that this package adds, checks of values, and reading both kinds of files."""

from .checks import (
    BLOCK_BUILDERS,
    SAMPLERS,
    SCHEDULERS,
    builds_nonlocal_blocks,
    check_clips,
    check_config,
    check_detectron2_keys,
)
from .defaults import (
    BACKBONE_KEY,
    CLASSES_KEYS,
    HEAD_KEY,
    STAGES,
    NonLocalOptions,
    add_nonlocal_config,
)
from .lazy import check_lazy_run, load_any_config, load_lazy_config
from .load import Config, dataset_names, is_video, load_config, setting

__all__ = [
    "BACKBONE_KEY",
    "BLOCK_BUILDERS",
    "CLASSES_KEYS",
    "HEAD_KEY",
    "SAMPLERS",
    "SCHEDULERS",
    "STAGES",
    "Config",
    "NonLocalOptions",
    "add_nonlocal_config",
    "builds_nonlocal_blocks",
    "check_clips",
    "check_config",
    "check_detectron2_keys",
    "check_lazy_run",
    "dataset_names",
    "is_video",
    "load_any_config",
    "load_config",
    "load_lazy_config",
    "setting",
]
