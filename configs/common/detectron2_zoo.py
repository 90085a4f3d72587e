"""Detectron2's own LazyConfigs, which ours start from: a baseline is theirs by construction.

Found as package data, because ``detectron2.model_zoo`` needs ``pkg_resources``, which new versions
of setuptools no longer have.
"""

from importlib.resources import files

from detectron2.config import LazyConfig


def load(path, key):
    """Return object `key` of the file `path` below Detectron2's ``configs/common``."""
    common = files("detectron2").joinpath("model_zoo", "configs", "common")
    return LazyConfig.load(str(common.joinpath(*path.split("/"))), key)
