"""Weights of video networks from the official Caffe2 files and from 2-D ResNets."""

import logging
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_resnet_backbone
from test_checkpoint import load
from torch import Tensor
from video_networks import build, clip, randomize, video_cfg

EPS = 1.0000001e-5
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# The residual blocks of I3D whose first convolution has 3 planes, as the official code lists them.
INFLATED = {
    50: ([1, 1, 1], [1, 0, 1, 0], [1, 0, 1, 0, 1, 0], [0, 1, 0]),
    101: ([1, 1, 1], [1, 0, 1, 0], [1, 0] * 11 + [1], [0, 1, 0]),
}
NONLOCAL = {50: {3: (1, 3), 4: (1, 3, 5)}, 101: {3: (1, 3), 4: (6, 13, 20)}}
STEM, RES2, INNER, CLASSES = 4, 8, 4, 5
Blobs = dict[str, np.ndarray]


def official_blobs(
    *, depth: int, i3d: bool, nonlocal_: bool, affine: bool, classes: int = CLASSES
) -> Blobs:
    """The blobs of an official network, narrow and with random values."""
    rng = np.random.default_rng(depth)
    blobs: Blobs = {}

    def conv(name: str, out: int, in_: int, *kernel: int) -> None:
        scale = (in_ * np.prod(kernel)) ** -0.5
        blobs[f"{name}_w"] = rng.normal(0, scale, (out, in_, *kernel)).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        blobs[f"{name}_bn_s"] = rng.uniform(0.5, 1, channels).astype(np.float32)
        blobs[f"{name}_bn_b"] = rng.normal(0, 0.1, channels).astype(np.float32)
        if not affine:
            blobs[f"{name}_bn_rm"] = rng.normal(0, 0.1, channels).astype(np.float32)
            blobs[f"{name}_bn_riv"] = rng.uniform(0.5, 2, channels).astype(np.float32)

    conv("conv1", STEM, 3, 5 if i3d else 1, 7, 7)
    norm("res_conv1", STEM)
    channels = STEM
    for stage in range(2, 6):
        width, inner = RES2 * 2 ** (stage - 2), INNER * 2 ** (stage - 2)
        for i in range(BLOCKS[depth][stage - 2]):
            name = f"res{stage}_{i}_branch"
            planes = 3 if i3d and INFLATED[depth][stage - 2][i] else 1
            layers = [("2a", inner, channels, (planes, 1, 1)), ("2b", inner, inner, (1, 3, 3))]
            layers += [("2c", width, inner, (1, 1, 1))]
            layers += [("1", width, channels, (1, 1, 1))] if i == 0 else []
            for branch, out, in_, kernel in layers:
                conv(f"{name}{branch}", out, in_, *kernel)
                norm(f"{name}{branch}", out)
            channels = width
            if nonlocal_ and i in NONLOCAL[depth].get(stage, ()):
                block = f"nonlocal_conv{stage}_{i}"
                for part, out, in_ in (
                    ("theta", width // 2, width),
                    ("phi", width // 2, width),
                    ("g", width // 2, width),
                    ("out", width, width // 2),
                ):
                    conv(f"{block}_{part}", out, in_, 1, 1, 1)
                    blobs[f"{block}_{part}_b"] = rng.normal(0, 0.1, out).astype(np.float32)
                if not affine:
                    norm(block, width)
    blobs["pred_w"] = rng.normal(0, 0.1, (classes, channels)).astype(np.float32)
    blobs["pred_b"] = rng.normal(0, 0.1, classes).astype(np.float32)
    return blobs


def official_scores(blobs: Blobs, clips: Tensor, *, time_stride: int, group: int) -> Tensor:
    """Compute the official network's output for `clips`, in float64, from the blobs alone."""
    b = {name: torch.from_numpy(value).double() for name, value in blobs.items()}
    x = (clips.double() - 114.75) / 57.375

    def norm(x: Tensor, name: str) -> Tensor:
        column = {k: b[f"{name}_bn_{k}"].view(1, -1, 1, 1, 1) for k in ("s", "b")}
        if f"{name}_bn_rm" in b:
            mean, var = (b[f"{name}_bn_{k}"].view(1, -1, 1, 1, 1) for k in ("rm", "riv"))
            x = (x - mean) / (var + EPS).sqrt()
        return x * column["s"] + column["b"]

    def conv(x: Tensor, name: str, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = b[f"{name}_w"]
        padding = tuple(side // 2 for side in weight.shape[2:])
        bias = b.get(f"{name}_b")
        return F.conv3d(x, weight, bias, stride=stride, padding=padding)

    def nonlocal_(x: Tensor, name: str) -> Tensor:
        pooled = F.max_pool3d(x, (1, 2, 2))
        theta, phi, g = (
            conv(source, f"{name}_{part}").flatten(2)
            for part, source in (("theta", x), ("phi", pooled), ("g", pooled))
        )
        f = torch.einsum("ncp,ncm->npm", theta, phi) * theta.shape[1] ** -0.5
        y = torch.einsum("npm,ncm->ncp", f.softmax(2), g).unflatten(2, x.shape[2:])
        z = conv(y, f"{name}_out")
        return x + (norm(z, name) if f"{name}_bn_s" in b else z)

    x = norm(conv(x, "conv1", (time_stride, 2, 2)), "res_conv1").relu()
    x = F.max_pool3d(x, (time_stride, 3, 3), stride=(time_stride, 2, 2))
    for stage in range(2, 6):
        if stage == 3:
            x = F.max_pool3d(x, (2, 1, 1))
        i = 0
        while f"res{stage}_{i}_branch2a_w" in b:
            name, stride = f"res{stage}_{i}_branch", 2 if i == 0 and stage > 2 else 1
            y = norm(conv(x, f"{name}2a"), f"{name}2a").relu()
            y = norm(conv(y, f"{name}2b", (1, stride, stride)), f"{name}2b").relu()
            y = norm(conv(y, f"{name}2c"), f"{name}2c")
            if i == 0:
                x = norm(conv(x, f"{name}1", (1, stride, stride)), f"{name}1")
            x = (x + y).relu()
            block = f"nonlocal_conv{stage}_{i}"
            if f"{block}_out_w" in b:
                size = group if group and stage == 3 else x.shape[2]
                x = torch.cat([nonlocal_(part, block) for part in x.split(size, dim=2)], dim=2)
            i += 1
    x = F.avg_pool3d(x, (x.shape[2], 2, 2), stride=1)  # a crop of 64 pixels is 2x2 in res5
    logits = torch.einsum("ncthw,kc->nkthw", x, b["pred_w"]) + b["pred_b"].view(-1, 1, 1, 1)
    return logits.softmax(1).mean((2, 3, 4))


def write_official(path: Path, blobs: Blobs) -> None:
    """A file of the official code, with its training state."""
    held: dict[bytes, Any] = {b"lr": np.float32(0.01), b"model_iter": 400000}
    for name, value in blobs.items():
        held[name.encode()] = value
        held[f"{name}_momentum".encode()] = np.zeros_like(value)
    path.write_bytes(pickle.dumps({b"blobs": held}, protocol=2))


def cfg_for(*, depth: int, i3d: bool, nonlocal_: bool, affine: bool, group: int = 0, **kwargs):
    places = NONLOCAL[depth]
    opts = [
        *("MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.STEM_OUT_CHANNELS", STEM),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", RES2, "MODEL.RESNETS.WIDTH_PER_GROUP", INNER),
        *("MODEL.VIDEO_RESNET.TEMPORAL", "i3d_3x1x1" if i3d else "c2d"),
        *("MODEL.RESNETS.NORM", "Affine" if affine else "BN"),
        *("MODEL.RESNETS.NON_LOCAL.NORM", "" if affine else "BN"),
        *("MODEL.RESNETS.NON_LOCAL.GROUP_FRAMES", [0, group, 0, 0]),
    ]
    if nonlocal_:
        after = [[], list(places[3]), list(places[4]), []]
        opts += ["MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS", after]
    cfg = video_cfg(*opts)
    cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES = kwargs.get("classes", CLASSES)
    cfg.MODEL.VIDEO_RESNET.STEM_TIME_STRIDE = kwargs.get("time_stride", 2)
    cfg.INPUT.CLIP.FRAMES = kwargs.get("frames", 16)
    return cfg


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="nl_detectron.checkpoint")


def messages(caplog: pytest.LogCaptureFixture, level: int) -> str:
    return "\n".join(r.getMessage() for r in caplog.records if r.levelno == level)


def unused(caplog: pytest.LogCaptureFixture) -> int:
    return int(re.findall(r"(\d+) in the file are unused", messages(caplog, logging.INFO))[0])


@pytest.mark.parametrize(
    ("depth", "i3d", "nonlocal_", "affine", "group", "time_stride", "frames"),
    [
        (50, False, False, False, 0, 2, 16),
        (50, False, True, False, 0, 1, 4),
        (50, True, True, False, 0, 2, 16),
        (50, True, True, True, 4, 1, 16),
        (101, False, True, True, 0, 2, 16),
        (101, True, False, False, 0, 1, 4),
    ],
)
def test_an_official_file_gives_the_official_scores(
    tmp_path, caplog, depth, i3d, nonlocal_, affine, group, time_stride, frames
) -> None:
    kind = {"depth": depth, "i3d": i3d, "nonlocal_": nonlocal_, "affine": affine}
    blobs = official_blobs(**kind)
    if time_stride == 1:
        blobs["pred_w"] = blobs["pred_w"].reshape(CLASSES, -1, 1, 1, 1)
    write_official(tmp_path / "official.pkl", blobs)
    model = build(cfg_for(**kind, group=group, time_stride=time_stride, frames=frames)).eval()
    assert all(p.requires_grad for p in model.parameters())
    load(model, tmp_path / "official.pkl")

    assert unused(caplog) == 0
    assert not messages(caplog, logging.ERROR)
    blobs["pred_w"] = blobs["pred_w"].reshape(CLASSES, -1)
    clips = clip(views=2, frames=frames, size=(64, 96))
    with torch.no_grad():
        (result,) = model([{"clips": clips}])
    expected = official_scores(blobs, clips, time_stride=time_stride, group=group)
    assert expected.std(1).min() > 1e-3, "every class alike would prove nothing"
    assert (result["view_scores"] - expected).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("key", "blob"),
    [
        ("backbone.res3.1.conv2.norm.running_var", "res3_1_branch2b_bn_riv"),
        ("backbone.res3.nonlocal_after_1.theta.bias", "nonlocal_conv3_1_theta_b"),
    ],
)
def test_missing_weights_are_reported(tmp_path, caplog, key, blob) -> None:
    kind = {"depth": 50, "i3d": False, "nonlocal_": True, "affine": False}
    blobs = official_blobs(**kind)
    del blobs[blob]
    write_official(tmp_path / "official.pkl", blobs)
    load(build(cfg_for(**kind)), tmp_path / "official.pkl")
    assert key in messages(caplog, logging.ERROR)


def test_classifier_with_other_classes_keeps_init(tmp_path, caplog) -> None:
    kind = {"depth": 50, "i3d": True, "nonlocal_": True, "affine": False}
    write_official(tmp_path / "official.pkl", official_blobs(**kind))
    model = build(cfg_for(**kind, classes=7))
    before = model.classifier.weight.clone()
    load(model, tmp_path / "official.pkl")
    assert torch.equal(model.classifier.weight, before)
    assert re.search(r"\b5\b.*\b7\b", messages(caplog, logging.WARNING))
    assert not messages(caplog, logging.ERROR)


def test_batch_norms_are_folded_into_affine_layers(tmp_path, caplog) -> None:
    kind = {"depth": 50, "i3d": True, "nonlocal_": False}
    trained = randomize(build(cfg_for(**kind, affine=False))).eval()
    torch.save({"model": trained.state_dict()}, tmp_path / "w.pth")
    model = build(cfg_for(**kind, affine=True)).eval()
    load(model, tmp_path / "w.pth")
    assert unused(caplog) == 0
    assert not messages(caplog, logging.ERROR)
    assert not any("running" in name for name in model.state_dict())
    clips = clip(frames=16)
    with torch.no_grad():
        torch.testing.assert_close(
            model.probabilities(clips), trained.probabilities(clips), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("temporal", "depth", "norm", "stride_in_1x1"),
    [
        ("c2d", 18, "BN", False),
        ("c2d", 50, "FrozenBN", True),
        ("i3d_3x1x1", 50, "FrozenBN", True),
        ("i3d_3x3x3", 18, "FrozenBN", True),
    ],
)
def test_still_clip_equals_detectron2_resnet(
    tmp_path, caplog, temporal, depth, norm, stride_in_1x1
) -> None:
    """Kernels along time see the zeros beyond the ends, each a step further."""
    cfg = video_cfg("MODEL.RESNETS.DEPTH", depth, "MODEL.VIDEO_RESNET.POOLING", "paper")
    cfg.MODEL.VIDEO_RESNET.TEMPORAL = temporal
    cfg.MODEL.VIDEO_RESNET.STEM_TIME_STRIDE = 1
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64  # Detectron2 has no other at depth 18
    image_net = randomize(build_resnet_backbone(cfg, ShapeSpec(channels=3)), seed=1).eval()
    weights = {k: v.numpy() for k, v in image_net.state_dict().items()}
    zoo = {"model": weights, "__author__": "somebody", "matching_heuristics": True}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps(zoo))
    model = build(cfg).eval()
    load(model, tmp_path / "R.pkl")
    assert unused(caplog) == 0
    assert not messages(caplog, logging.ERROR)
    image = (torch.randint(0, 256, (1, 3, 64, 64)).float() - 114.75) / 57.375
    with torch.no_grad():
        (expected,) = image_net(image).values()
        (got,) = model.backbone(image.unsqueeze(2).expand(-1, -1, 44, -1, -1)).values()
    expected = expected.unsqueeze(2).expand_as(got)
    inner = slice(None) if temporal == "c2d" else slice(10, -10)
    assert got.shape[2] == 22
    torch.testing.assert_close(got[:, :, inner], expected[:, :, inner], rtol=1e-5, atol=1e-5)
    assert (temporal == "c2d") == torch.allclose(got, expected, atol=1e-3)


def test_torchvisions_own_file_is_inflated(tmp_path, caplog) -> None:
    theirs = torchvision.models.resnet50(num_classes=3)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    cfg = video_cfg("MODEL.VIDEO_RESNET.TEMPORAL", "i3d_3x1x1")
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 64
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 256
    model = build(cfg)
    load(model, tmp_path / "resnet50.pth")
    assert not messages(caplog, logging.ERROR)
    assert unused(caplog) == 2  # the classifier's
    state, kernel = model.state_dict(), theirs.layer1[2].conv1.weight
    got = state["backbone.res2.2.conv1.weight"]
    assert got.shape[2] == 3
    torch.testing.assert_close(got, (kernel / 3).unsqueeze(2).expand_as(got))
    assert torch.equal(
        state["backbone.res3.0.shortcut.norm.running_var"],
        theirs.layer2[0].downsample[1].running_var,
    )


def test_the_official_imagenet_file_is_inflated(tmp_path, caplog) -> None:
    """It has the same names with 2-D kernels."""
    kind = {"depth": 50, "i3d": True, "nonlocal_": False, "affine": True}
    blobs = official_blobs(**{**kind, "i3d": False})
    flat = {k: v[:, :, 0] if v.ndim == 5 else v for k, v in blobs.items()}
    write_official(tmp_path / "imagenet.pkl", flat)
    model = build(cfg_for(**kind))
    load(model, tmp_path / "imagenet.pkl")
    assert not messages(caplog, logging.ERROR)
    assert unused(caplog) == 2  # the classifier's
    expected = torch.from_numpy(blobs["conv1_w"]).expand(-1, -1, 5, -1, -1) / 5
    torch.testing.assert_close(model.backbone.stem.conv1.weight, expected)
