"""The recipe for one's own videos, README.md and docs/own_videos.md, run as it stands there."""

import json
from pathlib import Path

import numpy as np
import pytest
from documentation import ROOT, blocks, commands, page_file, run_steps, words

from nl_detectron.config import load_config
from nl_detectron.data.video.writing import write_video

README, PAGE = ROOT / "README.md", ROOT / "docs/own_videos.md"
SMALL = """
    MODEL.WEIGHTS "" MODEL.DEVICE cpu MODEL.RESNETS.STEM_OUT_CHANNELS 4
    MODEL.RESNETS.RES2_OUT_CHANNELS 8 MODEL.RESNETS.WIDTH_PER_GROUP 4 INPUT.CLIP.FRAMES 4
    INPUT.MIN_SIZE_TRAIN (32,40) INPUT.MIN_SIZE_TEST 32 INPUT.CROP.SIZE [32,32] TEST.CLIPS 2
    TEST.PRECISE_BN.NUM_ITER 2 DATALOADER.NUM_WORKERS 0
    SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.STEPS ()
"""
FORGET = """
from detectron2.data import DatasetCatalog, MetadataCatalog
for split in ("train", "val"):
    DatasetCatalog.remove(f"gestures_{split}")
    MetadataCatalog.remove(f"gestures_{split}")
"""
SMALL = [option.strip('"') for option in SMALL.split()]


def list_of_the_readme() -> str:
    """The block between the section's heading and its first file."""
    section = README.read_text(encoding="utf-8").split("\n## Your own videos\n")[1]
    return section.split("```text\n")[1].split("```")[0]


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
    for name in ("train_gestures.py", "gestures.yaml", "tags.yaml"):
        (folder / name).write_text(page_file(name), encoding="utf-8")
    make_videos(folder / "gestures", list_of_the_readme().splitlines())
    make_videos(folder / "tags", ["a.mp4 0,2", "b.mp4 1"])
    (folder / "tags/classes.txt").write_text("hand\nface\ntwo people\n", encoding="utf-8")
    return folder


def results(output: Path) -> dict[str, float]:
    last = json.loads((output / "metrics.json").read_text().splitlines()[-1])
    return {name: value for name, value in last.items() if name.startswith("video/")}


def test_own_videos_train_and_are_evaluated(checkout: Path) -> None:
    """The README's command and the page's, but those with a schedule or weights of their own."""
    lines = dict.fromkeys(c for p in (README, PAGE) for c in commands(p))
    steps: list[list[str] | str] = []
    for command in lines:
        line = words(command)
        line = line if line[0] == "nl-detectron" else line[1:]
        if "SOLVER.MAX_ITER" in line or "output/Kinetics" in command:
            continue
        if "gestures.yaml" in line or "tags.yaml" in line:
            start = ["MODEL.WEIGHTS", line[-1]] if "MODEL.WEIGHTS" in line else []
            steps.append([*line, *SMALL, *start])
        elif "gestures" in line:
            steps.append(line)
    steps += [b.text for b in blocks(PAGE) if b.language == "python" and not b.file]
    assert [isinstance(s, str) or (s[:2], "--eval-only" in s) for s in steps] == [
        (["train_gestures.py", "--config-file"], False),
        (["nl-detectron", "check"], False),
        (["train_gestures.py", "--config-file"], True),
        (["nl-detectron", "train"], False),
        True,
    ]
    steps.insert(2, FORGET)  # the script registers them again
    done = run_steps(checkout, steps)
    found = results(checkout / "output")
    assert set(found) == {f"video/{clip}top{k}" for clip in ("", "clip_") for k in (1, 5)}
    assert set(results(checkout / "output/tags")) == {"video/mAP", "video/clip_mAP"}
    assert "Non-local block after res3.1" in done.stdout
    assert "2 clips x 3 crops of 32, mean of softmax" in done.stdout
    assert "2 clips x 3 crops of 32, max of sigmoid" in done.stdout
    for line in list_of_the_readme().splitlines():
        video, label = line.split()
        assert any(
            shown.startswith(f"{video} ") and shown.endswith(f" [{label}]")
            for shown in done.stdout.splitlines()
        )


def test_what_the_page_says_of_the_schedule_holds(checkout: Path) -> None:
    """The short schedule has the rate of the base for a batch of its size."""
    (line,) = (words(c) for c in commands(PAGE) if "SOLVER.MAX_ITER" in c)
    base = load_config(checkout / "gestures.yaml")
    short = load_config(checkout / "gestures.yaml", line[line.index("gestures.yaml") + 1 :])
    assert f"{base.SOLVER.MAX_ITER:,} iterations of {base.SOLVER.IMS_PER_BATCH} clips" in (
        PAGE.read_text(encoding="utf-8")
    )
    per_clip = [cfg.SOLVER.BASE_LR / cfg.SOLVER.IMS_PER_BATCH for cfg in (base, short)]
    assert per_clip[0] == pytest.approx(per_clip[1])
