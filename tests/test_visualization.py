"""Pictures of attention at the right place: a planted map must find a bright dot.

The stubs below make a network whose features are nothing but the image, averaged: a block that
looks for brightness must then point at the dot, through resizing, padding, stride and pooling.
"""

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.nn import functional as F

import nl_detectron
from nl_detectron.analysis.attention import (
    Attention,
    ImageAttention,
    compute_attention,
    find_blocks,
)
from nl_detectron.commands import attention as command
from nl_detectron.engine import Predictor
from nl_detectron.layers import NonLocalBlock
from nl_detectron.utils.errors import UserError, run_script
from nl_detectron.visualization import drawing
from nl_detectron.visualization.drawing import explain, heat_map

WIDTH, HEIGHT = 331, 247  # of the image
SEEN_WIDTH, SEEN_HEIGHT = 201, 150  # resized; 224 x 160 when padded, 14 x 10 positions in res4
STRIDE = 16
BACKBONE_BLOCK = "backbone.bottom_up.res4.nonlocal_after_0"
HEAD_BLOCK = "roi_heads.keypoint_head.nonlocal_after_conv_fcn_relu1"


def make_config(**nonlocal_keys: object) -> CfgNode:
    """A small box and keypoint R-CNN with a block in the backbone and one in the head."""
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    stages, levels = ["res2", "res3", "res4", "res5"], ["p2", "p3", "p4", "p5"]
    blocks = {"NORM": "", **nonlocal_keys}
    cfg.merge_from_list([
        "MODEL.DEVICE", "cpu",
        "MODEL.PIXEL_STD", [60.0, 60.0, 60.0],
        "MODEL.KEYPOINT_ON", True,
        "MODEL.BACKBONE.NAME", "build_nonlocal_resnet_fpn_backbone",
        "MODEL.RESNETS.DEPTH", 18,
        "MODEL.RESNETS.RES2_OUT_CHANNELS", 64,
        "MODEL.RESNETS.NORM", "GN",
        "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS", [[], [], [-2], []],
        "MODEL.RESNETS.OUT_FEATURES", stages,
        "MODEL.FPN.IN_FEATURES", stages,
        "MODEL.FPN.OUT_CHANNELS", 8,
        "MODEL.RPN.IN_FEATURES", levels,
        "MODEL.RPN.POST_NMS_TOPK_TEST", 20,
        "MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256]],
        "MODEL.ROI_HEADS.IN_FEATURES", levels,
        "MODEL.ROI_HEADS.NAME", "StandardROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES", 1,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0,
        "MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC", 1,
        "MODEL.ROI_BOX_HEAD.FC_DIM", 16,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7,
        "MODEL.ROI_KEYPOINT_HEAD.NAME", "NonLocalKRCNNConvDeconvUpsampleHead",
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [8],
        "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS", 1,
        "INPUT.MIN_SIZE_TEST", SEEN_HEIGHT,
        "TEST.DETECTIONS_PER_IMAGE", 3,
        "DATASETS.TEST", [],
        *(
            part
            for key, value in blocks.items()
            for node in ("RESNETS", "ROI_KEYPOINT_HEAD")
            for part in (f"MODEL.{node}.NON_LOCAL.{key}", value)
        ),
    ])  # fmt: skip
    return cfg


def make_predictor(folder: Path, **nonlocal_keys: object) -> Predictor:
    torch.manual_seed(0)
    cfg = make_config(**nonlocal_keys)
    torch.save({"model": build_model(cfg).state_dict()}, folder / "weights.pth")
    return Predictor(cfg, weights=folder / "weights.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("visualization")


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    """A model with random weights, for tests that do not depend on them."""
    return make_predictor(folder)


def brightness(x: torch.Tensor, stride: int, channels: int) -> torch.Tensor:
    return F.avg_pool2d(x.mean(1, keepdim=True), stride).expand(-1, channels, -1, -1)


def see_brightness(predictor: Predictor) -> None:
    """Make the input of each block the image's brightness, and let the blocks look for it."""
    backbone, head = predictor.model.backbone, predictor.model.roi_heads.keypoint_head
    blocks = find_blocks(predictor.model)
    for block in blocks.values():
        for parameter in block.parameters():
            torch.nn.init.zeros_(parameter)
        torch.nn.init.constant_(block.phi.weight, 1 / block.in_channels)
        torch.nn.init.constant_(block.theta.bias, 5.0)

    def forward(image: torch.Tensor) -> dict[str, torch.Tensor]:
        in_res4 = blocks[BACKBONE_BLOCK]
        in_res4(brightness(image, STRIDE, in_res4.in_channels))
        return {f"p{level}": brightness(image, 2**level, 8) for level in range(2, 6)}

    backbone.forward = forward
    head.conv_fcn1.forward = head.conv_fcn_relu1.forward = torch.nn.Identity().forward


def detect(predictor: Predictor, monkeypatch: pytest.MonkeyPatch, boxes: list[list[float]]) -> None:
    """Make the model detect `boxes`, given in the image's coordinates."""
    scale = torch.tensor([SEEN_WIDTH / WIDTH, SEEN_HEIGHT / HEIGHT] * 2)
    found = Instances(
        (SEEN_HEIGHT, SEEN_WIDTH),
        pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4) * scale),
        scores=torch.linspace(0.9, 0.5, len(boxes)),
        pred_classes=torch.zeros(len(boxes), dtype=torch.int64),
    )
    # A copy each time, for the detector scales what it finds in place.
    heads = predictor.model.roi_heads
    monkeypatch.setattr(heads, "_forward_box", lambda *_: [copy.deepcopy(found)])


def image_with_dot(x: float, y: float, radius: float) -> np.ndarray:
    """Gray as padding is, with a white square of 2 x `radius` around (x, y)."""
    image = np.full((HEIGHT, WIDTH, 3), get_cfg().MODEL.PIXEL_MEAN).round().astype(np.uint8)
    rows = slice(max(0, round(y - radius)), round(y + radius))
    image[rows, max(0, round(x - radius)) : round(x + radius)] = 255
    return image


def brightest(image: np.ndarray) -> tuple[float, float]:
    """The (x, y) of the center of all pixels of the highest value."""
    ys, xs = np.nonzero(image == image.max())
    return xs.mean() + 0.5, ys.mean() + 0.5


# Windows in pixels of the resized image, by hand: (0, 0) and the last ones, which the image's
# end cuts off at (201, 150), and one in the middle. With stride 16 and subsample 3, windows are 48
# wide; the 10 rows of positions make 4, of which the last has one position, from 144 to 160.
WINDOWS = {
    2: [(0, 0, 32, 32), (192, 128, 201, 150), (96, 64, 128, 96)],
    3: [(0, 0, 48, 48), (192, 144, 201, 150), (96, 48, 144, 96)],
}


def draw_attention(seen: ImageAttention, attention: Attention) -> np.ndarray:
    """Draw heat map and query on the image: (H, W, 3), RGB, of the image's size."""
    height, width = seen.image.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    drawing._draw_panel(axes, seen, attention, arrows=0)
    axes.set(xlim=(0, width), ylim=(height, 0))  # the panel shows only the region
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3]


@pytest.mark.parametrize("subsample", WINDOWS)
def test_peak_is_at_the_dot(folder: Path, monkeypatch: pytest.MonkeyPatch, subsample: int) -> None:
    predictor = make_predictor(folder, SUBSAMPLE=subsample)
    see_brightness(predictor)
    detect(predictor, monkeypatch, [])
    for left, top, right, bottom in WINDOWS[subsample]:
        x = (left + right) / 2 * WIDTH / SEEN_WIDTH
        y = (top + bottom) / 2 * HEIGHT / SEEN_HEIGHT
        image = image_with_dot(x, y, radius=8)
        seen = compute_attention(predictor, image, points=[(180.5, 200.5)], blocks=[BACKBONE_BLOCK])
        (attention,) = seen.attentions
        ((step, *place, _),) = attention.strongest(1)
        assert step == 0
        assert place == pytest.approx((x, y), abs=0.01)
        assert attention.weights.sum() == pytest.approx(1 - attention.padding, abs=1e-5)
        numbers = heat_map(attention, height=HEIGHT, width=WIDTH)
        assert numbers[int(y), int(x)] >= 240
        # Beyond the outermost centers the value stays, so corners have a flat top up to the edge.
        if left > 0 and right < SEEN_WIDTH:
            assert brightest(numbers) == pytest.approx((x, y), abs=1.5)


def test_padding_is_not_drawn_but_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make_predictor(folder, SUBSAMPLE=1)
    see_brightness(predictor)
    detect(predictor, monkeypatch, [])
    # Padding is gray: brighter than a black image, so most attention is there.
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    seen = compute_attention(predictor, black, points=[(9, 9)], blocks=[BACKBONE_BLOCK])
    (attention,) = seen.attentions
    assert attention.weights.shape == attention.sees.shape == (1, 10, 13)  # of 10 x 14
    assert attention.padding > 0.3
    assert attention.even == 1 / 140
    assert "padding" in explain(attention)


def test_peak_is_at_the_dot_in_the_region(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = make_predictor(folder, SUBSAMPLE=3)
    see_brightness(predictor)
    x0, y0, x1, y1 = box = [40.3, 30.7, 201.2, 220.9]
    # The empty box is dropped by the detector after the head: regions keep their numbers.
    detect(predictor, monkeypatch, [[10.0, 10.0, 10.0, 30.0], box, [150.0, 5.0, 320.0, 190.0]])
    for row, column in ((1, 1), (2, 1), (1, 2)):
        x = x0 + (column + 0.5) * 3 * (x1 - x0) / 14
        y = y0 + (row + 0.5) * 3 * (y1 - y0) / 14
        image = image_with_dot(x, y, radius=9)
        seen = compute_attention(
            predictor, image, points=[(100, 100), (300, 30)], blocks=[HEAD_BLOCK]
        )
        assert [a.query.label for a in seen.attentions] == [
            "(100, 100) in 1 0",
            "(300, 30) in 2 0",
        ]
        attention = seen.attentions[0]
        assert attention.grid.box == pytest.approx(box, abs=0.01)
        assert attention.strongest(1)[0][1:3] == pytest.approx((x, y), abs=0.1)
        drawn = draw_attention(replace(seen, image=np.zeros_like(seen.image)), attention)
        assert drawn[100, 100].tolist() == [0, 229, 255]  # the query's own dot is cyan, not red
        assert brightest(drawn[:, :, 0]) == pytest.approx((x, y), abs=3)
        assert drawn[: int(y0)].max() == 0  # nothing outside the region


def test_queries_are_detections_and_keypoints(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect(predictor, monkeypatch, [[40.0, 30.0, 200.0, 220.0], [150.0, 5.0, 320.0, 190.0]])
    seen = compute_attention(predictor, image_with_dot(100, 100, 20), max_detections=2)
    assert not any(m._forward_pre_hooks for m in predictor.model.modules())

    centers = [a.query for a in seen.attentions if a.block == BACKBONE_BLOCK]
    points = [v for query in centers for v in (query.x, query.y)]
    assert points == pytest.approx([120, 125, 235, 97.5], abs=0.01)
    joints = [a for a in seen.attentions if a.block == HEAD_BLOCK]
    keypoints = seen.instances.pred_keypoints[:, :, :2].reshape(-1, 2).tolist()
    assert len(keypoints) == 2 * 17
    for attention, (x, y) in zip(joints, keypoints, strict=True):
        assert (attention.query.x, attention.query.y) == (x, y)
        assert attention.grid.contains(x, y)

    # Next to people, a car's keypoints mean nothing.
    metadata = type(predictor.metadata)(thing_classes=["car", "person"])
    monkeypatch.setattr(predictor, "metadata", metadata)
    found = compute_attention(predictor, seen.image).attentions
    assert [a.block for a in found] == [BACKBONE_BLOCK] * 2


def test_a_block_outside_of_a_stage_is_refused(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(predictor.model._modules, "elsewhere", NonLocalBlock(8))
    with pytest.raises(UserError, match="elsewhere"):
        compute_attention(predictor, image_with_dot(100, 100, 20))


def run_tool(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["visualize_attention.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_script(command.main)
    return ended.value.code


@pytest.fixture
def line(
    folder: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[object, ...]:
    """The command line for ``dot.png`` and ``out``; ``damaged.jpg`` is no image."""
    monkeypatch.chdir(tmp_path)
    (folder / "config.yaml").write_text(predictor.cfg.dump())
    cv2.imwrite("dot.png", image_with_dot(100, 100, 20))
    Path("damaged.jpg").write_bytes(b"no image")
    return ("--config-file", folder / "config.yaml", "--output", "out", "--input", "dot.png")


def test_tool_draws_readable_images(line: tuple, monkeypatch, capsys) -> None:
    query = ("--query", 100, 100, "--query", 0, 246, "--block", BACKBONE_BLOCK)
    assert run_tool(monkeypatch, *line, "damaged.jpg", *query) == 1
    assert "damaged.jpg" in capsys.readouterr().err.splitlines()[-1]
    assert cv2.imread("out/dot.png") is not None
    assert "0, 0.5, 246.5]" in Path("out/index.html").read_text()


def test_tool_measures(line: tuple, monkeypatch, capsys) -> None:
    regions = {"dot.png": [{"label": "dot", "boxes": [[80, 80, 120, 120]]}]}
    Path("regions.json").write_text(json.dumps(regions))
    line += ("damaged.jpg", "--samples", 1, "--statistics")
    given = ("--regions", "regions.json", "--block", BACKBONE_BLOCK)
    assert run_tool(monkeypatch, *line, *given) == 0
    assert BACKBONE_BLOCK in capsys.readouterr().out
    (found,) = json.loads(Path("out/statistics.json").read_text())
    with open("out/statistics.csv") as file:
        (row,) = csv.DictReader(file)
    assert found["regions"]["dot"]["regions"] == found["samples"] == 1
    assert float(row["own"]) == pytest.approx(found["own"])
    assert Path(f"out/{BACKBONE_BLOCK}.pdf").read_bytes().startswith(b"%PDF")
    assert run_tool(monkeypatch, *line) == 0
    blocks = json.loads(Path("out/statistics.json").read_text())
    assert {"own", "rest"} <= blocks[0].keys()  # the detections are regions


AFTER_BLOCKS = "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS"
EVERY_CONVS = "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--input", "none.jpg"), "none.jpg"),
        (("--output", "."), "dot.png"),
        (("--query", 331, 0), "(331.5, 0.5)"),
        (("--block", "res4"), "res4"),
        (("--opts", AFTER_BLOCKS, "[[],[],[],[]]", EVERY_CONVS, 0), AFTER_BLOCKS),
        (("--statistics", "--regions", "none.json"), "none.json"),
        (("--statistics", "--regions", "json:none"), "json:none"),
    ],
)
def test_tool_refuses(line: tuple, arguments: tuple, message: str, monkeypatch, capsys) -> None:
    assert run_tool(monkeypatch, *line, *arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
