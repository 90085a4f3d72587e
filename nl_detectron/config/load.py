"""A YAML config: read without running code, and its errors in one line."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode, get_cfg

from ..utils.errors import ConfigError, nearest
from .checks import check_config, check_detectron2_keys
from .config_file import check_device, find_config_file, one_line, shortened
from .defaults import add_nonlocal_config

_DEVICE_NOT_SET = "not set"
_MAX_LENGTH = 300  # characters of a message
_UNKNOWN = ("Non-existent config key: ", "Non-existent key: ")  # how yacs begins to say so


def load_config(config_file: str | os.PathLike[str], opts: Sequence[str] = ()) -> CfgNode:
    """Return Detectron2's defaults with our keys, the YAML file and then `opts` merged in.

    No code in the file is run. ``MODEL.DEVICE`` becomes ``cuda`` or ``cpu``, whichever there is,
    unless the file or `opts` set it. Raises `UserError` for a missing or unreadable file,
    an unknown key (with the nearest known one), and a value that cannot work.
    """
    cfg = get_cfg()
    add_nonlocal_config(cfg)
    cfg.MODEL.DEVICE = _DEVICE_NOT_SET
    path = find_config_file(config_file)
    opts = list(opts or ())
    if opts[:1] == ["--"]:
        opts = opts[1:]
    with _errors(str(path), cfg):
        _merge_file(cfg, path)
    with _errors("on the command line", cfg):
        known = set(_keys(cfg))
        for key in opts[::2]:
            if key not in known:
                raise KeyError(f"{_UNKNOWN[0]}{key}")
        cfg.merge_from_list(opts)
    if cfg.MODEL.DEVICE == _DEVICE_NOT_SET:
        cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    check_device("MODEL.DEVICE", cfg.MODEL.DEVICE, "MODEL.DEVICE cpu")
    check_config(cfg)
    check_detectron2_keys(cfg)
    return cfg


def _merge_file(cfg: CfgNode, path: Path) -> None:
    """Merge a YAML file, after its ``_BASE_``: one or several files, or packaged configs."""
    with open(path, encoding="utf-8") as file:
        content = yaml.safe_load(file)
    bases = content.pop("_BASE_", [])
    for base in [bases] if isinstance(bases, str) else bases:
        _merge_file(cfg, find_config_file(base, path.parent))
    version = content.get("VERSION", cfg.VERSION)
    if version != cfg.VERSION:
        raise ValueError(f"VERSION must be {cfg.VERSION}, got {version!r}")
    cfg.merge_from_other_cfg(CfgNode(content))


@contextmanager
def _errors(source: str, cfg: CfgNode) -> Iterator[None]:
    """Turn what loading and merging raise into a ConfigError that names `source`."""
    try:
        yield
    except RecursionError:
        raise ConfigError(
            f"{source}: its _BASE_ files form a cycle, or it nests too deep"
        ) from None
    except (KeyError, ValueError, AssertionError, OSError, yaml.YAMLError) as error:
        # A KeyError's own text has its message in quotes.
        message = str(error.args[0] if isinstance(error, KeyError) else error)
        for start in _UNKNOWN:
            if message.startswith(start):
                key = message.removeprefix(start)
                message = f"unknown key '{shortened(key)}'.{_nearest_key(key, cfg)}"
        message = one_line(message)
        if len(message) > _MAX_LENGTH:  # its end names the key
            message = f"{message[: _MAX_LENGTH // 2]}...{message[-_MAX_LENGTH // 2 :]}"
        raise ConfigError(f"{source}: {message}") from error
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"{source}: expected keys, such as 'MODEL: {{...}}', got other YAML ({one_line(error)})"
        ) from error


def _nearest_key(key: str, cfg: CfgNode) -> str:
    """Return a hint at the nearest key, first of all at one of the same name in another section."""
    known = list(_keys(cfg))
    name = key.rpartition(".")[2]
    return nearest(key, [k for k in known if k.endswith(f".{name}")] or known)


def _keys(node: CfgNode, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{key}.")
