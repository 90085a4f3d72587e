"""Loading of config files, with errors in one line, and settings of a run from both kinds."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

import torch
from detectron2.config import CfgNode, get_cfg
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError, safe_load

from ..utils.errors import ConfigError, nearest, one_line, short_repr
from .checks import check_config, check_detectron2_keys
from .defaults import add_nonlocal_config

# A YAML config, or a LazyConfig.
Config: TypeAlias = CfgNode | DictConfig

_PACKAGE_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
# Keys of a LazyConfig, and their defaults. An evaluation needs few of them; `check_lazy_run`
# requires those of a training.
_LAZY_KEYS: dict[str, tuple[str, Any]] = {
    "OUTPUT_DIR": ("train.output_dir", ""),
    "MODEL.DEVICE": ("train.device", "cpu"),
    "MODEL.WEIGHTS": ("train.init_checkpoint", ""),
    "SOLVER.MAX_ITER": ("train.max_iter", 0),
    "SOLVER.ACCUMULATE_STEPS": ("train.accumulate_steps", 1),
    "SOLVER.AMP.ENABLED": ("train.amp.enabled", False),
    "SOLVER.CHECKPOINT_PERIOD": ("train.checkpointer.period", 0),
    "TEST.EVAL_PERIOD": ("train.eval_period", 0),
    "TEST.EXPECTED_RESULTS": ("train.expected_results", []),
    "TEST.ATTENTION_SAMPLES": ("train.attention_samples", 0),
    "WANDB.PROJECT": ("train.wandb_project", ""),
}
# Keys that only a LazyConfig has, with Detectron2's values for a YAML config.
_LAZY_ONLY = {
    "train.checkpointer.max_to_keep": None,
    "train.log_period": 20,
    "train.ddp": {"broadcast_buffers": False},
}


def load_config(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Return Detectron2's defaults with our keys, the YAML file and then `opts` merged in.

    No code in the file is run. ``MODEL.DEVICE`` becomes ``cuda`` if it is available, otherwise
    ``cpu``, unless the file or `opts` set it.

    Raises:
        UserError: for a missing or unreadable file, an unknown key (with the nearest known one),
            or an invalid value.
    """
    cfg = get_cfg()
    add_nonlocal_config(cfg)
    cfg.MODEL.DEVICE = ""  # not set
    path = find_config_file(config_file)
    with _errors(str(path), cfg):
        _merge_file(cfg, path)
    with _errors("on the command line", cfg):
        cfg.merge_from_list(list(opts or ()))
    if cfg.MODEL.DEVICE == "":
        cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    check_device("MODEL.DEVICE", cfg.MODEL.DEVICE, "MODEL.DEVICE cpu")
    check_config(cfg)
    check_detectron2_keys(cfg)
    return cfg


def _merge_file(cfg: CfgNode, path: Path) -> None:
    """Merge a YAML file, after its ``_BASE_``: one or several files, or packaged configs."""
    with open(path, encoding="utf-8") as file:
        content = safe_load(file)
    bases = content.pop("_BASE_", [])
    for base in [bases] if isinstance(bases, str) else bases:
        _merge_file(cfg, find_config_file(base, path.parent))
    cfg.merge_from_other_cfg(CfgNode(content))


def is_video(cfg: Config) -> bool:
    """Return True if the model of a config, by ``MODEL.META_ARCHITECTURE``, takes videos."""
    if isinstance(cfg, CfgNode):
        return cfg.MODEL.META_ARCHITECTURE == "VideoClassifier"
    target = cfg.model.get("_target_", "")
    return str(getattr(target, "__name__", target)).rpartition(".")[2] == "VideoClassifier"


def setting(cfg: Config, key: str) -> Any:
    """Return a setting of a run from a YAML config or a LazyConfig.

    Args:
        key: key of a YAML config, such as ``OUTPUT_DIR`` for ``train.output_dir``; a LazyConfig's
            key if YAML configs have none.
    """
    if isinstance(cfg, CfgNode):
        return _LAZY_ONLY[key] if key in _LAZY_ONLY else attrgetter(key)(cfg)
    lazy_key, default = _LAZY_KEYS.get(key, (key, None))
    found = OmegaConf.select(cfg, lazy_key, default=default)
    return OmegaConf.to_object(found) if OmegaConf.is_config(found) else found


def dataset_names(cfg: Config, part: str) -> tuple[str, ...]:
    """Return the names of the datasets of a config; `part` is ``train`` or ``test``."""
    if isinstance(cfg, CfgNode):
        return tuple(cfg.DATASETS[part.upper()])
    found = OmegaConf.select(cfg, f"dataloader.{part}.dataset.names") or ()
    return (found,) if isinstance(found, str) else tuple(found)


def find_config_file(config_file: str | os.PathLike[str], folder: Path = Path()) -> Path:
    """Return the path of a config: a file, or the packaged config of that zoo name.

    Args:
        config_file: path, or name relative to ``configs/`` such as ``quickstart.yaml``.
        folder: folder that a relative path starts from.

    Raises:
        ConfigError: neither exists; the message has the nearest name.
    """
    path = folder / Path(config_file).expanduser()
    for file in (path, _PACKAGE_CONFIGS / config_file):
        if file.is_file():
            return file
    names = {p.name: p.relative_to(_PACKAGE_CONFIGS) for p in _PACKAGE_CONFIGS.rglob("*.*")}
    names |= {p.name: p for p in path.parent.glob("*.*")}
    match = get_close_matches(path.name, names, n=1)
    hint = f" Did you mean '{names[match[0]]}'?" if match else ""
    raise ConfigError(f"no config file {config_file}.{hint}")


def check_device(key: str, device: str, cpu_option: str) -> None:
    """Raise ConfigError for a device that torch does not have; `cpu_option` selects the CPU."""
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{key} must be a device, such as cpu or cuda, got '{device}'") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{key} is '{device}', but torch finds no GPU; use {cpu_option}")


@contextmanager
def _errors(source: str, cfg: CfgNode) -> Iterator[None]:
    """Turn errors of loading and merging into a ConfigError that names `source`."""
    try:
        yield
    except RecursionError:
        raise ConfigError(
            f"{source}: its _BASE_ files form a cycle, or it is nested too deeply"
        ) from None
    except (KeyError, ValueError, AssertionError, OSError, YAMLError) as error:
        # A KeyError's own text has its message in quotes.
        message = one_line(error.args[0] if isinstance(error, KeyError) else error)
        if message.startswith("Non-existent"):  # yacs: "Non-existent config key: KEY"
            key, known = message.rpartition("key:")[2].strip(), list(_keys(cfg))
            # The same name in another section comes first.
            same_name = [k for k in known if k.endswith(f".{key.rpartition('.')[2]}")]
            message = f"unknown key {short_repr(key)}.{nearest(key, same_name or known)}"
        if len(message) > 300:  # a value in place of a section; the end names the key
            message = f"{message[:150]}...{message[-150:]}"
        raise ConfigError(f"{source}: {message}") from error
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"{source}: expected keys, such as 'MODEL: {{...}}', got other YAML ({one_line(error)})"
        ) from error


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
