"""Costs of the video configs: the paper's figures, and the tool's output for clips and views."""

import json
import sys

import pytest
from test_configs import CONFIGS, build

from nl_detectron import model_zoo
from nl_detectron.analysis.cost import analyze_video
from nl_detectron.commands import analyze


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
    model = build(cfg)
    result = analyze_video(model, frames=cfg.INPUT.CLIP.FRAMES, height=224, width=224)
    assert result.total.papers_order / 1e9 == pytest.approx(billions, rel=0.01)
    assert result.total.multiply_adds <= result.total.papers_order
    assert result.total.parameters == sum(p.numel() for p in model.parameters())
    assert result.total.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert [part.name for part in result.parts] == [
        *("stem", "res2", "res3", "res4", "res5", "classifier")
    ]


def run_tool(monkeypatch, capsys, *arguments: str) -> str:
    file = str(CONFIGS / "Kinetics" / "c2d_R_50_NL5_space_32x2.yaml")
    monkeypatch.setattr(sys, "argv", ["analyze", "--config-file", file, *arguments])
    analyze.main()
    return capsys.readouterr().out


def test_the_tool_states_clip_size_and_views(monkeypatch, capsys) -> None:
    found = json.loads(run_tool(monkeypatch, capsys, "--json"))
    test = found["test"]
    assert (test["height"], test["width"], test["views"]) == (256, 256, 30)
    assert test["multiply_adds"] == 30 * test["multiply_adds_of_view"]
    assert test["multiply_adds_of_view"] > found["total"]["multiply_adds"]
    text = run_tool(monkeypatch, capsys, "--input-size", "128", "160", "TEST.CROPS", "1")
    assert "One clip of 32 frames of 128 x 160 pixels" in text
    assert "10 clips x 1 crops of 256 x 256 pixels" in text
    assert "in the paper's order of multiplication: " in text
    assert text.count("1 x 512 x 4 x 16 x 20") == 2
