"""C2D and I3D: shapes, figures of the paper's networks, blocks that disturb nothing, norms."""

import copy
from typing import Any

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn
from video_networks import randomize, video_cfg

from nl_detectron.layers.batch_norm import AffineNorm3d, FrozenBatchNorm3d
from nl_detectron.modeling import VideoResNet, build_model
from nl_detectron.utils.errors import ConfigError

RESNETS, VIDEO = "MODEL.RESNETS", "MODEL.VIDEO_RESNET"
BLOCKS = f"{RESNETS}.NON_LOCAL"


def backbone(*opts: Any) -> VideoResNet:
    return build_backbone(video_cfg(*opts))


def on_meta(*opts: Any, depth: int = 50, temporal: str = "c2d") -> VideoResNet:
    """A network of the paper's widths, without memory for its weights."""
    cfg = video_cfg(f"{RESNETS}.DEPTH", depth, f"{VIDEO}.TEMPORAL", temporal)
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 64
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 256
    cfg.MODEL.RESNETS.OUT_FEATURES = ["stem", "res2", "res3", "res4", "res5"]
    cfg.merge_from_list(list(opts))
    with torch.device("meta"):
        return build_backbone(cfg).eval()


@pytest.mark.parametrize(
    ("temporal", "pooling"),
    [("c2d", "official"), ("c2d", "paper"), ("i3d_3x1x1", "official"), ("i3d_3x3x3", "paper")],
)
@pytest.mark.parametrize(
    ("frames", "stem_time_stride", "steps"),
    [(8, 1, (8, 8, 4)), (32, 1, (32, 32, 16)), (32, 2, (8, 8, 4)), (128, 2, (32, 32, 16))],
)
def test_shapes_after_every_stage(frames, stem_time_stride, steps, pooling, temporal) -> None:
    net = on_meta(
        *(f"{VIDEO}.POOLING", pooling, f"{VIDEO}.STEM_TIME_STRIDE", stem_time_stride),
        temporal=temporal,
    )
    for size, in_res2 in (
        (224, {"official": 55, "paper": 56}),
        (256, {"official": 63, "paper": 64}),
    ):
        sides = [in_res2[pooling]] * 2 + [size // 8, size // 16, size // 32]
        clip = torch.empty(2, 3, frames, size, size, device="meta")
        with torch.no_grad():
            shapes = {name: tuple(value.shape) for name, value in net(clip).items()}
        channels = (64, 256, 512, 1024, 2048)
        time = (steps[0], steps[1], steps[2], steps[2], steps[2])
        expected = {
            name: (2, c, t, side, side)
            for name, c, t, side in zip(shapes, channels, time, sides, strict=True)
        }
        assert shapes == expected
        assert net.output_shape() == {
            name: ShapeSpec(channels=c, stride=stride)
            for name, c, stride in zip(shapes, channels, (4, 4, 8, 16, 32), strict=True)
        }
        assert net.time_strides == {name: frames // t for name, t in zip(shapes, time, strict=True)}


@pytest.mark.parametrize("size", [(8, 224, 224), (9, 65, 50), (17, 71, 97), (33, 36, 36)])
@pytest.mark.parametrize("pooling", ["official", "paper"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_output_size_of_odd_clips(size, pooling, dilation) -> None:
    net = on_meta(f"{VIDEO}.POOLING", pooling, f"{RESNETS}.RES5_DILATION", dilation)
    with torch.no_grad():
        features = net(torch.empty(1, 3, *size, device="meta"))
    assert net.output_size(size) == {k: tuple(v.shape[2:]) for k, v in features.items()}


@pytest.mark.parametrize(
    ("norm", "axes"),
    [("BN", "spacetime"), ("FrozenBN", "space"), ("GN", "time"), ("Affine", "spacetime")],
)
def test_blocks_leave_features_bit_identical(norm, axes) -> None:
    opts = [f"{RESNETS}.NORM", norm, f"{RESNETS}.OUT_FEATURES", ["res2", "res3"]]
    opts += [f"{RESNETS}.STEM_OUT_CHANNELS", 32, f"{RESNETS}.RES2_OUT_CHANNELS", 32]
    opts += [f"{RESNETS}.WIDTH_PER_GROUP", 32]
    twin = randomize(backbone(*opts))
    ours = backbone(
        *(*opts, f"{BLOCKS}.AFTER_BLOCKS", [[0], [1, -1], [], []], f"{BLOCKS}.AXES", axes),
        *(f"{BLOCKS}.GROUP_FRAMES", [0, 1, 0, 0]),
    )
    missing, unexpected = ours.load_state_dict(twin.state_dict(), strict=False)
    assert not unexpected
    assert {key.split(".")[1] for key in missing} == {f"nonlocal_after_{i}" for i in (0, 1, 3)}
    clip = torch.randn(2, 3, 8, 32, 48)
    for training in (False, True):
        with torch.no_grad():
            expected, got = twin.train(training)(clip), ours.train(training)(clip)
        assert expected.keys() == got.keys() == {"res2", "res3"}
        assert all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize("norm", ["BN", "GN", "Affine", "FrozenBN"])
def test_last_norm_is_zero_initialized_unless_frozen(norm) -> None:
    opts = f"{RESNETS}.STEM_OUT_CHANNELS", 32, f"{RESNETS}.RES2_OUT_CHANNELS", 32
    net = backbone(*opts, f"{RESNETS}.WIDTH_PER_GROUP", 32, f"{RESNETS}.NORM", norm)
    for stage in net.stage_names:
        for block in getattr(net, stage):
            value = 1 if norm == "FrozenBN" else 0
            assert (block.conv3.norm.weight == value).all()
            assert (block.conv1.norm.weight == 1).all()


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 4])
def test_freezing(freeze_at) -> None:
    net = backbone(
        *("MODEL.BACKBONE.FREEZE_AT", freeze_at, f"{BLOCKS}.AFTER_BLOCKS", [[0], [0], [0], [0]])
    )
    for number, name in enumerate(("stem", "res2", "res3", "res4", "res5"), start=1):
        part, frozen = getattr(net, name), number <= freeze_at
        assert all(p.requires_grad != frozen for p in part.parameters())
        norms = [m for m in part.modules() if isinstance(m, nn.BatchNorm3d)]
        assert (norms == []) == frozen
        if number > 1:
            assert isinstance(part.nonlocal_after_0.norm, FrozenBatchNorm2d) == frozen
    before = copy.deepcopy(net.state_dict())
    net.train()(torch.randn(2, 3, 8, 32, 32))["res5"].mean().backward()
    for key, value in net.state_dict().items():
        is_frozen = key.startswith(("stem", "res2", "res3", "res4")[:freeze_at])
        if key.endswith("running_mean") and "nonlocal" not in key:
            assert torch.equal(value, before[key]) == is_frozen


def test_frozen_norm_ignores_training_mode() -> None:
    """Compare at as many frames as channels, which Detectron2's own norm confuses."""
    norm = randomize(FrozenBatchNorm3d(4))
    x = torch.randn(2, 4, 4, 5, 3, requires_grad=True)
    column = {name: value.double().view(1, -1, 1, 1, 1) for name, value in norm.named_buffers()}
    scale = column["weight"] / (column["running_var"] + 1e-5).sqrt()
    expected = (x.double() - column["running_mean"]) * scale + column["bias"]
    for given in (x, x.detach()):
        for training in (True, False):
            torch.testing.assert_close(norm.train(training)(given).double(), expected)
    (grad,) = torch.autograd.grad(norm(x).sum(), x)
    torch.testing.assert_close(grad.double(), scale.expand(x.shape))


def test_freezing_norm_preserves_output() -> None:
    for norm in (nn.BatchNorm3d(4), nn.SyncBatchNorm(4), AffineNorm3d(4)):
        randomize(norm)
        frozen = FrozenBatchNorm3d.convert_frozen_batchnorm(copy.deepcopy(norm)).eval()
        x = torch.randn(2, 4, 3, 5, 5)
        with torch.no_grad():
            torch.testing.assert_close(frozen(x), norm.eval()(x))


@pytest.mark.parametrize(
    ("key", "opts"),
    [
        (f"{VIDEO}.TEMPORAL", (f"{VIDEO}.TEMPORAL", "i3d")),
        ("at depth 18", (f"{RESNETS}.DEPTH", 18, f"{VIDEO}.TEMPORAL", "i3d_3x1x1")),
        (f"{VIDEO}.POOLING", (f"{VIDEO}.POOLING", "none")),
        (f"{VIDEO}.STEM_TIME_STRIDE", (f"{VIDEO}.STEM_TIME_STRIDE", 4)),
        ("norm", (f"{RESNETS}.NORM", "LN")),  # not one for clips
        ("norm", (f"{RESNETS}.NORM", "GN")),  # 32 groups do not divide 4 channels
        (f"{BLOCKS}.AFTER_BLOCKS", (f"{BLOCKS}.AFTER_BLOCKS", [[], [], [6], []])),
        (
            f"{BLOCKS}.AFTER_BLOCKS",
            (f"{RESNETS}.OUT_FEATURES", ["res4"], f"{BLOCKS}.AFTER_BLOCKS", [[], [], [], [0]]),
        ),
        (f"{BLOCKS}.AXES", (f"{BLOCKS}.AXES", "spacetimes")),
        (f"{BLOCKS}.GROUP_FRAMES", (f"{BLOCKS}.GROUP_FRAMES", [0, 1])),
        # of INPUT.CLIP.FRAMES 8, res4 makes 1
        (f"{BLOCKS}.GROUP_FRAMES", (f"{BLOCKS}.GROUP_FRAMES", [0, 0, 3, 0])),
    ],
)
def test_invalid_config_is_refused(key, opts) -> None:
    with pytest.raises(ConfigError, match=key):
        build_model(video_cfg(*opts))
