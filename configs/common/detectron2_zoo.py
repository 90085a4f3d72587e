"""Detectron2's own LazyConfigs, which ours start from: a baseline is theirs by construction.

Found as package data, because ``detectron2.model_zoo`` needs ``pkg_resources``, which new versions
of setuptools no longer have.
"""

from importlib.resources import files

from detectron2.config import LazyConfig


def load(config):
    """Return the five parts of the file `config` below Detectron2's ``configs``."""
    path = files("detectron2").joinpath("model_zoo", "configs", *config.split("/"))
    parts = ("dataloader", "lr_multiplier", "model", "optimizer", "train")
    return LazyConfig.load(str(path), parts)
