"""Counts against counts by hand, against the operations that run, and against committed tables."""

import json
import math

import pytest
import torch
from detectron2.modeling import build_model
from torch.utils.flop_counter import FlopCounterMode

from nl_detectron import model_zoo
from nl_detectron.analysis.cost import (
    Analysis,
    analyze,
    analyze_video,
    block_cost,
    build_on_meta,
)
from nl_detectron.commands import analyze as command
from nl_detectron.layers import PAIRWISE_FORMS, NonLocalBlock, nonlocal_block, pair_sum
from nl_detectron.layers.nonlocal_block import KEYS, POSITIONS
from nl_detectron.utils.errors import UserError

aten = torch.ops.aten
R50 = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml"
KEYPOINTS = "COCO-Keypoints/keypoint_rcnn_R_101_FPN_NL_head_backbone_1x.yaml"
RETINANET = "COCO-Detection/retinanet_R_50_FPN_NL_1x.yaml"
QUICKSTART = "quickstart.yaml"
SPACE = "Kinetics/c2d_R_50_NL5_space_32x2.yaml"
VIDEOS = ("Kinetics/i3d_R_50_NL5_8x8.yaml", "Charades/i3d_R_101_128x1.yaml")

_results: dict[str, Analysis] = {}


def analysis_of(config: str) -> Analysis:
    if config not in _results:
        cfg = model_zoo.get_config(config)
        model = build_on_meta(cfg)
        is_video = model_zoo.find_entry(config).task == "video"
        _results[config] = command.count_clip(cfg, model) if is_video else analyze(model)
    return _results[config]


def test_block_cost_matches_hand_counts() -> None:
    """At 800 x 1333 res4 has 50 x 84 positions, and 25 x 42 of them after pooling."""
    shape, p, m, c, d = (1, 1024, 50, 84), 4200, 1050, 1024, 512
    g_and_out = (m + p) * c * d
    expected = {
        "gaussian": ("positions", g_and_out, p * m * (c + d)),
        "embedded_gaussian": ("positions", 2 * g_and_out, 2 * p * m * d),
        # phi^T g is d x d, and cheaper than the map
        "dot_product": ("sums", 2 * g_and_out, (p + m) * d * d),
        # one channel of theta and phi each; the sums of g and of b g, and one read, of c channels
        "concatenation": ("keys", 2 * m * c * d + (p + m) * c + 2 * c * d, (2 * m + p) * c),
    }
    assert expected.keys() == set(PAIRWISE_FORMS)
    for pairwise, counts in expected.items():
        with torch.device("meta"):
            cost = block_cost(NonLocalBlock(c, pairwise=pairwise), shape)
        assert (cost.order, cost.convolutions, cost.operation) == counts, pairwise


def mv_flop(matrix_shape, vector_shape, *_, out_shape=None) -> int:
    return 2 * matrix_shape[0] * matrix_shape[1]


def cumsum_flop(shape, *_, out_shape=None) -> int:
    return 2 * shape.numel()


ORDERS = [(pairwise, order) for pairwise in PAIRWISE_FORMS for order in (POSITIONS, KEYS)]


@pytest.mark.parametrize(("pairwise", "order"), ORDERS)
@pytest.mark.parametrize(("channels", "size"), [(64, (3, 4)), (4, (2, 5, 3))])
@pytest.mark.parametrize("subsample", [1, 2])
@pytest.mark.parametrize("by_sums", [False, True])
def test_block_cost_matches_flop_counter(
    pairwise, order, channels, size, subsample, by_sums, monkeypatch
) -> None:
    """In every order."""
    choose = nonlocal_block.cheapest_order
    monkeypatch.setattr(
        nonlocal_block,
        "cheapest_order",
        lambda orders: order if order == KEYS else choose({**orders, KEYS: (math.inf, 0)}),
    )
    if by_sums:
        monkeypatch.setattr(pair_sum, "EXPLICIT_MAX_PER_POSITION", 0)
    block = NonLocalBlock(channels, pairwise=pairwise, subsample=subsample, dims=len(size))
    assert_costs_what_it_runs(block, torch.randn(2, channels, *size))


@pytest.mark.parametrize("options", [{"axes": "space"}, {"axes": "time"}, {"frames": 3}], ids=str)
@pytest.mark.parametrize("pairwise", PAIRWISE_FORMS)
def test_axes_and_frames_cost_matches_flop_counter(pairwise, options) -> None:
    block = NonLocalBlock(16, pairwise=pairwise, dims=3, **options)
    assert_costs_what_it_runs(block, torch.randn(2, 16, 6, 5, 3))


def assert_costs_what_it_runs(block: NonLocalBlock, x: torch.Tensor) -> None:
    formulas = {aten.mv: mv_flop, aten.cumsum: cumsum_flop}
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), counter:
        block.eval()(x)
    ran = counter.get_total_flops() // 2
    if aten.cumsum in counter.get_flop_counts()["Global"]:
        # The sums are read by element-wise products.
        order = nonlocal_block.cheapest_order(block.orders(x.shape))
        ran += x.numel() // (1 if order == "keys" else x.shape[1] // block.inter_channels)
    assert block_cost(block, tuple(x.shape)).multiply_adds == ran


def test_model_cost_matches_flop_counter(fpn_cfg) -> None:
    """The real model on the CPU, which runs its blocks after the count as well."""
    cfg = fpn_cfg
    cfg.MODEL.BACKBONE.NAME = "build_nonlocal_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[0], [], [-2, -1], []]
    cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "NonLocalKRCNNConvDeconvUpsampleHead"
    cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = 2
    model = build_model(cfg).eval()
    result = analyze(model, height=50, width=90, proposals=3, detections=2)
    assert [part.name for part in result.parts] == [
        *("stem", "res2", "res3", "res4", "res5", "FPN", "RPN", "box head", "keypoint head")
    ]
    assert [block.name for block in result.total.blocks] == [
        "backbone.bottom_up.res2.nonlocal_after_0",
        "backbone.bottom_up.res4.nonlocal_after_0",
        "backbone.bottom_up.res4.nonlocal_after_1",
        *(f"roi_heads.keypoint_head.nonlocal_after_conv_fcn_relu{n}" for n in (2, 4, 6, 8)),
    ]
    heads = model.roi_heads
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = model.backbone(torch.rand(1, 3, 64, 96))
        model.proposal_generator.rpn_head(list(features.values()))
        heads.box_predictor(heads.box_head(torch.rand(3, 16, 14, 14)))
        heads.keypoint_head.layers(torch.rand(2, 16, 14, 14))
    assert result.total.multiply_adds == counter.get_total_flops() // 2
    assert result.total.parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config", [KEYPOINTS, RETINANET])
def test_cost_without_blocks_equals_baseline(config) -> None:
    result, baseline = analysis_of(config), analysis_of(model_zoo.find_entry(config).baseline)
    assert [
        (part.name, part.parameters_without, part.multiply_adds_without) for part in result.parts
    ] == [(part.name, part.parameters, part.multiply_adds) for part in baseline.parts]


def test_lazy_and_yaml_configs_give_same_cost() -> None:
    lazy = model_zoo.get_config(KEYPOINTS.replace(".yaml", ".py"))
    assert analyze(build_on_meta(lazy)) == analysis_of(KEYPOINTS)


@pytest.mark.parametrize("config", [R50, KEYPOINTS, *VIDEOS])
def test_zoo_entries_match_computed_cost(config) -> None:
    entry, total = model_zoo.find_entry(config), analysis_of(config).total
    assert (entry.parameters, entry.multiply_adds) == (total.parameters, total.multiply_adds)


@pytest.mark.parametrize(
    ("config", "billions", "millions"),
    [
        ("c2d_R_50_32x2", 20.2, 24.3),
        ("c2d_R_50_NL1_32x2", 21.4, 26.4),
        ("c2d_R_50_NL5_32x2", 28.4, 31.7),
        ("c2d_R_50_NL10_32x2", 36.5, 39.0),
        ("i3d_R_50_32x2", 32.8, 28.0),
        ("i3d_R_50_NL5_32x2", 41.0, 35.4),
        ("c2d_R_101_32x2", 35.1, 43.3),
        ("c2d_R_101_NL10_32x2", 51.3, 58.0),
        ("i3d_R_101_32x2", 51.4, 51.8),
        ("i3d_3x3x3_R_101_32x2", 61.9, 63.0),
        ("c2d_R_50_NL5_8x8", 27.4, 31.7),
        ("i3d_R_50_8x8", 28.1, 28.0),
        ("c2d_R_50_128x1", 80.9, 24.3),
        ("i3d_R_50_NL5_128x1", 199.7, 35.4),
        ("i3d_R_101_NL5_128x1", 273.9, 59.1),
    ],
)
def test_costs_of_a_clip(config, billions, millions) -> None:
    cfg = model_zoo.get_config(f"Kinetics/{config}.yaml")
    model = build_on_meta(cfg)
    result = analyze_video(model, frames=cfg.INPUT.CLIP.FRAMES, height=224, width=224)
    assert result.total.papers_order / 1e9 == pytest.approx(billions, rel=0.01)
    assert result.total.multiply_adds <= result.total.papers_order
    assert result.total.parameters == sum(p.numel() for p in model.parameters())
    assert result.total.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert [part.name for part in result.parts] == [
        *("stem", "res2", "res3", "res4", "res5", "classifier")
    ]


def run_tool(monkeypatch, capsys, config: str, *arguments: object) -> str:
    line = ["analyze_model.py", "--config-file", config, *arguments]
    monkeypatch.setattr("sys.argv", list(map(str, line)))
    command.main()
    return capsys.readouterr().out


def test_the_tool_prints_tables_or_json(monkeypatch, capsys) -> None:
    small = ("--input-size", 128, 160)
    text = run_tool(monkeypatch, capsys, QUICKSTART, *small)
    assert "roi_heads.keypoint_head.nonlocal_after_conv_fcn_relu4" in text
    result = json.loads(
        run_tool(monkeypatch, capsys, QUICKSTART, *small, "--json", "--detections", 7)
    )
    sizes = {"height": 128, "width": 160, "frames": 1, "proposals": 1000, "detections": 7}
    assert result["input"] == sizes
    total = result["total"]
    blocks = sum(block["multiply_adds"] for block in result["blocks"])
    without = total["multiply_adds_without_blocks"]
    assert blocks == total["multiply_adds"] - without > 0
    assert total["multiply_adds_increase"] == pytest.approx(100 * blocks / without)
    assert result["blocks"][-1]["input_shape"][0] == 7


def test_unsupported_model_is_refused(monkeypatch, capsys) -> None:
    cascade = ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads"]
    cascade += ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"]  # which it demands
    with pytest.raises(UserError, match=r"MODEL\.ROI_HEADS"):
        run_tool(monkeypatch, capsys, QUICKSTART, *cascade)


def test_the_tool_states_clip_size_and_views(monkeypatch, capsys) -> None:
    found = json.loads(run_tool(monkeypatch, capsys, SPACE, "--json"))
    test = found["test"]
    assert (test["height"], test["width"], test["views"]) == (256, 256, 30)
    assert test["multiply_adds"] == 30 * test["multiply_adds_of_view"]
    assert test["multiply_adds_of_view"] > found["total"]["multiply_adds"]
    text = run_tool(monkeypatch, capsys, SPACE, "--input-size", "128", "160", "TEST.CROPS", "1")
    assert "One clip of 32 frames of 128 x 160 pixels" in text
    assert "10 clips x 1 crops of 256 x 256 pixels" in text
    assert "in the paper's order of multiplication: " in text
    assert text.count("1 x 512 x 4 x 16 x 20") == 2
