"""Caffe2 checkpoints: pickles of blobs by name, and the names of the official video code."""

import pickle
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager
from torch import Tensor

from .reading import DataUnpickler

VIDEO = "Caffe2, video"  # the author of a checkpoint whose convolutions have planes
_SOLVER = ("lr", "model_iter")  # and <blob>_momentum: they belong to the training
# Substitutions that turn the name of a `VideoClassifier`'s weight into that of its blob.
_BLOBS = (
    (r"^backbone\.", ""),
    (r"^stem\.conv1\.norm\.", "res_conv1_bn."),
    (r"^stem\.", ""),
    (r"^classifier\.", "pred."),
    (r"^res(\d)\.nonlocal_after_(\d+)\.", r"nonlocal_conv\1_\2_"),
    (r"^(res\d)\.(\d+)\.", r"\1_\2_"),
    (r"_conv1\.", "_branch2a."),
    (r"_conv2\.", "_branch2b."),
    (r"_conv3\.", "_branch2c."),
    (r"_shortcut\.", "_branch1."),
    (r"[._]norm\.", "_bn."),
    (r"_bn\.weight$", "_bn_s"),
    (r"_bn\.bias$", "_bn_b"),
    (r"\.running_mean$", "_rm"),
    (r"\.running_var$", "_riv"),
    (r"\.weight$", "_w"),
    (r"\.bias$", "_b"),
)


def read_pickle(filename: str, *, trusted: bool = False) -> dict[str, Any]:
    """Read a pickle of Detectron2's or of Caffe2's kind into the form that Detectron2 uses.

    Names of blobs may be bytes. If `trusted`, other content than plain data is read as well, which
    runs its code.
    """
    unpickler = pickle.Unpickler if trusted else DataUnpickler
    with PathManager.open(filename, "rb") as file:
        data = unpickler(file, encoding="latin1").load()
    if "model" in data and "__author__" in data:
        return data
    blobs = _by_text(data)
    blobs = _by_text(blobs.get("blobs", blobs))
    weights = {
        name: value
        for name, value in blobs.items()
        if name not in _SOLVER and not name.endswith("_momentum")
    }
    if np.ndim(weights.get("conv1_w", ())) == 5:
        return {"model": weights, "__author__": VIDEO}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _by_text(named: dict[str | bytes, Any]) -> dict[str, Any]:
    return {
        name.decode("latin1") if isinstance(name, bytes) else name: value
        for name, value in named.items()
    }


def substitute(name: str, substitutions: Iterable[tuple[str, str]]) -> str:
    """Return `name` after all substitutions of regular expressions."""
    for pattern, replacement in substitutions:
        name = re.sub(pattern, replacement, name)
    return name


def rename_blobs(blobs: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return `blobs` under the names in `state`, the model's; others keep their names."""
    rest = dict(blobs)
    renamed = {}
    for key, value in state.items():
        blob = substitute(key, _BLOBS)
        if blob in rest:
            found = rest.pop(blob)
            # For fully convolutional testing the classifier is a convolution of 1x1x1.
            is_linear = value.dim() == 2 and found.shape[2:].numel() == 1
            renamed[key] = found.flatten(1) if is_linear else found
    return {**renamed, **rest}
