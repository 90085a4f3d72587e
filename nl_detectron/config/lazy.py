"""LazyConfigs, which are Python files that are run, with errors in one line."""

import builtins
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..utils.errors import ConfigError, UserError, nearest, one_line, short_repr
from .load import Config, check_device, find_config_file, load_config

_LAZY_PARTS = ("model", "optimizer", "dataloader", "train")
# Keys of `train` that Detectron2's own LazyConfigs do not have.
_OUR_KEYS: dict[str, Any] = {
    "accumulate_steps": 1,
    "attention_samples": 0,
    "expected_results": [],
    "wandb_project": "",
}
# Further keys of a run; Detectron2's configs/common/train.py has those of `train`.
_LAZY_TO_TEST = ("dataloader.test", "dataloader.evaluator", "train.output_dir")
_LAZY_TO_TRAIN = ("lr_multiplier", "optimizer.params", "dataloader.train", "train.amp.enabled")
# Whole numbers that a training needs, and the smallest of each.
_LAZY_SMALLEST = {
    "train.max_iter": 1,
    "train.accumulate_steps": 1,
    "train.attention_samples": 0,
    "train.checkpointer.period": 1,
    "train.eval_period": 0,
    "train.log_period": 1,
}


def load_any_config(
    config_file: str | os.PathLike[str], opts: Sequence[str] = (), *, device: str | None = None
) -> Config:
    """Return a LazyConfig for a ``.py`` file, else a YAML config.

    Args:
        opts: overrides of that kind of config.
        device: replaces the config's.
    """
    if str(config_file).endswith(".py"):
        return load_lazy_config(config_file, [*opts, *([f"train.device={device}"] * bool(device))])
    return load_config(config_file, [*opts, *(("MODEL.DEVICE", device) if device else ())])


def load_lazy_config(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> DictConfig:
    """Return a LazyConfig file with ``key=value`` overrides in `opts`; errors as `load_config`.

    The file is a program, and this runs it.
    """
    path = find_config_file(config_file)
    cfg = _run_lazy_config(path)
    _check_parts(cfg, path)
    for key, default in _OUR_KEYS.items():
        cfg.train.setdefault(key, default)
    if not torch.cuda.is_available():
        cfg.train.device = "cpu"
    for option in opts or ():
        _check_lazy_key(cfg, option.lstrip("+~").partition("=")[0])
        try:
            LazyConfig.apply_overrides(cfg, [option])
        except Exception as error:  # Hydra's parser, if it is installed, has its own classes
            raise ConfigError(f"on the command line: '{option}': {one_line(error)}") from error
    _check_parts(cfg, path)
    check_device("train.device", cfg.train.get("device"), "train.device=cpu")
    return cfg


def _check_parts(cfg: DictConfig, path: Path) -> None:
    for part in _LAZY_PARTS:
        if not isinstance(found := cfg.get(part), DictConfig):
            raise ConfigError(f"{path}: '{part}' must be a section, got {short_repr(found)}")


def _run_lazy_config(path: Path) -> DictConfig:
    """Return Detectron2's config of a .py file; an error in the file names its line."""
    importing = builtins.__import__
    try:
        return LazyConfig.load(str(path))
    except Exception as error:  # the file is a program, which can raise anything
        # Detectron2's SyntaxError names the file, its cause the fault and the line.
        fault = error.__cause__ or error if isinstance(error, SyntaxError) else error
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {f.lineno}" for f in frames if f.filename.endswith(path.name)]
        raise UserError(
            f"{path}{''.join(lines[-1:])}: {type(fault).__name__}: {one_line(fault)}"
        ) from error
    finally:
        builtins.__import__ = importing  # after an error Detectron2 does not restore it


def _check_lazy_key(cfg: DictConfig, key: str) -> None:
    """Refuse a new key, except for an argument of a lazy call, whose signature checks it."""
    section, _, name = key.rpartition(".")
    if section:
        _check_lazy_key(cfg, section)
    node = OmegaConf.select(cfg, section) if section else cfg
    # OmegaConf checks an index into a list, or a key of a plain value.
    if isinstance(node, DictConfig) and name not in node and "_target_" not in node:
        known = [f"{section}.{other}".lstrip(".") for other in map(str, node)]
        raise ConfigError(f"on the command line: unknown key '{key}'.{nearest(key, known)}")


def check_lazy_run(cfg: DictConfig, path: str, *, eval_only: bool) -> None:
    """Raise ConfigError if a part that the run needs is missing or cannot be resolved."""
    for key in (*_LAZY_TO_TEST, *(() if eval_only else (*_LAZY_TO_TRAIN, *_LAZY_SMALLEST))):
        try:
            value = OmegaConf.select(cfg, key)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{path}: {one_line(error)}") from error
        if value is None:
            raise ConfigError(f"{path}: '{key}' is missing; the run needs it")
        smallest = _LAZY_SMALLEST.get(key)
        if smallest is not None and (type(value) is not int or value < smallest):
            raise ConfigError(f"{path}: {key} must be {smallest} or more, got {short_repr(value)}")
