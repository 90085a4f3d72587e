"""Configs and models by name: Detectron2's four functions, with its signatures."""

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from torch import nn

from ..checkpoint import Checkpointer
from ..config import add_nonlocal_config
from ..errors import UserError, nearest
from .entries import ENTRIES, find_entry
from .entry import Checkpoint


class ModelZooError(UserError, RuntimeError):
    """A config or a trained model that the zoo does not have, or a file that is not the zoo's."""


def get_config_file(config_path: str) -> str:
    """Return the path of a config file of the package.

    Args:
        config_path: name relative to ``configs/``, with ``.yaml`` or ``.py``, e.g.
            ``"COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml"``.

    Raises:
        ModelZooError: a RuntimeError, when there is no such file.
    """
    path = Path(str(files("nl_detectron").joinpath("configs", config_path)))
    if not path.is_file():
        guess = nearest(config_path, [entry.config for entry in ENTRIES])
        raise ModelZooError(f"{config_path} not available in Model Zoo!{guess}")
    return str(path)


def get_checkpoint_url(config_path: str) -> str:
    """Return the address of the model that was trained with a config.

    Args:
        config_path: as for `get_config_file`.

    Raises:
        ModelZooError: a RuntimeError, when nobody has trained it yet, which says how to.
    """
    return _checkpoint(config_path).url


def get_config(config_path: str, trained: bool = False) -> Any:
    """Return the config of a model: a CfgNode for ``.yaml``, a DictConfig for ``.py``.

    Args:
        config_path: as for `get_config_file`.
        trained: start from the zoo's trained model instead of the config's own weights.

    Raises:
        ModelZooError: see `get_config_file` and `get_checkpoint_url`.
    """
    config_file = get_config_file(config_path)
    if config_file.endswith(".py"):
        cfg = LazyConfig.load(config_file)
        if trained:
            cfg.train.init_checkpoint = get_checkpoint_url(config_path)
        return cfg
    cfg = get_cfg()
    add_nonlocal_config(cfg)
    cfg.merge_from_file(config_file)
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
    return cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Return a model, in training mode, with the weights that its config names.

    Args:
        config_path: as for `get_config_file`.
        trained: load the zoo's trained model, after its SHA-256 has been checked. Otherwise the
            config's own weights are loaded, usually a network pretrained on ImageNet.
        device: where to put the model. Default: the config's device, the CPU where there is no GPU.

    Raises:
        ModelZooError: also when the downloaded file is not the one in the table.
    """
    cfg = get_config(config_path)
    trained_weights = _verified_file(_checkpoint(config_path)) if trained else None
    if device is None and not torch.cuda.is_available():
        device = "cpu"
    if isinstance(cfg, CfgNode):
        if device is not None:
            cfg.MODEL.DEVICE = device
        model = build_model(cfg)
        weights = cfg.MODEL.WEIGHTS
    else:
        model = instantiate(cfg.model).to(device or cfg.train.device)
        weights = cfg.train.init_checkpoint
    Checkpointer(model).load(trained_weights or weights)
    return model


def _checkpoint(config_path: str) -> Checkpoint:
    entry = find_entry(config_path)
    if entry is None:
        raise ModelZooError(f"Pretrained model for {config_path} is not available!")
    if entry.checkpoint is None:
        raise ModelZooError(
            f"Pretrained model for {config_path} is not available! It has not been trained yet; "
            f"to train it: python train_net.py --config-file configs/{config_path} --num-gpus 8"
        )
    return entry.checkpoint


def _verified_file(checkpoint: Checkpoint) -> str:
    """Download a checkpoint where that is needed and return its path if its hash is right."""
    path = PathManager.get_local_path(checkpoint.url)
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != checkpoint.sha256:
        raise ModelZooError(
            f"{path} is not the checkpoint of the Model Zoo: its SHA-256 is {actual}, not "
            f"{checkpoint.sha256}. Nothing was loaded; delete the file to download it again."
        )
    return path
