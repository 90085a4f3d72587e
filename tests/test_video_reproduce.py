"""``tools/reproduce.py`` as a user starts it: killed and continued; the released weights."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from test_video_lists import write_charades
from test_video_weights import official_blobs, write_official

from nl_detectron.commands.reproduce import FILES, read_results
from nl_detectron.data.video.writing import write_video
from nl_detectron.model_zoo import find_entry

NARROW = """
MODEL.RESNETS.STEM_OUT_CHANNELS 4 MODEL.RESNETS.RES2_OUT_CHANNELS 8
MODEL.RESNETS.WIDTH_PER_GROUP 4 DATALOADER.NUM_WORKERS 0
"""
TRAINING = f"""
{NARROW} MODEL.WEIGHTS '' INPUT.CLIP.FRAMES 8 INPUT.CLIP.STRIDE 1 INPUT.MIN_SIZE_TRAIN (32,36)
INPUT.MIN_SIZE_TEST 32 INPUT.CROP.SIZE [32,32] TEST.CLIPS 2 TEST.CROPS 1
TEST.PRECISE_BN.NUM_ITER 4 SOLVER.REFERENCE_WORLD_SIZE 0 SOLVER.IMS_PER_BATCH 4
SOLVER.BASE_LR 1e-5 SOLVER.MAX_ITER 4 SOLVER.STEPS (3,) SOLVER.CHECKPOINT_PERIOD 1
"""
# By video, in the order of the lists.
KINETICS_LABELS = {"train": (3, 399, 3, 0, 17), "val": (0, 3, 17, 3)}
CHARADES_ACTIONS = {
    "train": ("c003 0.00 0.30;c156 0.20 0.90", "c003 0.10 0.90", "", "c020 0.00 0.05"),
    "test": ("c003 0.10 0.60;c020 0.00 0.90", "c003 0.00 0.90", "c156 0.20 0.30", ""),
}


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    """Kinetics and Charades in their official layouts, with few videos."""
    random = np.random.default_rng(0)

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (int(random.integers(12, 25)), 8, 9, 3), np.uint8)
        write_video(path, small.repeat(8, axis=1).repeat(8, axis=2), rate=20)

    kinetics, charades = tmp_path / "kinetics400", tmp_path / "charades"
    for split, labels in KINETICS_LABELS.items():
        lines = []
        for number, label in enumerate(labels):
            name = f"{split}/class {label}/Ab-{number:08d}_000010_000020.mp4"
            write(kinetics / name)
            lines.append(f"{name} {label}\n")
        (kinetics / f"{split}.txt").write_text("".join(lines))
    for split, actions in CHARADES_ACTIONS.items():
        rows = [(f"{split.upper()}{number}", text) for number, text in enumerate(actions)]
        for name, _ in rows:
            write(charades / "Charades_v1_480" / f"{name}.mp4")
        write_charades(charades, split, rows)
    return tmp_path


class Reproduction:
    """One command line, whose runs go to ``folder/output``.

    Args:
        arguments: ``--table`` or ``--released`` and more.
        opts: ``KEY VALUE ...`` in one text, with '' for an empty value.
        environment: besides one thread, no GPU, and this checkout's package.
    """

    def __init__(
        self, folder: Path, *arguments: object, opts: str, environment: dict[str, str]
    ) -> None:
        self.output, self._log = folder / "output", folder / "log.txt"
        values = ["" if word == "''" else word for word in opts.split()]
        line = ["tools/reproduce.py", *arguments, "--output", self.output, "--opts", *values]
        self._command = [sys.executable, *map(str, line)]
        self._environment = tiny_run.whole_environment(environment)

    def kill_in(self, row: str) -> None:
        """Start it, and kill all of its processes after the first checkpoint of `row`."""
        process = self._start()
        while not (self.output / row / "last_checkpoint").exists():
            assert process.poll() is None, self.log
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert not read_results(self.output / row, trained=True)

    def finish(self) -> None:
        """Start it, or start it again, and wait for its end."""
        assert self._start().wait(timeout=300) == 0, self.log

    @property
    def log(self) -> str:
        """Output since the last start."""
        return self._log.read_text()

    def starts(self, row: str) -> list[int]:
        """Return the iterations at which the trainings of a row have started."""
        words = "Starting training from iteration "
        lines = (self.output / row / "log.txt").read_text().splitlines()
        return [int(line.split(words)[1]) for line in lines if words in line]

    def report(self, name: str) -> list[dict[str, str]]:
        with open(self.output / name, newline="") as file:
            return list(csv.DictReader(file))

    def _start(self) -> subprocess.Popen[bytes]:
        with open(self._log, "wb") as log:
            return subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=tiny_run.ROOT,
                env=self._environment,
                start_new_session=True,
            )


def saved_scores(run: Reproduction, row: str, dataset: str) -> dict[str, np.ndarray]:
    return dict(np.load(run.output / row / "inference" / f"scores_{dataset}.npz"))


def check_start(run: Reproduction, row: str, other: str) -> None:
    """The rate is so low that a network still has nearly the weights that it started from."""
    a, b = (torch.load(run.output / folder / "model_final.pth")["model"] for folder in (row, other))
    for name in ("backbone.stem.conv1.weight", "backbone.res5.2.conv3.weight"):
        assert (a[name] - b[name]).abs().max() < 1e-3 < b[name].abs().mean()


def test_table_4_killed_in_a_row_of_long_clips_goes_on(tmp_path: Path, datasets: Path) -> None:
    """Charades starts from Kinetics at 128 frames, and that from 32 frames."""
    short, long = "Kinetics/i3d_R_101_32x2", "Kinetics/i3d_R_101_128x1"
    charades = "Charades/i3d_R_101_128x1"
    environment = {"DETECTRON2_DATASETS": str(datasets)}
    line = ("--table", 4, "--rows", "Charades-I3D-R101-128x1")
    run = Reproduction(tmp_path, *line, opts=TRAINING, environment=environment)
    run.kill_in(long)
    run.finish()
    assert run.starts(short) == [0]
    assert run.starts(long)[0] == 0 < run.starts(long)[1]
    check_start(run, long, short)
    check_start(run, charades, long)
    [row] = run.report("table_4.csv")
    last = tiny_run.metrics(run.output / charades)[-1]
    assert (row["metric"], row["state"]) == ("actions mAP", "done")
    assert float(row["measured"]) == pytest.approx(last["video/mAP"], abs=1e-3)
    saved = saved_scores(run, charades, "charades_val")
    assert saved["protocol"] == "2 clips x 1 crops of 32, max of sigmoid"


def test_released_weights_are_evaluated_by_the_official_protocol(
    tmp_path: Path, datasets: Path
) -> None:
    entry = find_entry("Kinetics/i3d_R_50_NL5_8x8.yaml")
    blobs = official_blobs(depth=50, i3d=True, nonlocal_=True, affine=False, classes=400)
    write_official(tmp_path / FILES[entry.config], blobs)
    run = Reproduction(
        tmp_path,
        *("--released", tmp_path, "--rows", entry.name),
        opts=f"{NARROW} INPUT.CROP.SIZE [64,64] INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 "
        "INPUT.MIN_SIZE_TRAIN_SAMPLING choice",
        environment={"DETECTRON2_DATASETS": str(datasets)},
    )
    run.finish()
    folder = f"released/{entry.config.removesuffix('.yaml')}"
    assert "0 are new in non-local blocks; 0 in the file are unused" in run.log
    saved = saved_scores(run, folder, "kinetics400_val")
    assert saved["protocol"] == "10 clips x 3 crops of 64, mean of softmax"
    assert len(np.unique(saved["scores"][:, 0])) == 4
    last = tiny_run.metrics(run.output / folder)[-1]
    for row, name, official in zip(
        run.report("released/released.csv"), ("top1", "top5"), entry.official["video"], strict=True
    ):
        assert float(row["measured"]) == pytest.approx(last[f"video/{name}"], abs=1e-3)
        assert float(row["official"]) == official
        assert float(row["measured - official code"]) == pytest.approx(
            last[f"video/{name}"] - official, abs=1e-3
        )
