"""Blocks in ResNets: where they are, what they are called, that they disturb nothing."""

import logging

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import build_backbone

from nl_detectron.config import NonLocalOptions
from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import add_backbone_blocks
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
def test_block_is_right_before_the_last_residual_block_of_res4(fpn_cfg, depth):
    of_depth(fpn_cfg, depth)
    ask_for_blocks(fpn_cfg, [[], [], [-2], []])
    bottom_up = build(fpn_cfg, "meta").bottom_up
    place = PAPERS_PLACE[depth]
    names = [name for name, _ in bottom_up.res4.named_children()]
    assert names[-3:] == [str(place), f"nonlocal_after_{place}", str(place + 1)]
    blocks = [name for name, m in bottom_up.named_modules() if isinstance(m, NonLocalBlock)]
    assert blocks == [f"res4.nonlocal_after_{place}"]


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "GN"])
@pytest.mark.parametrize("name", NONLOCAL_NAME)
@pytest.mark.parametrize(
    ("depth", "groups", "stride_in_1x1"), [(18, 1, True), (50, 1, True), (50, 32, False)]
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
    stock.eval(), ours.eval()
    with torch.no_grad():
        features = ours(image)
        for level, map_ in stock(image).items():
            assert torch.equal(features[level], map_), level


def test_trained_norms_are_undisturbed_in_training_mode_too(fpn_cfg):
    fpn_cfg.MODEL.RESNETS.NORM = "BN"
    fpn_cfg.MODEL.BACKBONE.FREEZE_AT = 0
    stock = build(fpn_cfg).train()
    ask_for_blocks(fpn_cfg, [[], [], [-2], []])
    ours = build(fpn_cfg).train()
    ours.load_state_dict(stock.state_dict(), strict=False)
    image = torch.randn(2, 3, 64, 64)
    for level, map_ in stock(image).items():
        assert torch.equal(ours(image)[level], map_)


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


def test_a_step_of_training_moves_the_block_away_from_the_identity(fpn_cfg):
    ask_for_blocks(fpn_cfg, [[], [], [-2], []])
    backbone = build(fpn_cfg)
    block = backbone.bottom_up.res4.nonlocal_after_0
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(map_.mean() for map_ in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
        optimizer.step()
    # The first step moves the norm's scale, only the second can reach what is behind it.
    assert block.norm.weight.abs().max() > 0
    assert all(p.grad.abs().max() > 0 for p in (block.g.weight, block.out.weight))
    x = torch.randn(1, 256, 4, 4)
    assert not torch.equal(block(x), x)


def test_one_log_line_per_block(fpn_cfg, caplog):
    ask_for_blocks(fpn_cfg, [[], [0, 1], [-2], []])
    with caplog.at_level(logging.INFO, logger="nl_detectron"):
        build(fpn_cfg, "meta")
    assert [record.getMessage() for record in caplog.records] == [
        f"Non-local block after {place}: embedded_gaussian, {width} -> {width // 2} channels, "
        "subsample 2, norm BatchNorm2d"
        for place, width in (("res3.0", 128), ("res3.1", 128), ("res4.0", 256))
    ]


@pytest.mark.parametrize(
    "after_blocks", [[[], [], [2], []], [[], [], [], [-3]], [[], [], [0, -2], []]]
)
def test_impossible_places_are_refused(fpn_cfg, after_blocks):
    ask_for_blocks(fpn_cfg, after_blocks)
    with pytest.raises(ConfigError, match="AFTER_BLOCKS"):
        build(fpn_cfg, "meta")


def test_a_stage_that_is_not_built_is_refused(fpn_cfg):
    fpn_cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    fpn_cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    ask_for_blocks(fpn_cfg, [[], [], [], [0]])
    with pytest.raises(ConfigError, match="AFTER_BLOCKS"):
        build(fpn_cfg, "meta")


def test_a_width_that_does_not_divide_is_refused(fpn_cfg):
    ask_for_blocks(fpn_cfg, [[], [], [0], []])
    fpn_cfg.MODEL.RESNETS.NON_LOCAL.REDUCTION = 3
    with pytest.raises(ConfigError, match="REDUCTION"):
        build(fpn_cfg, "meta")


def test_blocks_go_into_a_resnet_without_a_config(fpn_cfg):
    resnet = build(fpn_cfg, "meta").bottom_up
    options = NonLocalOptions(pairwise="dot_product", norm="", subsample=1)
    assert add_backbone_blocks(resnet, after_blocks=[[], [1], [], []], options=options) is resnet
    block = resnet.res3.nonlocal_after_1
    assert (block.pairwise, block.subsample, hasattr(block, "norm")) == ("dot_product", 1, False)
