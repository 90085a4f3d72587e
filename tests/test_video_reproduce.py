"""``tools/reproduce.py --released`` as a user starts it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from test_video_weights import official_blobs, write_official

from nl_detectron.commands.reproduce import FILES
from nl_detectron.data.video.writing import write_video
from nl_detectron.model_zoo import find_entry

SMALL = """
MODEL.RESNETS.STEM_OUT_CHANNELS 4 MODEL.RESNETS.RES2_OUT_CHANNELS 8
MODEL.RESNETS.WIDTH_PER_GROUP 4 DATALOADER.NUM_WORKERS 0 INPUT.CROP.SIZE [64,64]
INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 INPUT.MIN_SIZE_TRAIN_SAMPLING choice
"""
LABELS = (3, 17)


def write_kinetics(folder: Path) -> None:
    """Write validation videos in the official layout."""
    random = np.random.default_rng(0)
    lines = []
    for number, label in enumerate(LABELS):
        name = f"val/class {label}/Ab-{number:08d}_000010_000020.mp4"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (12 + number, 8, 9, 3), np.uint8)
        write_video(folder / name, small.repeat(8, axis=1).repeat(8, axis=2), rate=20)
        lines.append(f"{name} {label}\n")
    (folder / "val.txt").write_text("".join(lines))


def test_released_weights_use_official_protocol(tmp_path: Path) -> None:
    entry = find_entry("Kinetics/i3d_R_50_NL5_8x8.yaml")
    blobs = official_blobs(depth=50, i3d=True, nonlocal_=True, affine=False, classes=400)
    write_official(tmp_path / FILES[entry.config], blobs)
    write_kinetics(tmp_path / "kinetics400")
    output = tmp_path / "output"
    line = ("--released", tmp_path, "--rows", entry.name, "--output", output)
    done = tiny_run.run(
        tiny_run.ROOT / "tools/reproduce.py",
        *(*line, "--opts", *SMALL.split()),
        environment={"DETECTRON2_DATASETS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 are new in non-local blocks; 0 in the file are unused" in done.stdout
    folder = output / "released" / entry.config.removesuffix(".yaml")
    saved = np.load(folder / "inference/scores_kinetics400_val.npz")
    assert saved["protocol"] == "10 clips x 3 crops of 64, mean of softmax"
    assert len(np.unique(saved["scores"][:, 0])) == len(LABELS)
    with open(output / "released/released.csv", newline="") as file:
        row = next(csv.DictReader(file))
    top1 = tiny_run.metrics(folder)[-1]["video/top1"]
    assert float(row["measured"]) == pytest.approx(top1, abs=1e-3)
    assert float(row["measured - official code"]) == pytest.approx(
        top1 - entry.official["video"][0], abs=1e-3
    )
