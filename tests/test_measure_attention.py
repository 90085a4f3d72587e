"""``tools/measure_attention.py``: how much of a signal's attention goes to its partner."""

import json
from collections.abc import Callable
from pathlib import Path

import measure_attention
import numpy as np
import pytest
import torch
from tiny_run import ROOT
from video_networks import build, randomize, video_cfg

from nl_detectron.analysis.attention import compute_clip_attention
from nl_detectron.analysis.clip import read_clip
from nl_detectron.data.datasets.synthetic import clips
from nl_detectron.utils.errors import run_script
from nl_detectron.visualization.partners import partner_shares

NUM_VIDEOS = 2 * len(clips.CLASSES) - 6  # each class once, those told by a relation twice
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded clips, but few, and a network with its weights in ``run``."""
    root = tmp_path_factory.mktemp("clips")
    made = clips.make_clips(root, num_train=1, num_val=NUM_VIDEOS, progress=False)
    cfg = video_cfg(
        "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS", [[], [0], [], []],
        "MODEL.RESNETS.OUT_FEATURES", ["res3"],
        "MODEL.RESNETS.DEPTH", 18,
        "MODEL.VIDEO_RESNET.STEM_TIME_STRIDE", 1,
        "INPUT.CLIP.FRAMES", 8,
        "INPUT.CLIP.STRIDE", 3,
        "INPUT.MIN_SIZE_TEST", 48,
        "DATASETS.TEST", ["nl_clips_val"],
    )  # fmt: skip
    torch.save({"model": randomize(build(cfg)).state_dict()}, made / "model.pth")
    cfg.MODEL.WEIGHTS = str(made / "model.pth")
    (made / "config.yaml").write_text(cfg.dump())
    return made


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the tool; return its status and what it wrote."""
    monkeypatch.setattr(clips, "make_clips", lambda root: folder)

    def run_tool(*arguments: object, config: Path = folder / "config.yaml") -> tuple[int, str, str]:
        line = ["measure_attention.py", "--config-file", config, *arguments]
        monkeypatch.setattr("sys.argv", [str(argument) for argument in line])
        with pytest.raises(SystemExit) as ended:
            run_script(measure_attention.main)
        written = capsys.readouterr()
        return ended.value.code, written.out, written.err

    return run_tool


def test_rows_are_means_over_the_clips_of_a_class(run: Run, folder: Path, tmp_path: Path) -> None:
    status, printed, _ = run("--json", tmp_path / "new" / "rows.json")
    assert status == 0
    rows = json.loads((tmp_path / "new" / "rows.json").read_text())
    names = [c.name for c in clips.CLASSES if c.told_by == "relation"]
    assert [(row["class"], row["from"]) for row in rows] == [
        (name, side) for name in sorted(names) for side in ("left", "right")
    ]
    assert all(row["points"] == 2 and row["class"] in printed for row in rows)

    cfg = measure_attention.complete_config(str(folder / "config.yaml"))
    model, _ = measure_attention.load_model(cfg)
    found = []
    for index in range(NUM_VIDEOS):
        label, scene = clips.make_scene("val", index)
        if clips.CLASSES[label].name == "banners match":
            file = folder / f"val/{index + 1:06d}.mp4"
            clip = read_clip(file, frames=8, stride=3, short_side=48)
            found.append(
                next(partner_shares(compute_clip_attention(model, clip), clips.signals(scene)))
            )
    (row,) = (r for r in rows if (r["class"], r["from"]) == ("banners match", "left"))
    for key, shares in (
        ("partner", [one.partner for one in found]),
        ("around", [one.around_partner for one in found]),
        ("itself", [one.around_itself for one in found]),
    ):
        assert row[key] == pytest.approx(100 * np.mean([one.share for one in shares]))
        assert row[f"{key}, even"] == pytest.approx(100 * np.mean([one.even for one in shares]))
        strongest = 100 * np.mean([one.is_strongest for one in shares])
        assert row[f"{key}, strongest"] == pytest.approx(strongest)
    assert 0 < row["partner"] < row["around"] < 100


def test_what_cannot_work_is_one_line(run: Run, folder: Path, tmp_path: Path) -> None:
    no_blocks = ("--opts", "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS", "[[],[],[],[]]")
    weights = ("--opts", "MODEL.WEIGHTS")
    images = ROOT / "configs/quickstart.yaml"
    text = tmp_path / "text.yaml"
    text.write_text("MODEL: [")
    (tmp_path / "rows").mkdir()
    (tmp_path / "w.pth").write_text("no weights")
    for _what, arguments, config, said in (
        ("--json is a folder", ("--json", tmp_path / "rows"), None, "rows"),
        ("--json below a file", ("--json", text / "a.json"), None, "text.yaml"),
        ("--count 0", ("--count", 0), None, "--count"),
        ("--count -3", ("--count", -3), None, "--count"),
        ("--count before the first relation", ("--count", 2), None, "relation"),
        ("no blocks", no_blocks, None, "NON_LOCAL"),
        ("weights that are text", (*weights, tmp_path / "w.pth"), None, "w.pth"),
        ("weights that are missing", (*weights, tmp_path / "no.pth"), None, "no.pth"),
        ("a misspelt key", ("--opts", "INPUT.CLIP.FRAME", 8), None, "FRAMES"),
        ("a missing config", (), tmp_path / "no.yaml", "no.yaml"),
        ("a config that is no YAML", (), text, "text.yaml"),
        ("a config of images", (*weights, "w.pth"), images, "a model of images"),
    ):  # fmt: skip
        status, printed, error = run(*arguments, config=config or folder / "config.yaml")
        assert status == 1
        last = error.splitlines()[-1]
        assert last.startswith("error: ")
        assert said in last
        assert "partner" not in printed
    for _what, arguments, said in (
        ("--count many", ("--count", "many"), "invalid int value"),
        ("--split test", ("--split", "test"), "invalid choice"),
    ):
        status, _, error = run(*arguments)
        last = error.splitlines()[-1]
        assert status == 2
        assert said in last
