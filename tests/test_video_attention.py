"""Pictures of attention through space and time: right places at the right moments."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from painted import write_video
from test_visualization import run_tool
from video_networks import build, randomize, video_cfg

from nl_detectron.analysis.attention import (
    Attention,
    attention_weights,
    class_evidence,
    compute_clip_attention,
)
from nl_detectron.analysis.clip import Clip, Query, read_clip
from nl_detectron.analysis.grid import Axis, Grid
from nl_detectron.analysis.statistics import given_regions
from nl_detectron.utils.errors import UserError
from nl_detectron.visualization import draw_strip
from nl_detectron.visualization.drawing import format_weight, heat_map, palette

BLOCK = "backbone.res3.nonlocal_after_0"
WIDTH, HEIGHT = 120, 90  # of the video
SEEN_WIDTH, SEEN_HEIGHT = 64, 48  # by the network
FRAMES, STRIDE, START = 8, 3, 2


def network(pairwise: str = "embedded_gaussian", **nonlocal_keys: Any) -> tuple[CfgNode, Any]:
    keys = {"AFTER_BLOCKS": [[], [0], [], []], "PAIRWISE": pairwise, **nonlocal_keys}
    cfg = video_cfg(
        "MODEL.RESNETS.OUT_FEATURES", ["res3"],
        "MODEL.RESNETS.DEPTH", 18,
        "MODEL.VIDEO_RESNET.STEM_TIME_STRIDE", 1,
        "INPUT.CLIP.STRIDE", STRIDE,
        "INPUT.MIN_SIZE_TEST", SEEN_HEIGHT,
        "DATASETS.TEST", [],
        *(v for key, value in keys.items() for v in (f"MODEL.RESNETS.NON_LOCAL.{key}", value)),
    )  # fmt: skip
    return cfg, randomize(build(cfg).eval())


def clip_with_dot(frame: int, x: float, y: float) -> Clip:
    """A black clip with a white dot in one frame, of which the network sees the same."""
    frames = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    cv2.circle(frames[frame], (int(x), int(y)), 11, (255, 255, 255), -1)
    seen = np.stack(
        [cv2.resize(f, (SEEN_WIDTH, SEEN_HEIGHT), interpolation=cv2.INTER_AREA) for f in frames]
    )
    return Clip(
        file=Path("dot.mp4"),
        numbers=START + STRIDE * np.arange(FRAMES),
        size=(HEIGHT, WIDTH),
        frames=frames,
        pixels=torch.from_numpy(np.ascontiguousarray(seen.transpose(3, 0, 1, 2))),
        rate=5.0,
    )


def see_brightness(model: Any) -> None:
    """Make the block attend to bright places: its features are the averaged clip itself."""

    def average(x: torch.Tensor) -> torch.Tensor:
        pooled = torch.nn.functional.avg_pool3d(x.mean(1, keepdim=True), (2, 8, 8))
        return pooled.repeat(1, 32, 1, 1, 1) * 3

    backbone, block = model.backbone, model.get_submodule(BLOCK)
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(block.theta.bias)
    torch.nn.init.ones_(block.phi.weight)
    for child in (backbone.stem, *backbone.res2.children(), *backbone.res3.children()):
        if child is not block:
            child.forward = torch.nn.Identity().forward
    backbone.pool2.forward = average


def test_a_query_has_the_row_of_its_position() -> None:
    _, model = network(AXES="space")
    clip = clip_with_dot(3, 60, 45)
    seen = compute_clip_attention(model, clip)
    query = clip.query(START + 4 * STRIDE, 101.0, 33.0)  # frame 4 of 8: time step 2 of 4
    (attention,) = seen.attend(query)
    (block,) = seen.blocks
    assert block.features.shape[1:] == (4, 6, 8)  # 48 x 64 pixels at stride 8
    # 101 of 120 pixels is column 6 of 8, and 33 of 90 is row 2 of 6.
    position = np.ravel_multi_index((2, 2, 6), (4, 6, 8))
    (row,), _ = attention_weights(block.block, block.features, [position])
    np.testing.assert_allclose(attention.weights, row)
    assert attention.sees[2].all()
    assert attention.sees.sum() == 12
    assert attention.even == 1 / 12
    assert attention.weights.std() > 0.01 * attention.even  # not even, so the test means something


@pytest.mark.parametrize("subsample", [1, 3])
def test_attention_peak_is_at_dot(subsample: int) -> None:
    _, model = network(SUBSAMPLE=subsample)
    see_brightness(model)
    for frame, step, row, column in ((0, 0, 0, 0), (3, 1, 1, 1), (7, 3, 5 // subsample, 0)):
        # The center of a window's part inside the frame.
        ends = min((column + 1) * subsample, 8), min((row + 1) * subsample, 6)
        x = (column * subsample + ends[0]) / 2 * WIDTH / 8
        y = (row * subsample + ends[1]) / 2 * HEIGHT / 6
        clip = clip_with_dot(frame, x, y)
        look = compute_clip_attention(model, clip)
        (attention,) = look.attend(clip.point(5, 100, 50))
        ((found, *place, weight),) = attention.strongest(1)
        assert found == step
        assert place == pytest.approx([x, y])
        assert weight > 3 * attention.even


def attention_of(weights: list[list[float]], **changes: Any) -> Attention:
    """Attention in an image of 2 x 2 pixels, from its upper left corner."""
    axis = Axis(start=0, step=1, length=2, end=2, subsample=1)
    grid = Grid(time=replace(axis, length=1, end=1), y=axis, x=axis)
    found = Attention(
        block="",
        query=Query(x=0, y=0, label=""),
        grid=grid,
        weights=np.array([weights]),
        sees=np.ones((1, 2, 2), bool),
        signed=False,
        even=0.25,
    )
    return replace(found, **changes)


def test_arrows_point_to_weights_above_uniform() -> None:
    attention = attention_of([[0.3, 0.25], [0.0, 0.45]])
    assert attention.strongest(9) == [(0, 1.5, 1.5, 0.45), (0, 0.5, 0.5, 0.3)]
    assert attention.strongest(1) == [(0, 1.5, 1.5, 0.45)]
    assert not replace(attention, weights=attention.weights / 2, padding=0.5).strongest(9)
    assert not attention_of([[0.25, 0.25], [0.25, 0.25]]).strongest(9)
    signed = attention_of([[-9.0, 1.0], [0.0, 4.0]], signed=True)
    assert [weight for *_, weight in signed.strongest(9)] == [-9, 4]


def test_signed_weights_have_a_symmetric_scale() -> None:
    planted = attention_of([[-2.0, 0.0], [0.0, 1.0]], signed=True)
    numbers = heat_map(planted, height=2, width=2)
    assert numbers.ravel().tolist() == pytest.approx([0, 127, 127, 191], abs=1)  # of -2 to 2
    nothing = attention_of([[0.0, 0.0], [0.0, 0.0]], signed=True)
    assert set(heat_map(nothing, height=9, width=9).ravel()) <= {127, 128}
    assert format_weight(planted, -2.0) == "-2"
    assert format_weight(attention_of([[0.25, 0.25], [0.25, 0.25]]), 0.25) == "25%"
    colors = palette(signed=True)
    assert colors[127:129, 3].max() < 0.1  # zero is transparent
    assert colors[0, 3] == colors[255, 3]
    assert colors[0, 2] > 2 * colors[0, 0]  # less than zero is blue


def test_class_evidence_matches_classifier() -> None:
    _, model = network()
    clip = clip_with_dot(3, 60, 45)
    look = compute_clip_attention(model, clip, class_names=["a", "b", "c", "d", "e"])
    with torch.no_grad():
        x = (clip.pixels[None] - model.pixel_mean) / model.pixel_std
        feature = model.backbone(x)["res3"][0]
        scores = model.probabilities(clip.pixels[None])[0]
    best = int(scores.argmax())
    np.testing.assert_allclose(look.scores, scores, rtol=1e-5)
    assert look.best(1)[0][0] == "abcde"[best]
    evidence = class_evidence(model, feature, best)
    # The evidence of all places sums up to the logit, but for what all classes have in common.
    logits = model.classifier.weight.detach().double() @ feature.double().mean((1, 2, 3))
    assert evidence.mean() == pytest.approx(float(logits[best] - logits.mean()), rel=1e-4)
    step, row, column = np.unravel_index(evidence.argmax(), evidence.shape)
    assert look.evidence.frame // 2 == step
    assert (look.evidence.x, look.evidence.y) == pytest.approx(
        ((column + 0.5) * WIDTH / 8, (row + 0.5) * HEIGHT / 6)
    )


def test_axis_with_padding() -> None:
    axis = Axis(start=10.0, step=4.0, length=7, end=32.0, subsample=3)
    # Positions begin at 10, 14, ..., 34; the window from 34 is padding, the one before cut off.
    assert axis.windows().tolist() == [[10, 22], [22, 32]]
    assert [axis.position(c) for c in (10, 13.9, 14, 32)] == [0, 0, 1, 5]
    # 11 cells of 2 pixels; between the centers, 16 and 27, the sixth is at 21.
    assert axis.spread(11)[[0, 5, 10]].tolist() == [
        [1, 0],
        [pytest.approx(6 / 11), pytest.approx(5 / 11)],
        [0, 1],
    ]


def test_read_clip_selects_requested_frames(tmp_path: Path) -> None:
    file = write_video(tmp_path / "a.mp4", "libx264", 30, rate=14, size=(WIDTH, HEIGHT))
    options = {"frames": FRAMES, "stride": STRIDE, "short_side": SEEN_HEIGHT}
    clip = read_clip(file, **options)
    assert clip.numbers.tolist() == list(range(3, 27, 3))  # 24 of 30 frames, in the middle
    assert clip.size == (HEIGHT, WIDTH)
    assert clip.frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert clip.pixels.shape == (3, FRAMES, SEEN_HEIGHT, SEEN_WIDTH)
    assert clip.rate == pytest.approx(14 / 3)
    assert clip.query(10, 1, 1).frame == 2  # frame 9 shows it
    assert read_clip(file, **options, start=20).numbers.tolist()[-2:] == [8, 11]  # repeated


def test_strip() -> None:
    _, model = network("dot_product", AFTER_BLOCKS=[[0], [0], [], []])
    clip = clip_with_dot(3, 60, 45)
    look = compute_clip_attention(model, clip)
    attentions = look.attend(look.evidence)
    assert attentions[0].signed
    figure = draw_strip(look, attentions)
    shown = [text.get_text() for axes in figure.axes for text in axes.texts if text.get_text()]
    assert len(shown) == 8 + 4  # time steps of res2 and res3
    assert shown[:3] == ["frame 2", "frame 5", "frame 8"]


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The command line for ``a.mp4`` and ``out``; ``b.mp4`` is shorter, ``c.mp4`` damaged."""
    monkeypatch.chdir(tmp_path)
    cfg, model = network()
    torch.save({"model": model.state_dict()}, "model.pth")
    cfg.MODEL.WEIGHTS = "model.pth"
    Path("config.yaml").write_text(cfg.dump())
    write_video(Path("a.mp4"), "libx264", 30, rate=14, size=(WIDTH, HEIGHT))
    write_video(Path("b.mp4"), "libx264", 10, rate=14)
    Path("c.mp4").write_bytes(b"no video")
    return ("--config-file", "config.yaml", "--output", "out", "--input", "a.mp4")


def test_tool_draws_and_measures(line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_tool(monkeypatch, *line, "--query", 9, 100, 30) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "index.html"]
    assert "2, 100.5, 30.5]" in Path("out/index.html").read_text()

    regions = "test_video_attention:regions_of"
    assert run_tool(monkeypatch, *line, "--statistics", "--regions", regions) == 0
    (found,) = json.loads(Path("out/statistics.json").read_text())
    assert found["regions"]["a"]["regions"] == 1
    clip = read_clip("a.mp4", frames=FRAMES, stride=STRIDE, short_side=SEEN_HEIGHT)
    (box,) = given_regions(regions_of(clip.file), clip)
    assert box.boxes.tolist() == [[1, 1, 2, 30, 40]]  # frame 6 of the video is 1 of the clip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--query", 29, 5, 5), "frame 29"),
        (("--query", 9, 120, 5), "(120.5, 5.5)"),
        (("--query", 5, 5), "--query"),
        (("--start", 30), "a.mp4"),
        (("--block", "res3"), "res3"),
        (("--input", "a.mp4", "b.mp4", "--query", 12, 5, 5), "b.mp4"),
        (("--input", "c.mp4"), "c.mp4"),
    ],
)
def test_tool_refuses(
    line: tuple[str, ...], arguments: tuple, said: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert run_tool(monkeypatch, *line, *arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last


def regions_of(file: Path) -> list[dict[str, Any]]:
    return [{"label": file.stem, "boxes": [[6, 1, 2, 30, 40], [7, 0, 0, 9, 9]]}]


def test_a_clip_too_small() -> None:
    _, model = network()
    clip = clip_with_dot(0, 5, 5)
    tiny = replace(clip, pixels=clip.pixels[:, :1])
    with pytest.raises(UserError, match=r"dot\.mp4"):
        compute_clip_attention(model, tiny)
