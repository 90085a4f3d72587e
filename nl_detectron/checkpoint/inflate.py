"""Weights for a video network: renamed, inflated from 2-D, and with another class count."""

import logging
from typing import Any

import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from torch import Tensor

from .c2_model_loading import VIDEO, rename_blobs, substitute

logger = logging.getLogger(__name__)

CLASSIFIER = "classifier"
# Substitutions that turn the name of a weight of torchvision's ResNet into Detectron2's.
_TORCHVISION = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"^layer1\.", "res2."),
    (r"^layer2\.", "res3."),
    (r"^layer3\.", "res4."),
    (r"^layer4\.", "res5."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
)


def takes_clips(state: dict[str, Tensor]) -> bool:
    """Return True if the model with that `state` convolves clips."""
    return any(value.dim() == 5 for value in state.values())


def adapt(checkpoint: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Adapt the weights of `checkpoint`, in place, to the model with that `state`.

    Official Caffe2 files get the model's names. So do 2-D ResNets, by Detectron2's matching of
    names or from torchvision's, and they are inflated. A classifier with another class count is
    removed.
    """
    weights = {name: torch.as_tensor(value) for name, value in checkpoint["model"].items()}
    author = checkpoint.get("__author__")
    if author == VIDEO:
        weights = rename_blobs(weights, state)
    matching = checkpoint.pop("matching_heuristics", False)
    if "layer1.0.conv1.weight" in weights:
        weights = {substitute(name, _TORCHVISION): value for name, value in weights.items()}
        matching = True
    if matching:
        is_2d = not takes_clips(weights)
        shapes = {k: v[:, :, 0] if is_2d and v.dim() == 5 else v for k, v in state.items()}
        weights = align_and_update_state_dicts(shapes, weights, c2_conversion=author == "Caffe2")
    checkpoint["model"] = _of_same_classes(inflate(weights, state), state)


def inflate(weights: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inflate 2-D kernels: repeat them along time and divide by the number of planes.

    A clip of one repeated image then gives the 2-D network's features (section 3.3).
    """
    inflated = {}
    for name, value in weights.items():
        if value.dim() == 4 and name in state and state[name].dim() == 5:
            planes = state[name].shape[2]
            inflated[name] = value.unsqueeze(2).expand(-1, -1, planes, -1, -1) / planes
    if inflated:
        logger.info(
            f"Inflated {len(inflated)} 2-D kernels: repeated along time, divided by the planes"
        )
    return {**weights, **inflated}


def _of_same_classes(weights: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    name = f"{CLASSIFIER}.weight"
    there, here = (len(named.get(name, ())) for named in (weights, state))
    if there in (0, here) or here == 0:
        return weights
    logger.warning(
        f"The file's classifier has {there} classes, the model's {here}: it is not loaded and "
        "keeps its initial values"
    )
    return {k: v for k, v in weights.items() if not k.startswith(f"{CLASSIFIER}.")}
