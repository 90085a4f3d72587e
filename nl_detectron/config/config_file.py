"""What config files of both kinds have in common: finding them, and messages about their values."""

from difflib import get_close_matches
from os import PathLike
from pathlib import Path

import torch

from ..utils.errors import ConfigError

_PACKAGE_CONFIGS = Path(__file__).resolve().parent.parent / "configs"
_CONFIG_SUFFIXES = (".yaml", ".py")
_MAX_LENGTH = 60  # characters of a value


def find_config_file(config_file: str | PathLike[str], folder: Path = Path()) -> Path:
    """Return the path of a config: a file, or else the packaged config of that zoo name.

    Args:
        config_file: path, or name relative to ``configs/`` such as ``quickstart.yaml``.
        folder: folder that a relative path starts from.

    Raises:
        ConfigError: there is neither; with the nearest name.
    """
    path = folder / Path(config_file).expanduser()
    if not str(config_file):
        raise ConfigError("no config file given: --config-file FILE, e.g. quickstart.yaml")
    for file in (path, _PACKAGE_CONFIGS / config_file):
        if file.is_file():
            return file
    if path.is_dir():
        raise ConfigError(f"{config_file} is a folder; give a .yaml or a LazyConfig .py file")
    ours = {p.name: p.relative_to(_PACKAGE_CONFIGS) for p in _PACKAGE_CONFIGS.rglob("*")}
    names = ours | {p.name: p for p in path.parent.glob("*")}
    known = [name for name in names if name.endswith(_CONFIG_SUFFIXES)]
    match = get_close_matches(path.name, known, n=1)
    hint = f" Did you mean '{names[match[0]]}'?" if match else ""
    raise ConfigError(f"no config file {config_file}.{hint}")


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
