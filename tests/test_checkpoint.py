"""Checkpoints of every naming land where they belong, and nothing that could run code is read."""

import logging
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from safetensors.torch import save_file
from torch import Tensor, nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.utils.errors import UserError

BACKBONE = "backbone.bottom_up."
LAST = BACKBONE + "res4.{}.conv{}.weight"  # a renumbered last block would not get it
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
MSRA = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "running_mean",
    "running_var": "running_var",
}


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


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize(
    ("norms", "protocol"), [(DETECTRON, 2), (DETECTRON_STATISTICS, 5), (MSRA, 4)]
)
def test_caffe2_names(fpn_cfg, tmp_path, caplog, depth, norms, protocol) -> None:
    model = build(fpn_cfg, depth=depth)
    state = resnet_state(model_without := build(fpn_cfg, depth=depth, blocks=False))
    caffe2_file(state, tmp_path / "R.pkl", norms, protocol)
    before = random_state(model)
    model.load_state_dict(before)
    load(model, tmp_path / "R.pkl")

    def value(name: str, random: Tensor) -> Tensor:
        # FrozenBN then has the mean 0 and the variance 1.
        default = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}
        kind = name.rsplit(".")[-1]
        return random if kind in norms or "norm" not in name else default[kind](random)

    expected = {BACKBONE + name: value(name, random) for name, random in state.items()}
    last = LAST.format(1 if depth == 18 else 5, 2 if depth == 18 else 3)
    assert last in expected
    assert_loaded(model, expected)
    assert_loaded(model, {k: v for k, v in before.items() if k not in expected})
    assert set(model.state_dict()) - set(model_without.state_dict()) == {
        key for key in model.state_dict() if "nonlocal" in key
    }

    (summary,) = messages(caplog, logging.INFO)
    new = sum("nonlocal" in key and not key.endswith(STATISTICS) for key in model.state_dict())
    in_file = sum(not name.endswith(STATISTICS) for name in state)
    assert f"Loaded {in_file} of the model's" in summary
    assert f"{new} are new in non-local blocks; " in summary
    assert "1 in the file are unused (fc1000.weight)" in summary
    assert not messages(caplog, logging.ERROR)


def test_a_pickle_of_python_2(fpn_cfg, tmp_path) -> None:
    """Its strings are bytes, of arrays too, and can only be read as latin1."""
    model = build(fpn_cfg)
    state = resnet_state(build(fpn_cfg, blocks=False))
    blobs = {caffe2_name(k, DETECTRON_STATISTICS): v.numpy() for k, v in state.items()}
    assert any(byte > 127 for value in blobs.values() for byte in value.tobytes())
    (tmp_path / "R.pkl").write_bytes(python2_pickle({"blobs": blobs}))
    with pytest.raises(UnicodeDecodeError):
        pickle.loads((tmp_path / "R.pkl").read_bytes())
    load(model, tmp_path / "R.pkl")
    assert_loaded(model, {BACKBONE + name: value for name, value in state.items()})


def python2_pickle(data: dict[str, dict[str, np.ndarray]]) -> bytes:
    """Protocol 2 as Python 2 and its numpy write dictionaries of float32 arrays."""

    def string(value: bytes) -> bytes:
        return b"T" + len(value).to_bytes(4, "little") + value

    def array(value: np.ndarray) -> bytes:
        shape = b"(" + b"".join(b"J" + n.to_bytes(4, "little") for n in value.shape) + b"t"
        empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + string(b"b")
        dtype = b"cnumpy\ndtype\n" + string(b"f4") + b"K\x00K\x01\x87R"
        dtype += b"(K\x03" + string(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        return empty + b"\x87R(K\x01" + shape + dtype + b"I00\n" + string(value.tobytes()) + b"tb"

    def dictionary(items: dict[str, Any], value: Callable[[Any], bytes]) -> bytes:
        body = b"".join(string(k.encode()) + value(v) for k, v in items.items())
        return b"}(" + body + b"u"

    return b"\x80\x02" + dictionary(data, lambda blobs: dictionary(blobs, array)) + b"."


@pytest.mark.parametrize("depth", [18, 50])
def test_converted_torchvision_names(fpn_cfg, tmp_path, caplog, depth) -> None:
    model = build(fpn_cfg, depth=depth)
    state = resnet_state(build(fpn_cfg, depth=depth, blocks=False))
    weights = {name: value.numpy() for name, value in state.items()}
    weights["stem.fc.weight"] = np.zeros((10, 8), np.float32)
    file = {"model": weights, "__author__": "torchvision", "matching_heuristics": True}
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(file))
    load(model, tmp_path / "r.pkl")
    assert_loaded(model, {BACKBONE + name: value for name, value in state.items()})
    assert not messages(caplog, logging.ERROR)


def as_zoo_pickle(state: STATE, path: Path) -> Path:
    arrays = {key: value.numpy() for key, value in state.items()}
    file = path.with_suffix(".pkl")
    file.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    return file


def as_pth(state: STATE, path: Path) -> Path:
    torch.save({"model": state, "iteration": 7}, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_plain_pth(state: STATE, path: Path) -> Path:
    torch.save(state, path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_safetensors(state: STATE, path: Path) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("write", [as_zoo_pickle, as_pth, as_plain_pth, as_safetensors])
def test_detectors(fpn_cfg, tmp_path, caplog, write, norm) -> None:
    model = build(fpn_cfg, norm=norm)
    state = random_state(build(fpn_cfg, norm=norm, blocks=False))
    load(model, write(state, tmp_path / "model"))
    assert_loaded(model, state)
    (summary,) = messages(caplog, logging.INFO)
    new = sum("nonlocal" in key and not key.endswith(STATISTICS) for key in model.state_dict())
    assert f"; {new} are new in non-local blocks; 0 in the file are unused" in summary
    assert not messages(caplog, logging.ERROR)


def test_matching_by_heuristics_on_request(fpn_cfg, tmp_path) -> None:
    model = build(fpn_cfg)
    state = resnet_state(build(fpn_cfg, blocks=False))
    path = as_safetensors(state, tmp_path / "resnet")
    load(model, f"{path}?matching_heuristics=True")
    assert_loaded(model, {BACKBONE + name: value for name, value in state.items()})


def test_a_lost_last_block_is_an_error_by_name(fpn_cfg, tmp_path, caplog) -> None:
    """What loading did to models whose blocks were renumbered by the insertion."""
    model = build(fpn_cfg)
    state = resnet_state(build(fpn_cfg, blocks=False))
    kept = {k: v for k, v in state.items() if not k.startswith("res4.5.")}
    caffe2_file(kept, tmp_path / "R.pkl", MSRA, 2)
    load(model, tmp_path / "R.pkl")
    (error,) = messages(caplog, logging.ERROR)
    assert LAST.format(5, 3) in error.split()
    listed = error.split(":\n")[1].split()
    assert listed
    assert all(key.startswith(BACKBONE + "res4.5.") for key in listed)


def test_a_detector_without_the_head_is_an_error(fpn_cfg, tmp_path, caplog) -> None:
    model = build(fpn_cfg)
    state = random_state(build(fpn_cfg, blocks=False))
    head = [key for key in state if "keypoint_head" in key]
    for key in head:
        del state[key]
    load(model, as_pth(state, tmp_path / "model"))
    (error,) = messages(caplog, logging.ERROR)
    assert head
    _first, listed = error.split(":\n")
    assert sorted(listed.split()) == sorted(head)


def test_other_classes_are_named_with_their_shapes(fpn_cfg, tmp_path, caplog) -> None:
    model = build(fpn_cfg)
    fpn_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    load(model, as_pth(random_state(build(fpn_cfg, blocks=False)), tmp_path / "model"))
    (error,) = messages(caplog, logging.ERROR)
    scores = "roi_heads.box_predictor.cls_score.weight"
    assert f"  {scores} has shape (81, 16) in the file and (3, 16) in the model" in error
    assert error.startswith(
        "4 weights are not loaded and keep their start values: 0 missing in the file and 4 of "
        "another shape, 0 in the file unexpected:\n"
    )


def test_another_depth_is_told_with_counts(fpn_cfg, tmp_path, caplog) -> None:
    model = build(fpn_cfg)
    state = random_state(build(fpn_cfg, depth=18, blocks=False))
    there, here = ({k: v.shape for k, v in s.items()} for s in (state, model.state_dict()))
    differ = sum(k in there and there[k] != here[k] for k in here)
    missing = sum(not (k in there or "nonlocal" in k or k.endswith(STATISTICS)) for k in here)
    load(model, as_pth(state, tmp_path / "R18"))
    (error,) = messages(caplog, logging.ERROR)
    first, listed = error.split(":\n")
    assert differ
    assert f"{missing} missing in the file and {differ} of another shape, 0 in the file" in first
    assert len(listed.splitlines()) == missing + differ
    assert listed.count(" has shape (") == differ


def test_a_file_of_another_network_is_an_error(fpn_cfg, tmp_path) -> None:
    model = build(fpn_cfg)
    path = as_pth({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "model")
    with pytest.raises(UserError, match=r"model\.pth is of another network: none of ") as info:
        load(model, path)
    assert "1 in the file are unused (layer1.0.conv1.weight)" in str(info.value)


def test_no_file_loads_nothing(fpn_cfg) -> None:
    assert Checkpointer(build(fpn_cfg)).load("") == {}


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pyth"])
def test_files_that_could_run_code_are_refused_until_trusted(fpn_cfg, tmp_path, suffix) -> None:
    model, target = build(fpn_cfg), tmp_path / "attacked"
    state = random_state(build(fpn_cfg, blocks=False))
    content = {"model": state, "__author__": "nobody", "more": Hostile(target)}
    path = tmp_path / f"model{suffix}"
    if suffix == ".pkl":
        content["model"] = {key: value.numpy() for key, value in state.items()}
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    checkpointer = Checkpointer(model)
    with pytest.raises(UserError, match=r"could run code") as info:
        checkpointer.load(str(path))
    assert not target.exists()
    assert "mkdir" in str(info.value)
    assert f"'{path}?trusted=True'" in str(info.value)
    assert "\n" not in str(info.value)
    if suffix != ".pyth":
        checkpointer.load(f"{path}?trusted=True")
        assert target.exists()
        assert_loaded(model, state)
        target.rmdir()
        with pytest.raises(UserError, match=r"could run code"):  # for that one time only
            checkpointer.load(str(path))


@pytest.mark.parametrize("write", [as_zoo_pickle, as_pth, as_safetensors])
@pytest.mark.parametrize("left", [0.0, 0.001, 0.5, 0.99])
def test_damaged_files_are_one_line(fpn_cfg, tmp_path, write, left) -> None:
    model = build(fpn_cfg)
    path = write(resnet_state(model), tmp_path / "model")
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    with pytest.raises(UserError, match=re.escape(str(path))) as info:
        load(model, path)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("content", [[1, 2], {"model": 3, "__author__": "nobody"}, "text"])
def test_files_without_weights_are_one_line(fpn_cfg, tmp_path, content) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=re.escape(str(path))):
        load(build(fpn_cfg), path)


@pytest.mark.parametrize("wrap", ["state_dict", "model_state", "network"])
def test_wrapped_weights_are_read(fpn_cfg, tmp_path, wrap) -> None:
    model, path = build(fpn_cfg), tmp_path / "model.pth"
    state = random_state(build(fpn_cfg, blocks=False))
    prefixed = {f"module.{key}": value for key, value in state.items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9).state_dict()
    torch.save({"epoch": 3, "meta": {"classes": 2}, "optimizer": optimizer, wrap: prefixed}, path)
    load(model, path)
    assert_loaded(model, state)


def test_several_sets_of_weights_are_named(fpn_cfg, tmp_path) -> None:
    model, path = build(fpn_cfg), tmp_path / "model.pth"
    state = random_state(model)
    torch.save({"state_dict": state, "state_dict_ema": state}, path)
    with pytest.raises(UserError) as info:
        load(model, path)
    assert all(text in str(info.value) for text in (str(path), "state_dict", "state_dict_ema"))
    assert "\n" not in str(info.value)


def test_a_missing_file_is_named(fpn_cfg) -> None:
    checkpointer = Checkpointer(build(fpn_cfg))
    for _ in range(2):  # after a failure the checkpointer still works
        with pytest.raises(UserError, match=r"cannot read the checkpoint 'nowhere/model\.pth'"):
            checkpointer.load("nowhere/model.pth")
