"""Blocks in ResNets: their places and names, and unchanged weights and features of the rest."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone

from nl_detectron.layers import NonLocalBlock
from nl_detectron.utils.errors import ConfigError

NONLOCAL_NAME = {
    "build_resnet_backbone": "build_nonlocal_resnet_backbone",
    "build_resnet_fpn_backbone": "build_nonlocal_resnet_fpn_backbone",
    "build_retinanet_resnet_fpn_backbone": "build_nonlocal_retinanet_resnet_fpn_backbone",
}
# Where the paper's single block goes: right before the last residual block of res4.
PAPERS_PLACE = {18: 0, 34: 4, 50: 4, 101: 21, 152: 34}


def ask_for_blocks(cfg, after_blocks):
    cfg.MODEL.BACKBONE.NAME = NONLOCAL_NAME[cfg.MODEL.BACKBONE.NAME]
    cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = after_blocks


def build(cfg, device="cpu"):
    with torch.device(device):
        return build_backbone(cfg, ShapeSpec(channels=3))


def of_depth(cfg, depth):
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256


@pytest.mark.parametrize("depth", PAPERS_PLACE)
def test_block_precedes_last_residual_block_of_res4(fpn_cfg, depth):
    of_depth(fpn_cfg, depth)
    ask_for_blocks(fpn_cfg, [[], [], [-2], []])
    bottom_up = build(fpn_cfg, "meta").bottom_up
    place = PAPERS_PLACE[depth]
    names = [name for name, _ in bottom_up.res4.named_children()]
    assert names[-3:] == [str(place), f"nonlocal_after_{place}", str(place + 1)]
    blocks = [name for name, m in bottom_up.named_modules() if isinstance(m, NonLocalBlock)]
    assert blocks == [f"res4.nonlocal_after_{place}"]


@pytest.mark.parametrize(
    ("name", "norm", "depth", "groups", "stride_in_1x1"),
    [
        ("build_resnet_backbone", "FrozenBN", 50, 32, False),
        ("build_resnet_fpn_backbone", "BN", 18, 1, True),
        ("build_resnet_fpn_backbone", "GN", 50, 1, True),
        ("build_retinanet_resnet_fpn_backbone", "FrozenBN", 18, 1, True),
    ],
)
def test_weights_keep_names_and_features_are_bit_identical(
    fpn_cfg, norm, name, depth, groups, stride_in_1x1
):
    of_depth(fpn_cfg, depth)
    fpn_cfg.MODEL.BACKBONE.NAME = name
    fpn_cfg.MODEL.RESNETS.NORM = norm
    fpn_cfg.MODEL.RESNETS.NUM_GROUPS = groups
    fpn_cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 64 if groups == 1 else 8
    fpn_cfg.MODEL.RESNETS.STRIDE_IN_1X1 = stride_in_1x1
    stock = build(fpn_cfg)
    ask_for_blocks(fpn_cfg, [[0], [-1], [-2], [0, 1]])
    ours = build(fpn_cfg)

    expected, got = stock.state_dict(), ours.state_dict()
    assert {k: v.shape for k, v in got.items() if "nonlocal" not in k} == {
        k: v.shape for k, v in expected.items()
    }
    missing, unexpected = ours.load_state_dict(expected, strict=False)
    assert not unexpected
    assert missing
    assert all("nonlocal" in key for key in missing)
    image = torch.randn(2, 3, 64, 96)
    for training in (True, False):
        with torch.no_grad():
            features, expected = ours.train(training)(image), stock.train(training)(image)
        assert all(torch.equal(features[level], map_) for level, map_ in expected.items())


@pytest.mark.parametrize("freeze_at", [0, 2, 3, 5])
def test_freezing_a_stage_freezes_its_blocks(fpn_cfg, freeze_at):
    fpn_cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    ask_for_blocks(fpn_cfg, [[0], [0], [0], [0]])
    bottom_up = build(fpn_cfg).bottom_up
    for number in (2, 3, 4, 5):
        block = getattr(bottom_up, f"res{number}").nonlocal_after_0
        frozen = number <= freeze_at
        assert all(p.requires_grad != frozen for p in block.parameters())
        assert isinstance(block.norm, FrozenBatchNorm2d) == frozen


@pytest.mark.parametrize(
    ("key", "opts"),
    [
        ("AFTER_BLOCKS", {"AFTER_BLOCKS": [[], [], [2], []]}),
        ("AFTER_BLOCKS", {"AFTER_BLOCKS": [[], [], [-3], []]}),
        ("AFTER_BLOCKS", {"AFTER_BLOCKS": [[], [], [], [0]]}),
        ("AFTER_BLOCKS", {"AFTER_BLOCKS": [[], [], [0, -2], []]}),  # one place twice
        ("REDUCTION", {"AFTER_BLOCKS": [[], [], [0], []], "REDUCTION": 3}),
        ("AXES", {"AFTER_BLOCKS": [[], [0], [], []], "AXES": "time"}),
        ("GROUP_FRAMES", {"AFTER_BLOCKS": [[], [0], [], []], "GROUP_FRAMES": [0, 4, 0, 0]}),
    ],
)
def test_blocks_that_do_not_fit_are_refused(fpn_cfg, key, opts):
    """The network has no res5."""
    fpn_cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    fpn_cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    ask_for_blocks(fpn_cfg, [])
    fpn_cfg.MODEL.RESNETS.NON_LOCAL.update(opts)
    with pytest.raises(ConfigError, match=key):
        build(fpn_cfg, "meta")
