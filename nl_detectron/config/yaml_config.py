"""A YAML config: read without running code, and its errors in one line."""

import os
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import detectron2
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.file_io import PathManager

from ..errors import ConfigError, UserError
from ..version import __version__
from .checks import check_config, check_detectron2_keys
from .config_file import check_device, find_config_file, one_line, short_repr, shortened
from .keys import add_nonlocal_config

_DEVICE_NOT_SET = "not set"
_BASE = "_BASE_"
_MOST_VALUES = 100_000  # in a YAML file; only aliases of aliases get there
# How Detectron2's CfgNode words what is wrong.
_INVALID_TYPE = re.compile(
    r"Key (?P<key>\S+) with value <class '(.*\.)?(?P<type>\w+)'> is not a va"
)
_MISMATCH = re.compile(
    r"\(?Type mismatch \(<class '.*?'> vs\. <class '(.*?\.)?(?P<type>\w+)'>\) with values "
    r"\(.*? vs\. (?P<value>.*)\) for config key: (?P<key>\S+)",
    re.DOTALL,
)


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
    try:
        _check_yaml(str(path), newest=cfg.VERSION)
        cfg.merge_from_file(str(path), allow_unsafe=False)
    except UserError:
        raise
    except (KeyError, AssertionError, ValueError) as error:
        raise ConfigError(f"{path}: {_config_complaint(error, cfg)}") from error
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a config") from None
    known = _keys(cfg)
    for key in opts[::2]:
        if key not in known:
            raise ConfigError(f"on the command line: {_unknown(str(key), cfg)}")
    try:
        cfg.merge_from_list(opts)
    except (KeyError, AssertionError, ValueError) as error:
        raise ConfigError(f"on the command line: {_config_complaint(error, cfg)}") from error
    has_gpu = torch.cuda.is_available()
    if cfg.MODEL.DEVICE == _DEVICE_NOT_SET:
        cfg.MODEL.DEVICE = "cuda" if has_gpu else "cpu"
    check_device("MODEL.DEVICE", cfg.MODEL.DEVICE, "MODEL.DEVICE cpu")
    check_config(cfg)
    check_detectron2_keys(cfg)
    return cfg


def _check_yaml(path: str, *, newest: int, inside: tuple[str, ...] = ()) -> None:
    """Raise UserError if a YAML file or one of its ``_BASE_`` files is not a config.

    `newest` is the VERSION of Detectron2's keys; `inside` are the files that led here.
    """
    real = os.path.realpath(path)
    if real in inside:
        cycle = " -> ".join(
            os.path.basename(file) for file in (*inside[inside.index(real) :], real)
        )
        raise UserError(f"{inside[0]}: its _BASE_ files form a cycle: {cycle}")
    content = _yaml_content(path, used_by=inside[-1] if inside else None)
    if not isinstance(content, dict) or not content:
        held = f"a {type(content).__name__}" if content else "nothing"
        raise ConfigError(f"{path}: holds {held}; a config has keys, such as 'MODEL: {{...}}'")
    _check_keys(path, content)
    version = content.get("VERSION", newest)
    if type(version) is not int or not 0 <= version <= newest:
        raise ConfigError(
            f"{path}: VERSION is {short_repr(version)}; allowed: 0 to {newest}{_versions()}"
        )
    bases = content.get(_BASE, [])
    for base in bases if isinstance(bases, list) else [bases]:
        if not isinstance(base, str):
            raise ConfigError(
                f"{path}: _BASE_ is {short_repr(bases)}; allowed: a file's name or a list of them"
            )
        if not base.startswith(("http://", "https://")):
            base = os.path.join(os.path.dirname(path), os.path.expanduser(base))
        _check_yaml(base, newest=newest, inside=(*inside, real))


def _yaml_content(path: str, *, used_by: str | None) -> Any:
    """Return what a YAML file holds, made without running code."""
    try:
        if "://" not in path and not os.path.isfile(path):  # a pipe would never end
            raise FileNotFoundError(None, "no such file")
        with PathManager.open(path, "r") as file:
            return yaml.safe_load(file)
    except OSError as error:
        reason = error.strerror or one_line(error)
        subject = f"{used_by}: its _BASE_" if used_by else "the config"
        raise UserError(f"{subject} cannot be read: {path} ({reason})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8 (byte {error.start})") from error
    except yaml.constructor.ConstructorError as error:
        raise UserError(
            f"{path}: {one_line(error.problem)} (line {error.problem_mark.line + 1}); only plain "
            "values are read, as Python objects in YAML can run code"
        ) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2020-99-99
        raise UserError(f"{path}: not valid YAML: {one_line(error)}") from error


def _check_keys(path: str, content: dict) -> None:
    """Raise ConfigError for keys that are not text, and for values without end."""
    values: list[Any] = [content]
    for count, value in enumerate(values):
        if count > _MOST_VALUES:
            raise ConfigError(f"{path}: has more than {_MOST_VALUES} values: an alias in itself?")
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    raise ConfigError(f"{path}: the key {short_repr(key)} is not text")
            values.extend(value.values())
        elif isinstance(value, list):
            values.extend(value)


def _config_complaint(error: Exception, cfg: CfgNode) -> str:
    message = str(error.args[0] if error.args else error)
    for start in ("Non-existent config key: ", "Non-existent key: "):
        if message.startswith(start):
            return _unknown(message.removeprefix(start), cfg)
    if found := _INVALID_TYPE.match(message):
        return f"{found['key']} is a {found['type']}, which a config cannot hold"
    found = _MISMATCH.fullmatch(message)
    default = _keys(cfg).get(found["key"]) if found else None
    if found is None or default is None:
        return shortened(" ".join(message.split()), 300)
    if isinstance(default, CfgNode):
        example = f"{found['key']}.{next(iter(default))}"
        return f"{found['key']} cannot be set as a whole; set its keys, such as {example}"
    wrong = shortened(" ".join(found["value"].split()))
    wrong_type = {"CfgNode": "keys", "dict": "keys"}.get(found["type"], found["type"])
    return (
        f"{found['key']} is {wrong} ({wrong_type}); "
        f"allowed: {type(default).__name__}, such as {short_repr(default)}"
    )


def _unknown(key: str, cfg: CfgNode) -> str:
    """Say that `key` is unknown, with the nearest known one, or that it may be a newer one."""
    known = list(_keys(cfg))
    section, _, name = key.rpartition(".")
    beside = [k for k in known if k.rpartition(".")[0] == section]
    names = get_close_matches(name, [k.rpartition(".")[2] for k in beside], n=1)
    match = [f"{section}.{name}".lstrip(".") for name in names]
    match += get_close_matches(key, known, n=1, cutoff=0.85)
    match += [k for k in known if k.endswith(f".{name}")]
    hint = f"Did you mean '{match[0]}'?" if match else f"It may be of a newer version{_versions()}."
    return f"unknown key '{shortened(key)}'. {hint}"


def _versions() -> str:
    return f"; this is nl_detectron {__version__} with Detectron2 {detectron2.__version__}"


def _keys(node: CfgNode, prefix: str = "") -> dict[str, Any]:
    """Return all keys, sections too, with their values."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found[prefix + key] = value
        if isinstance(value, CfgNode):
            found.update(_keys(value, f"{prefix}{key}."))
    return found
