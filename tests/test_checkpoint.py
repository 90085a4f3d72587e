"""Checkpoints of every naming scheme load into the right weights; missing ones are named."""

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from safetensors.torch import save_file
from torch import Tensor, nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.checkpoint.c2_model_loading import read_pickle

BACKBONE = "backbone.bottom_up."
LAST = "res4.{}.conv{}.weight"  # a renumbered last block would not get it
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
STATE = dict[str, Tensor]


def build(fpn_cfg: CfgNode, *, depth: int = 50, blocks: bool = True, norm: str = "FrozenBN"):
    """A keypoint R-CNN so narrow that it is made in a moment, with random weights everywhere."""
    cfg = fpn_cfg.clone()
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 18 else 8
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.FPN.OUT_CHANNELS = 4
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [4, 4]
    if blocks:
        cfg.MODEL.BACKBONE.NAME = "build_nonlocal_resnet_fpn_backbone"
        cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [-2], [0]]
        cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "NonLocalKRCNNConvDeconvUpsampleHead"
        cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = 1
    return build_model(cfg)


def random_state(model: nn.Module) -> STATE:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in model.state_dict().items()
    }


def resnet_state(model: nn.Module) -> STATE:
    """Random weights of the backbone, under the names of Detectron2's ResNet."""
    state = random_state(model)
    return {k.removeprefix(BACKBONE): v for k, v in state.items() if k.startswith(BACKBONE)}


def caffe2_name(name: str, norms: dict[str, str]) -> str:
    """The blob of a Detectron2 ResNet's weight: ``res2.0.conv1.norm.bias`` -> ``..._bn_b``."""
    branches = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    module, *rest = name.split(".")
    if module == "stem":
        return f"res_conv1_bn_{norms[rest[-1]]}" if "norm" in rest else "conv1_w"
    block, conv, *rest = rest
    blob = f"{module}_{block}_{branches.get(conv, 'branch1')}"
    return f"{blob}_bn_{norms[rest[-1]]}" if "norm" in rest else f"{blob}_w"


# Detectron folds the statistics of its norms into their scales and does not write them.
DETECTRON = {"weight": "s", "bias": "b"}
DETECTRON_STATISTICS = {**DETECTRON, "running_mean": "rm", "running_var": "riv"}


def caffe2_file(state: STATE, path: Path, norms: dict[str, str], protocol: int) -> None:
    blobs = {
        caffe2_name(name, norms): value.numpy()
        for name, value in state.items()
        if "norm" not in name or name.rsplit(".")[-1] in norms
    }
    blobs["fc1000_w"] = np.zeros((10, 8), np.float32)
    blobs["conv1_w_momentum"] = np.zeros(1, np.float32)
    path.write_bytes(pickle.dumps(blobs, protocol=protocol))


def load(model: nn.Module, path: Path | str) -> None:
    Checkpointer(model).load(str(path))


def assert_loaded(model: nn.Module, expected: STATE) -> None:
    state = model.state_dict()
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("nl_detectron.checkpoint") and record.levelno == level
    ]


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="nl_detectron")


@pytest.mark.parametrize(
    ("depth", "norms", "protocol"),
    [(18, DETECTRON, 2), (50, DETECTRON_STATISTICS, 5)],
)
def test_caffe2_names(fpn_cfg, tmp_path, caplog, depth, norms, protocol) -> None:
    model = build(fpn_cfg, depth=depth)
    state = resnet_state(build(fpn_cfg, depth=depth, blocks=False))
    caffe2_file(state, tmp_path / "R.pkl", norms, protocol)
    before = random_state(model)
    model.load_state_dict(before)
    load(model, tmp_path / "R.pkl")
    written = {k: v for k, v in state.items() if "norm" not in k or k.rsplit(".")[-1] in norms}
    assert LAST.format(1 if depth == 18 else 5, 2 if depth == 18 else 3) in state
    assert_loaded(model, {BACKBONE + name: value for name, value in written.items()})
    assert_loaded(model, {k: v for k, v in before.items() if k.removeprefix(BACKBONE) not in state})

    (summary,) = messages(caplog, logging.INFO)
    new = sum("nonlocal" in key and not key.endswith(STATISTICS) for key in model.state_dict())
    loaded = sum(not name.endswith(STATISTICS) for name in state)
    assert {str(loaded), str(new), "1"} <= set(summary.split())
    assert "fc1000.weight" in summary
    assert not messages(caplog, logging.ERROR)


def test_converted_torchvision_names(fpn_cfg, tmp_path) -> None:
    state = resnet_state(build(fpn_cfg, blocks=False))
    weights = {name: value.numpy() for name, value in state.items()}
    file = {"model": weights, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(file))
    load(model := build(fpn_cfg), tmp_path / "r.pkl")
    assert_loaded(model, {BACKBONE + name: value for name, value in state.items()})


def write(state: STATE, path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".pkl":
        arrays = {key: value.numpy() for key, value in state.items()}
        path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    else:
        torch.save({"model": state, "iteration": 7}, path)
    return path


@pytest.mark.parametrize(
    ("suffix", "norm"), [(".pkl", "FrozenBN"), (".pth", "BN"), (".safetensors", "BN")]
)
def test_load_detector_checkpoint_formats(fpn_cfg, tmp_path, caplog, suffix, norm) -> None:
    model = build(fpn_cfg, norm=norm)
    state = random_state(build(fpn_cfg, norm=norm, blocks=False))
    load(model, write(state, tmp_path / f"model{suffix}"))
    assert_loaded(model, state)
    (summary,) = messages(caplog, logging.INFO)
    new = sum("nonlocal" in key and not key.endswith(STATISTICS) for key in model.state_dict())
    assert {str(new), "0"} <= set(summary.split())
    assert not messages(caplog, logging.ERROR)


@pytest.mark.parametrize("lost", ["backbone.bottom_up.res4.5.", "roi_heads.keypoint_head."])
def test_missing_weights_are_listed_in_error(fpn_cfg, tmp_path, caplog, lost) -> None:
    """Weights loaded into models whose blocks the insertion has renumbered."""
    state = random_state(build(fpn_cfg, blocks=False))
    kept = {key: value for key, value in state.items() if not key.startswith(lost)}
    load(build(fpn_cfg), write(kept, tmp_path / "model.pth"))
    (error,) = messages(caplog, logging.ERROR)
    listed = [word for word in error.split() if "." in word]
    expected = [k for k in state if k.startswith(lost) and not k.endswith(STATISTICS)]
    assert sorted(listed) == sorted(expected)


def test_class_mismatch_error_lists_shapes(fpn_cfg, tmp_path, caplog) -> None:
    model = build(fpn_cfg)
    fpn_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    load(model, write(random_state(build(fpn_cfg, blocks=False)), tmp_path / "model.pth"))
    (error,) = messages(caplog, logging.ERROR)
    (line,) = [line for line in error.splitlines() if "cls_score.weight" in line]
    assert "(81, 16)" in line
    assert "(3, 16)" in line
    assert len([line for line in error.splitlines() if "box_predictor" in line]) == 4


def test_a_pickle_of_python_2(tmp_path) -> None:
    """Its strings are bytes, of arrays too, and can only be read as latin1."""
    string, end = b"T\x01\x00\x00\x00", b"\xff\xff\xff\xff"
    (tmp_path / "R.pkl").write_bytes(
        b"\x80\x02}(" + string + b"a"
        + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + string + b"b\x87R(K\x01(K\x01tcnumpy\ndtype\nT\x02\x00\x00\x00f4K\x00K\x01\x87R(K\x03"
        + string + b"<NNNJ" + end + b"J" + end + b"K\x00tbI00\nT\x04\x00\x00\x00"
        + np.float32(-1.5).tobytes() + b"tbu."
    )  # fmt: skip
    assert read_pickle(str(tmp_path / "R.pkl"))["model"] == {"a": -1.5}
