"""The recipe of docs/own_videos.md, run as it stands there."""

from pathlib import Path

import numpy as np
import pytest
import tiny_run
from documentation import ROOT, blocks, commands, page_file, run_steps, words

from nl_detectron.config import load_config
from nl_detectron.data.video.writing import write_video

PAGE = ROOT / "docs/own_videos.md"
SMALL = words("""
    MODEL.WEIGHTS "" MODEL.DEVICE cpu MODEL.RESNETS.STEM_OUT_CHANNELS 4
    MODEL.RESNETS.RES2_OUT_CHANNELS 8 MODEL.RESNETS.WIDTH_PER_GROUP 4 INPUT.CLIP.FRAMES 4
    INPUT.MIN_SIZE_TRAIN "(32,40)" INPUT.MIN_SIZE_TEST 32 INPUT.CROP.SIZE [32,32] TEST.CLIPS 2
    TEST.PRECISE_BN.NUM_ITER 2 DATALOADER.NUM_WORKERS 0
    SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.STEPS "()"
""")


def list_of_the_page() -> str:
    return next(block.text for block in blocks(PAGE) if block.language == "text")


def make_videos(folder: Path, lines: list[str]) -> None:
    """A list for each split, and the videos that its lines name."""
    rng = np.random.default_rng(0)
    for line in lines:
        path = folder / line.split()[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = rng.integers(0, 256, (9, 48, 64, 3), np.uint8)
        write_video(path, frames, rate=10)
    for split in ("train", "val"):
        (folder / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the pages' files and the videos."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("gestures.yaml", "small.yaml", "tags.yaml"):
        (folder / name).write_text(page_file(name), encoding="utf-8")
    make_videos(folder / "gestures", list_of_the_page().splitlines())
    make_videos(folder / "tags", ["a.mp4 0,2", "b.mp4 1"])
    (folder / "tags/classes.txt").write_text("hand\nface\ntwo people\n", encoding="utf-8")
    return folder


def results(output: Path) -> set[str]:
    return {name for name in tiny_run.metrics(output)[-1] if name.startswith("video/")}


def test_page_commands_train_and_evaluate(checkout: Path) -> None:
    """The commands of the page, except those with other schedules or weights."""
    steps: list[list[str] | str] = []
    for line in map(words, commands(PAGE)):
        if "SOLVER.MAX_ITER" not in line and not line[-1].startswith("output/Kinetics"):
            weights = line[-2:] if "MODEL.WEIGHTS" in line else []
            steps.append(line if line[1] == "check" else [*line, *SMALL, *weights])
    assert [step[1] for step in steps] == ["check", "check", *["train"] * 4]
    steps += [b.text for b in blocks(PAGE) if b.language == "python"]
    done = run_steps(checkout, steps)
    top_k = {f"video/{clip}top{k}" for clip in ("", "clip_") for k in (1, 5)}
    assert results(checkout / "output") == top_k
    assert results(checkout / "output/tags") == {"video/mAP", "video/clip_mAP"}
    assert "Non-local block after res3.1" in done.stdout
    assert "2 clips x 3 crops of 32, mean of softmax" in done.stdout
    assert "2 clips x 3 crops of 32, max of sigmoid" in done.stdout
    for line in list_of_the_page().splitlines():
        video, label = line.split()
        assert any(
            shown.startswith(f"{video} ") and shown.endswith(f" [{label}]")
            for shown in done.stdout.splitlines()
        )


def test_page_schedule_matches_config(checkout: Path) -> None:
    """The short schedule has the rate of the base for a batch of its size."""
    (line,) = (words(c) for c in commands(PAGE) if "SOLVER.MAX_ITER" in c)
    base = load_config(checkout / "gestures.yaml")
    short = load_config(checkout / "gestures.yaml", line[line.index("gestures.yaml") + 1 :])
    assert f"{base.SOLVER.MAX_ITER:,} iterations of {base.SOLVER.IMS_PER_BATCH} clips" in (
        PAGE.read_text(encoding="utf-8")
    )
    per_clip = [cfg.SOLVER.BASE_LR / cfg.SOLVER.IMS_PER_BATCH for cfg in (base, short)]
    assert per_clip[0] == pytest.approx(per_clip[1])
