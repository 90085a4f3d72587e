"""``demo/demo.py`` and `VideoPredictor` with a video classifier."""

import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from painted import paint, set_matrix, write_video
from PIL import Image
from tiny_run import ROOT
from video_networks import build, randomize

from nl_detectron.commands import demo, video_demo
from nl_detectron.config import load_config
from nl_detectron.data import inputs
from nl_detectron.data.video.probing import probe
from nl_detectron.data.video.windows import sliding_windows
from nl_detectron.engine import Predictor, VideoPredictor
from nl_detectron.utils.errors import ConfigError, DataError, UserError
from nl_detectron.visualization.video_scores import ScoreOverlay

CONFIG = ROOT / "configs" / "quickstart_video.yaml"
SIZE = (160, 120)
WINDOW = 8  # frames
OPTS = (
    *("MODEL.DEVICE", "cpu", "MODEL.RESNETS.STEM_OUT_CHANNELS", "4"),
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", "4", "INPUT.CLIP.FRAMES", "4", "INPUT.CLIP.STRIDE", "2"),
    *("INPUT.MIN_SIZE_TEST", "32", "TEST.CLIPS", "2", "TEST.CROPS", "3"),
)


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> CfgNode:
    folder = tmp_path_factory.mktemp("weights")
    cfg = load_config(CONFIG, OPTS)
    with torch.no_grad():
        model = randomize(build(cfg))
    torch.save({"model": model.state_dict()}, folder / "w.pth")
    cfg.MODEL.WEIGHTS = str(folder / "w.pth")
    return cfg


@pytest.fixture(scope="module")
def predictor(cfg: CfgNode) -> VideoPredictor:
    return VideoPredictor(cfg)


@pytest.fixture
def run(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the demo's main with arguments."""

    def run_main(*arguments: object) -> None:
        opts = ["--opts", *OPTS, "MODEL.WEIGHTS", cfg.MODEL.WEIGHTS]
        line = ["demo.py", "--config-file", str(CONFIG), *map(str, arguments), *opts]
        monkeypatch.setattr("sys.argv", line)
        monkeypatch.setattr(demo, "has_screen", lambda: False)
        demo.main()

    return run_main


@pytest.mark.parametrize("count", [1, 8, 13, 30])
@pytest.mark.parametrize("step", [None, 3, WINDOW])
def test_windows_cover_all_frames(count: int, step: int | None) -> None:
    frames = [
        video_demo.Frame(pixels=np.full((2, 3, 3), i, np.uint8), start=i / 10, end=(i + 1) / 10)
        for i in range(count)
    ]
    found = list(sliding_windows(frames, frames=4, stride=2, step=step))
    step = step or WINDOW // 2
    last = max(0, count - WINDOW)
    assert [w.first_frame for w in found] == [*range(0, last, step), last]
    for window in found:
        length = window.last_frame - window.first_frame + 1
        assert length == min(count, WINDOW)
        assert window.end == pytest.approx((window.last_frame + 1) / 10)
        shown = [window.first_frame + 2 * i % length for i in range(4)]
        assert window.clip[:, 0, 0, 0].tolist() == shown


def test_prediction_equals_evaluation(
    predictor: VideoPredictor, cfg: CfgNode, tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", 21, size=SIZE)
    pixels = np.stack([paint(i, width=160, height=120) for i in range(21)])
    of_file, of_array = predictor([path, pixels], rate=25)
    record = {"file_name": str(path), "info": probe(path), "video_id": "a", "labels": []}
    with torch.no_grad():
        (expected,) = predictor.model([predictor._map(record)])
    np.testing.assert_allclose(of_file.scores, expected["scores"], atol=1e-6)
    np.testing.assert_allclose(of_array.scores, of_file.scores, atol=0.02)
    times = [(w.first_frame, w.last_frame, w.start, w.end) for w in of_file.windows]
    assert times == [
        (0, 7, 0, pytest.approx(0.32)),
        (10, 17, pytest.approx(0.4), pytest.approx(0.72)),
    ]
    (in_halves,) = VideoPredictor(cfg, half=True, views_at_once=5)([path])
    np.testing.assert_allclose(in_halves.scores, of_file.scores, atol=0.05)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for one, same in ((str(path), of_file), (pixels, of_array), (tensor, of_array)):
        np.testing.assert_array_equal(predictor(one, rate=25).scores, same.scores)
    frames = [Image.fromarray(frame) for frame in pixels]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as moving:
        assert predictor(moving).windows[-1].last_frame == 17
    with pytest.raises(DataError, match=r"no\.mp4"):
        predictor([tmp_path / "no.mp4"])
    for wrong in (pixels[0], tensor[0], pixels.astype(np.float32), tensor.permute(0, 2, 3, 1)):
        with pytest.raises(ValueError, match="uint8"):
            predictor(wrong)


def test_non_finite_scores_error_contains_file_name(cfg: CfgNode, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "libx264", 9, size=SIZE)
    predictor = VideoPredictor(cfg)
    torch.nn.init.constant_(predictor.model.classifier.bias, float("nan"))
    with pytest.raises(DataError, match=r"a\.mp4"):
        predictor([path])


def test_predictors_suggest_each_other_for_wrong_config(cfg: CfgNode) -> None:
    with pytest.raises(ConfigError, match="VideoPredictor"):
        Predictor(cfg)
    images = load_config(ROOT / "configs" / "quickstart.yaml", ["MODEL.WEIGHTS", "w"])
    with pytest.raises(ConfigError, match=r"\bPredictor"):
        VideoPredictor(images)


@pytest.mark.parametrize("kind", ["uneven", "turned", "webm", "odd folder"])
def test_drawn_video_keeps_frames_size_and_times(
    run: Callable[..., None], tmp_path: Path, kind: str
) -> None:
    count, target = 21, tmp_path / "drawn" / ("out.webm" if kind == "webm" else "out.mp4")
    source = tmp_path / "in.mp4"
    if kind == "odd folder":
        source = tmp_path / "frames"
        source.mkdir()
        for i in range(count):
            image = paint(i, width=161, height=121)
            cv2.imwrite(str(source / f"{i:03}.png"), image[..., ::-1])
    else:
        stamps = [40 * i + 300 * (i > 10) for i in range(count)] if kind == "uneven" else None
        write_video(source, "libx264", count, size=SIZE, stamps=stamps, audio=True)
    if kind == "turned":
        set_matrix(source, 0, -1, 1, 0)
    run("--video-input", source, "--output", target, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    before, after = probe(source), probe(target)
    assert after.num_frames == before.num_frames == found["frames"] == count
    assert (after.height, after.width) == (4 * before.height, 4 * before.width)
    times = before.seconds(range(count))
    np.testing.assert_allclose(after.seconds(range(count)), times, atol=2e-3)
    firsts = [w["first_frame"] for w in found["windows"]]
    assert firsts == [0, 4, 8, 12, 13]
    assert [w["start"] for w in found["windows"]] == pytest.approx([times[i] for i in firsts])
    assert found["seconds"] == pytest.approx(times[-1] + 0.04, abs=2e-3)
    assert found["top"][0]["score"] == max(found["scores"])


def test_overlay_positions() -> None:
    scores = np.array([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]], np.float32)
    times = np.array([0.25, 0.75])
    overlay = ScoreOverlay((180, 320), ["a", "b", "c"], [1, 0], times=times, scores=scores)
    drawn = overlay.draw(np.full((180, 320, 3), 120, np.uint8), scores[0], 0.5)
    changed = (drawn != 120).any(axis=2)
    bars, strip = 3 * overlay.row_height, 180 - overlay.strip_height
    assert changed[:bars, : overlay.bars_width].mean() > 0.98
    assert not changed[bars:strip].any()
    assert not changed[:strip, overlay.bars_width :].any()
    assert (drawn[strip:, 160] == 255).all()  # the cursor
    distance = np.abs(drawn[strip:].astype(int) - overlay.colors[1]).sum(2)
    height = overlay.strip_height - 1
    curve = [distance[:, x].argmin() for x in (20, 300)]
    assert curve == [pytest.approx(0.5 * height, abs=1), pytest.approx(0, abs=1)]
    # The first bar is half as long as the panel.
    row = drawn[2, : overlay.bars_width].max(axis=1) > 100
    assert row.sum() == pytest.approx(overlay.bars_width / 2, abs=2)


def test_memory_does_not_grow_with_the_video() -> None:
    def frames() -> Iterator[video_demo.Frame]:
        alive = []
        for i in range(100):
            pixels = np.zeros((2, 3, 3), np.uint8)
            alive = [ref for ref in alive if ref() is not None] + [weakref.ref(pixels)]
            assert len(alive) <= WINDOW + 1
            yield video_demo.Frame(pixels=pixels, start=i, end=i + 1)

    assert len(list(sliding_windows(frames(), frames=4, stride=2))) > 20


def test_folder_continues_after_bad_videos(run: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a.mp4", "a.mkv"):
        write_video(folder / name, "libx264", 10, size=SIZE)
    whole = write_video(tmp_path / "whole.mkv", "libx264", 60, size=SIZE, options={"bf": "0"})
    (folder / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
    (folder / "text.mp4").write_text("no video")
    drawn = tmp_path / "drawn"
    with pytest.raises(UserError) as error:
        run("--video-input", folder, "--output", drawn, "--json", tmp_path / "f.json")
    assert all(name in str(error.value) for name in ("cut.mkv", "text.mp4"))
    found = json.loads((tmp_path / "f.json").read_text())
    assert {"a.mkv", "a.mp4"} <= {Path(video["file_name"]).name for video in found}
    assert probe(drawn / "a.mp4").num_frames == probe(drawn / "a.mkv").num_frames == 10
    assert 0 < probe(drawn / "cut.mkv").num_frames < 60


def test_the_first_videos_of_a_dataset_are_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = {"some_set": [{"file_name": "a.mp4"}, {"file_name": "b.mp4"}]}
    monkeypatch.setattr(inputs, "DatasetCatalog", catalog)
    monkeypatch.setattr(inputs, "check_datasets", lambda names: None)
    assert video_demo.list_videos("some_set:1", None) == ([Path("a.mp4")], [])


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (("--video-input", "no.mp4"), "no.mp4"),
        (("--video-input", "in.mp4", "--output", "in.mp4/x.mp4"), "in.mp4"),
        (("--video-input", "in.mp4", "--output", "in.mp4"), "in.mp4"),
        (("--video-input", "in.mp4", "--output", "o.xyz"), "o.xyz"),
        (("--video-input", "in.mp4", "--window-step", 9), "--window-step"),
        (
            ("--video-input", "in.mp4", "--class-names", "2.txt"),
            "MODEL.VIDEO_CLASSIFIER.NUM_CLASSES",
        ),
        (("--input", "2.txt"), "--video-input"),
        (("--webcam",), "--video-input"),
    ],
)
def test_invalid_arguments_give_one_line_error(
    run: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: tuple,
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "in.mp4", "libx264", 3, size=SIZE)
    (tmp_path / "2.txt").write_text("a\nb\n")
    with pytest.raises(UserError) as error:
        run("--output", "o.mp4", *line)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.txt", "in.mp4"]
