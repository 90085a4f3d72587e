"""Blocks in the keypoint head."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.keypoint_head import build_keypoint_head

SHAPE = ShapeSpec(channels=16, height=14, width=14)


def head_of(cfg, every_convs):
    cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "NonLocalKRCNNConvDeconvUpsampleHead"
    cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = every_convs
    return build_keypoint_head(cfg, SHAPE)


@pytest.mark.parametrize(
    ("convs", "every", "places"),
    [(8, 2, [2, 4, 6, 8]), (8, 3, [3, 6]), (5, 1, [1, 2, 3, 4, 5]), (4, 0, [])],
)
def test_block_follows_every_nth_convolution(fpn_cfg, convs, every, places):
    fpn_cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = [16] * convs
    names = [name for name, _ in head_of(fpn_cfg, every).named_children()]
    expected = []
    for n in range(1, convs + 1):
        expected += [f"conv_fcn{n}", f"conv_fcn_relu{n}"]
        if n in places:
            expected.append(f"nonlocal_after_conv_fcn_relu{n}")
    assert names == [*expected, "score_lowres"]


def test_logits_are_bit_identical_before_training(fpn_cfg):
    stock = build_keypoint_head(fpn_cfg, SHAPE)
    ours = head_of(fpn_cfg, 2)
    missing, unexpected = ours.load_state_dict(stock.state_dict(), strict=False)
    assert not unexpected
    assert missing
    assert all("nonlocal" in key for key in missing)
    regions = torch.randn(3, 16, 14, 14)
    assert torch.equal(ours.layers(regions), stock.layers(regions))
