"""The config keys: defaults that change nothing, values that are refused by name."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, build_model, build_resnet_backbone

import nl_detectron
from nl_detectron.errors import ConfigError, UserError

BACKBONE = "MODEL.RESNETS.NON_LOCAL"
HEAD = "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL"
OURS = [
    "MODEL.BACKBONE.NAME",
    "build_nonlocal_resnet_fpn_backbone",
    "MODEL.ROI_KEYPOINT_HEAD.NAME",
    "NonLocalKRCNNConvDeconvUpsampleHead",
]


def test_defaults_are_the_documented_ones():
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    shared = {
        "PAIRWISE": "embedded_gaussian",
        "REDUCTION": 2,
        "SUBSAMPLE": 2,
        "NORM": "BN",
        "SCALE": True,
    }
    assert dict(cfg.MODEL.RESNETS.NON_LOCAL) == {"AFTER_BLOCKS": [[], [], [], []], **shared}
    assert dict(cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL) == {"EVERY_CONVS": 0, **shared}
    nl_detectron.check_config(cfg)


def test_with_the_defaults_a_model_is_built_as_before(fpn_cfg):
    torch.manual_seed(7)
    stock = build_model(fpn_cfg).state_dict()
    fpn_cfg.merge_from_list(OURS)
    torch.manual_seed(7)
    ours = build_model(fpn_cfg).state_dict()
    assert list(stock) == list(ours)
    assert all(torch.equal(stock[key], ours[key]) for key in stock)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [4]], "4 lists, one each for res2, res3, res4, res5"),
        (f"{BACKBONE}.AFTER_BLOCKS", [4, 5, 6, 7], "4 lists, one each for res2, res3, res4, res5"),
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [], ["4"], []], "whole numbers"),
        (f"{BACKBONE}.AFTER_BLOCKS", [[], [], [1.0], []], "whole numbers"),
        (f"{BACKBONE}.PAIRWISE", "gauss", "gaussian, embedded_gaussian, dot_product, concat"),
        (f"{BACKBONE}.REDUCTION", 0, "1 or more"),
        (f"{BACKBONE}.SUBSAMPLE", -1, "1 or more"),
        (f"{BACKBONE}.NORM", "XN", "not BN, SyncBN"),
        (f"{HEAD}.EVERY_CONVS", 9, "0 (off) to 8"),
        (f"{HEAD}.EVERY_CONVS", -2, "0 (off) to 8"),
        (f"{HEAD}.PAIRWISE", "", "gaussian, embedded_gaussian, dot_product, concat"),
        (f"{HEAD}.SUBSAMPLE", 0, "1 or more"),
        (f"{HEAD}.NORM", "XN", "not BN, SyncBN"),
        ("SOLVER.ACCUMULATE_STEPS", 0, "1 or more"),
    ],
)
def test_impossible_values_are_refused_by_name(fpn_cfg, key, value, allowed):
    fpn_cfg.merge_from_list([*OURS, key, value])
    with pytest.raises(ConfigError) as error:
        nl_detectron.check_config(fpn_cfg)
    assert isinstance(error.value, UserError)
    message = str(error.value)
    assert key in message
    assert allowed in message
    # For a list of lists the stage's own list will do.
    culprits = [value, *value] if isinstance(value, list) else [value]
    assert any(str(culprit) in message for culprit in culprits if culprit != [])


def test_a_width_of_the_head_that_does_not_divide_is_refused(fpn_cfg):
    fpn_cfg.merge_from_list([*OURS, f"{HEAD}.EVERY_CONVS", 2, f"{HEAD}.REDUCTION", 3])
    with pytest.raises(ConfigError, match=rf"{HEAD}\.REDUCTION is 3; allowed: a divisor of each"):
        nl_detectron.check_config(fpn_cfg)


@pytest.mark.parametrize(
    "stock", ["build_resnet_backbone", "build_resnet_fpn_backbone", "build_mnasnet_backbone"]
)
def test_blocks_with_a_backbone_that_does_not_build_them_are_refused(fpn_cfg, stock):
    fpn_cfg.MODEL.BACKBONE.NAME = stock
    fpn_cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [-2], []]
    with pytest.raises(ConfigError, match=rf"'{stock}' does not build; allowed: build_nonlocal_"):
        nl_detectron.check_config(fpn_cfg)


def test_blocks_with_a_head_that_does_not_build_them_are_refused(fpn_cfg):
    fpn_cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = 2
    with pytest.raises(ConfigError, match=r"does not build; allowed: NonLocalKRCNN"):
        nl_detectron.check_config(fpn_cfg)
    fpn_cfg.merge_from_list([*OURS, "MODEL.KEYPOINT_ON", False])
    with pytest.raises(ConfigError, match=r"MODEL\.KEYPOINT_ON is False"):
        nl_detectron.check_config(fpn_cfg)


def test_either_builder_refuses_what_the_other_part_would_not_build(fpn_cfg):
    fpn_cfg.MODEL.BACKBONE.NAME = "build_nonlocal_resnet_fpn_backbone"
    fpn_cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = 2
    with pytest.raises(ConfigError, match="EVERY_CONVS"):
        build_model(fpn_cfg)
    fpn_cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    fpn_cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "NonLocalKRCNNConvDeconvUpsampleHead"
    fpn_cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [-2], []]
    with pytest.raises(ConfigError, match="AFTER_BLOCKS"):
        build_model(fpn_cfg)


def test_a_users_own_builder_may_say_that_it_builds_blocks(fpn_cfg, monkeypatch):
    def build_own_backbone(cfg, input_shape):
        return build_resnet_backbone(cfg, input_shape)

    build_own_backbone.builds_nonlocal_blocks = True
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "build_own_backbone", build_own_backbone)
    fpn_cfg.MODEL.BACKBONE.NAME = "build_own_backbone"
    fpn_cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [-2], []]
    nl_detectron.check_config(fpn_cfg)
