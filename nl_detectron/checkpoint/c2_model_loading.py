"""Pickles of Caffe2's blobs by name, written by Python 2, and the official video code's names."""

import pickle
import re
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager
from torch import Tensor

VIDEO = "Caffe2, video"  # the author of a checkpoint whose convolutions have planes
_SOLVER = ("lr", "model_iter")  # and <blob>_momentum: they belong to the training
_BRANCHES = {
    "conv1": "branch2a",
    "conv2": "branch2b",
    "conv3": "branch2c",
    "shortcut": "branch1",
}
_OF_NORM = {"weight": "bn_s", "bias": "bn_b", "running_mean": "bn_rm", "running_var": "bn_riv"}
_OF_CONV = {"weight": "w", "bias": "b"}


def read_pickle(filename: str) -> dict[str, Any]:
    """The checkpoint in a pickle of Detectron2's or of Caffe2's kind, as Detectron2 hands it on.

    Names of blobs may be bytes. Unpickling can run code: `check_pickle` comes first.
    """
    with PathManager.open(filename, "rb") as file:
        data = pickle.load(file, encoding="latin1")
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


def blob_of(key: str) -> str | None:
    """The blob of a `VideoClassifier`'s weight, None if the official code has none for it."""
    module, _, kind = key.removeprefix("backbone.").rpartition(".")
    layer = module.removesuffix(".norm")
    is_norm = layer != module
    suffix = (_OF_NORM if is_norm else _OF_CONV).get(kind)
    if suffix is None:
        return None
    if layer == "stem.conv1":
        return f"res_conv1_{suffix}" if is_norm else f"conv1_{suffix}"
    if layer == "classifier":
        return f"pred_{suffix}"
    if found := re.fullmatch(r"res(\d)\.nonlocal_after_(\d+)(?:\.(\w+))?", layer):
        stage, place, conv = found.groups()
        return "_".join(["nonlocal", f"conv{stage}", place, *([conv] if conv else []), suffix])
    if found := re.fullmatch(r"(res\d)\.(\d+)\.(\w+)", layer):
        stage, index, conv = found.groups()
        return f"{stage}_{index}_{_BRANCHES[conv]}_{suffix}" if conv in _BRANCHES else None
    return None


def rename_blobs(blobs: dict[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`blobs` under the names of the model with that `state`; those it has no place for keep
    theirs."""
    rest = dict(blobs)
    renamed = {}
    for key, value in state.items():
        blob = blob_of(key)
        if blob in rest:
            found = rest.pop(blob)
            # For fully convolutional testing the classifier is a convolution of 1x1x1.
            is_linear = value.dim() == 2 and found.shape[2:].numel() == 1
            renamed[key] = found.flatten(1) if is_linear else found
    return {**renamed, **rest}
