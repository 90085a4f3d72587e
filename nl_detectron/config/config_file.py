"""What config files of both kinds have in common: finding them, and messages about their values."""

from difflib import get_close_matches
from os import PathLike
from pathlib import Path

import torch

from ..utils.errors import ConfigError, UserError

_PACKAGE_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_CONFIG_SUFFIXES = (".yaml", ".py")
_MAX_LENGTH = 60  # characters of a value


def find_config_file(config_file: str | PathLike[str]) -> Path:
    """Return the file's path; raise UserError, with the nearest name, if it does not exist."""
    path = Path(config_file)
    if not str(config_file):
        raise UserError("no config file given: --config-file FILE, e.g. configs/quickstart.yaml")
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"{config_file} is a folder; give a .yaml or a LazyConfig .py file")
    beside = [p for p in path.parent.glob("*") if p.suffix in _CONFIG_SUFFIXES]
    ours = [p for p in _PACKAGE_CONFIGS.rglob("*") if p.suffix in _CONFIG_SUFFIXES]
    by_name = {p.name: p for p in [*ours, *beside]}
    match = get_close_matches(path.name, list(by_name), n=1)
    hint = f" Did you mean '{by_name[match[0]]}'?" if match else ""
    raise UserError(f"no config file {config_file}.{hint}")


def check_device(key: str, device: str, cpu_option: str) -> None:
    """Raise ConfigError for a device that torch does not have; `cpu_option` selects the CPU."""
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"{key} is '{device}', which is not a device (cpu, cuda, ...)") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{key} is '{device}', but torch sees no GPU; {cpu_option} works")


def short_repr(value: object) -> str:
    """Return any value in a few characters of one line."""
    return shortened(" ".join(repr(value).split()))


def shortened(text: str, width: int = _MAX_LENGTH) -> str:
    return text if len(text) <= width else text[:width] + "..."


def one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
