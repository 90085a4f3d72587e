"""Exported files and the model agree, at sizes that the exporter has not seen."""

import sys

import cv2
import numpy as np
import onnx
import pytest
import torch
from detectron2.modeling import build_model
from recording import same
from safetensors.torch import load_file
from torch import nn

from nl_detectron import export
from nl_detectron.checkpoint import Checkpointer
from nl_detectron.commands import export as export_command
from nl_detectron.export import api as files
from nl_detectron.export import detector as detection
from nl_detectron.layers import NonLocalBlock
from nl_detectron.utils.errors import UserError


@pytest.fixture
def cfg(fpn_cfg):
    """A detector with blocks in backbone and keypoint head."""
    fpn_cfg.merge_from_list([
        "MODEL.BACKBONE.NAME", "build_nonlocal_resnet_fpn_backbone",
        # With frozen statistics random weights explode, and errors with them.
        "MODEL.RESNETS.NORM", "GN",
        "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS", [[], [], [-2], []],
        "MODEL.ROI_KEYPOINT_HEAD.NAME", "NonLocalKRCNNConvDeconvUpsampleHead",
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [16],
        "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS", 1,
        "MODEL.MASK_ON", True,
        "MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead",
        "MODEL.ROI_MASK_HEAD.NUM_CONV", 1,
        "MODEL.ROI_MASK_HEAD.NORM", "GN",
        "MODEL.ROI_MASK_HEAD.CONV_DIM", 32,
        "MODEL.RPN.POST_NMS_TOPK_TEST", 20,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0,
    ])  # fmt: skip
    return fpn_cfg


def build(cfg):
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for module in model.modules():
        if isinstance(module, NonLocalBlock):  # no longer the identity
            nn.init.normal_(module.norm.weight)
            nn.init.normal_(module.out.weight, std=0.1)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=0.3)
    return model


def run_export(cfg, path, part, file_format, images=()):
    return export.export_part(
        build(cfg), part=part, file_format=file_format, path=path, inputs=images
    )


def assert_agree(checks, inputs):
    assert [check.input for check in checks] == inputs
    assert max(check.error for check in checks) <= 1e-4


@pytest.mark.parametrize("file_format", export.SUFFIXES)
@pytest.mark.parametrize(
    ("part", "inputs"),
    [
        ("keypoint_head", [f"{regions} x 16 x 14 x 14" for regions in (0, 1, 20)]),
        ("backbone", ["2 x 3 x 128 x 160", "1 x 3 x 96 x 224", "1 x 3 x 192 x 96"]),
    ],
)
def test_a_part_takes_inputs_of_any_size(cfg, tmp_path, part, inputs, file_format):
    cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.PAIRWISE = "concatenation"
    assert_agree(run_export(cfg, tmp_path / part, part, file_format), inputs)


@pytest.mark.parametrize("file_format", export.SUFFIXES)
def test_the_detector_takes_any_size(cfg, tmp_path, file_format):
    generator = torch.Generator().manual_seed(0)
    sizes = (64, 96), (96, 75), (50, 128)
    images = [torch.rand(3, *size, generator=generator) * 255 for size in sizes]
    checks = run_export(cfg, tmp_path / "detector", "detector", file_format, images)
    assert_agree(checks, ["3 x 64 x 96", "3 x 96 x 75", "3 x 50 x 128"])
    assert "0 found" not in [check.found for check in checks]
    if file_format == "onnx":
        outputs = {output.name for output in onnx.load(tmp_path / "detector").graph.output}
        assert outputs == {
            *("pred_boxes", "pred_classes", "pred_keypoint_heatmaps", "pred_masks", "scores")
        }


def test_the_detector_may_find_nothing(cfg, tmp_path):
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    images = [torch.rand(3, 64, 96) * 255, torch.rand(3, 50, 128) * 255]
    checks = run_export(cfg, tmp_path / "detector", "detector", "onnx", images)
    assert_agree(checks, ["3 x 64 x 96", "3 x 50 x 128"])
    assert [check.found for check in checks] == ["0 found"] * 2


def test_wrong_export_fails_check(cfg, tmp_path, monkeypatch):
    """A file that keeps a number of its example must not pass."""
    head = type(build(cfg).roi_heads.keypoint_head)
    layers = head.layers
    monkeypatch.setattr(head, "layers", lambda self, x: layers(self, x) + float(x.mean()))
    checks = run_export(cfg, tmp_path / "head", "keypoint_head", "torchscript")
    assert not all(check.passed for check in checks)


def test_detections_may_come_in_another_order():
    expected = {
        "pred_boxes": torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 9], [4, 4, 8, 8]]),
        "pred_classes": torch.tensor([0, 1, 1]),
        "scores": torch.tensor([0.5, 0.5, 0.5]),
    }
    shuffled = {name: value[[2, 0, 1]] for name, value in expected.items()}
    reordered = detection._in_order_of(expected, shuffled)
    assert all(torch.equal(expected[name], reordered[name]) for name in expected)


def test_a_part_that_the_model_lacks(cfg, tmp_path):
    cfg.MODEL.KEYPOINT_ON = False
    cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = 0
    with pytest.raises(UserError, match="keypoint_head"):
        run_export(cfg, tmp_path / "head", "keypoint_head", "onnx")


@pytest.fixture
def command(cfg, tmp_path, monkeypatch):
    """The script's command line for a config and weights on disk."""
    weights, config, image = (tmp_path / name for name in ("w.pth", "c.yaml", "p.png"))
    torch.save({"model": build(cfg).state_dict()}, weights)
    config.write_text(cfg.dump())
    cv2.imwrite(str(image), np.full((64, 80, 3), 90, np.uint8))
    command = ["export_model.py", "--config-file", config, "--format", "torchscript"]
    command += ["--output", tmp_path / "out", "--input", image, tmp_path / "gone.png"]
    sizes = ["INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 128]
    tail = ["--opts", "MODEL.WEIGHTS", weights, *sizes]

    def run(*more):
        monkeypatch.setattr(sys, "argv", [*map(str, [*command, *more, *tail])])
        return export_command.main()

    return run


def test_script_exports_and_verifies_parts(command, tmp_path, capsys, monkeypatch):
    assert command("--part", "keypoint_head", "--part", "backbone") == 0
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        *("keypoint_head.ts", "backbone.ts", "classes.json")
    }
    assert "20 x 16 x 14 x 14" in capsys.readouterr().out
    monkeypatch.setattr(files, "TOLERANCE", -1.0)
    assert command("--part", "keypoint_head") == 1


def test_the_script_writes_weights(command, cfg, tmp_path):
    assert command("--format", "safetensors") == 0
    (file,) = (tmp_path / "out").iterdir()
    assert same(load_file(file), dict(build(cfg).state_dict()))


def test_weights_that_share_memory(tmp_path):
    """safetensors itself refuses them, and strides other than the usual."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].bias = nn.Parameter(torch.arange(6.0)[::2])
    model.register_buffer("view", model[0].weight.data.t())
    (check,) = export.export_weights(model, path=tmp_path / "shared.safetensors")
    assert check.passed
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    other.register_buffer("view", torch.zeros(3, 3))
    Checkpointer(other).load(str(tmp_path / "shared.safetensors"))
    assert same(dict(other.state_dict()), dict(model.state_dict()))
