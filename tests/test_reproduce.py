"""The paper's tables: rows, recipes and commands, resuming, and the report."""

import argparse
import csv
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from detectron2.config import CfgNode
from painted import write_video
from test_video_weights import official_blobs, write_official

from nl_detectron.commands import reproduce
from nl_detectron.config import load_config
from nl_detectron.engine import Trainer
from nl_detectron.engine import argument_parser as train_parser
from nl_detectron.model_zoo import ENTRIES, find_entry
from nl_detectron.utils.errors import UserError

R50 = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
R50_NL = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml"
AP = {"bbox/AP": 40.0, "bbox/AP50": 60.0, "bbox/AP75": 42.0, "segm/AP": 35.1}


def arguments(*line: object) -> argparse.Namespace:
    return reproduce.argument_parser().parse_args([*map(str, line)])


def run_main(monkeypatch: pytest.MonkeyPatch, *line: object) -> int:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, line)])
    return reproduce.main()


def names(*line: object) -> list[str]:
    return [entry.name for entry in reproduce.select(arguments(*line))]


def config_of(row: str, *line: object) -> CfgNode:
    """The config that the train command of a row trains with, scaled to its number of GPUs."""
    args = arguments("--rows", row, *line)
    (entry,) = reproduce.select(args)
    command = reproduce.train_command(reproduce.plan_training(entry, args), args)
    train = train_parser().parse_args(command[len(reproduce.TRAIN) :])
    assert train.resume
    assert train.num_gpus == args.num_gpus
    cfg = load_config(train.config_file, train.opts)
    return Trainer.auto_scale_workers(cfg, train.num_gpus * train.num_machines)


def write_metrics(folder: Path, *lines: dict[str, float], final: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.json").write_text(text)
    if final:
        (folder / "model_final.pth").touch()


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# Rows


def test_default_rows_match_paper_tables() -> None:
    assert names("--table", 5) == ["R50", "R50-NL", "R101", "R101-NL", "X152", "X152-NL"]
    assert names("--table", 6) == ["R101", "R101-NL-head", "R101-NL-head-backbone"]
    parts = [name for part in "abcdefg" for name in names("--table", f"2{part}")]
    assert sorted(names("--table", 2)) == sorted(set(parts))
    assert len(names("--table", 2)) == 29
    assert names("--table", 3) == ["I3D-R50-NL5-128x1", "I3D-R101-NL5-128x1"]
    assert len(names("--released")) == 12


@pytest.mark.parametrize("table", ["5", "6"])
def test_rows_are_found_by_short_name_and_by_config(table: str) -> None:
    entries = [entry for entry in ENTRIES if entry.section.startswith(f"Table {table}")]
    assert len(entries) == {"5": 10, "6": 12}[table]
    for rows in ([entry.name.lower() for entry in entries], [entry.config for entry in entries]):
        assert reproduce.select(arguments("--table", table, "--rows", *rows)) == entries


def test_rows_run_after_their_initial_weights(tmp_path: Path) -> None:
    args = arguments("--table", 4, "--output", tmp_path, "--opts", "MODEL.WEIGHTS", "other.pth")
    rows = reproduce.with_starts(reproduce.select(args))
    assert [entry.name for entry in rows] == [
        "I3D-R101",
        "I3D-R101-128x1",
        "Charades-I3D-R101-128x1",
        "I3D-R101-NL5-128x1",
        "Charades-I3D-R101-NL5-128x1",
    ]
    runs = [reproduce.plan_training(entry, args) for entry in rows]
    final = [str(run.folder / "model_final.pth") for run in runs]
    weights = [run.load_config().MODEL.WEIGHTS for run in runs]
    assert weights == ["other.pth", final[0], final[1], final[0], final[3]]


# Recipes


@pytest.mark.parametrize(
    ("row", "gpus", "expected"),
    [
        ("R50-NL", 8, (16, 0.02, 90_000, (60_000, 80_000))),
        ("R50-NL", 4, (8, 0.01, 180_000, (120_000, 160_000))),
        ("R50-NL", 16, (32, 0.04, 45_000, (30_000, 40_000))),
        ("X152", 1, (1, 0.00125, 2_080_000, (1_600_000, 1_920_000))),
    ],
)
def test_the_recipe_is_scaled_to_the_number_of_gpus(row: str, gpus: int, expected: tuple) -> None:
    line = ("--table", 5, "--num-gpus", gpus, "--output", "out", "--opts", "SEED", 3)
    cfg = config_of(row, *line)
    solver = cfg.SOLVER
    images, rate, *schedule = expected
    assert (images, 1) == (solver.IMS_PER_BATCH, solver.ACCUMULATE_STEPS)
    assert pytest.approx(rate) == solver.BASE_LR
    assert schedule == [solver.MAX_ITER, solver.STEPS]
    assert cfg.OUTPUT_DIR.startswith("out/COCO-InstanceSegmentation/mask_rcnn_")
    assert cfg.SEED == 3


@pytest.mark.parametrize("row", ["R50", "X152"])
@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_accumulation_keeps_the_recipe(row: str, gpus: int) -> None:
    eight = config_of(row, "--table", 5, "--num-gpus", 8).SOLVER
    solver = config_of(row, "--table", 5, "--num-gpus", gpus, "--accumulate").SOLVER
    assert 8 // gpus == solver.ACCUMULATE_STEPS
    assert solver.IMS_PER_BATCH * solver.ACCUMULATE_STEPS == eight.IMS_PER_BATCH
    for key in ("BASE_LR", "MAX_ITER", "STEPS", "WARMUP_ITERS"):
        assert solver[key] == eight[key]


# Run folders


def test_results_come_from_final_model(tmp_path: Path) -> None:
    def results() -> dict:
        return reproduce.read_results(tmp_path, arguments("--table", 5))

    loss, last = {"iteration": 79, "total_loss": 1.0}, {"iteration": 99, "total_loss": 0.5}
    ap = {**AP, "segm/AP": math.nan}
    assert results() == {}
    write_metrics(tmp_path, loss, last, {"iteration": 100, **ap}, final=False)
    assert results() == {}  # killed before the model was written
    write_metrics(tmp_path, {"iteration": 79, **ap}, last)
    assert results() == {}  # evaluated on the way only
    write_metrics(tmp_path, loss, last, {"iteration": 100, **ap})
    with open(tmp_path / "metrics.json", "a") as file:
        file.write('{"iteration": 1, "tot')  # a line that a kill has cut off
    assert results().keys() == {"box", "mask"}
    assert results()["box"] == (40.0, 60.0, 42.0)
    assert math.isnan(results()["mask"][0])


# Training, by a script that stands in for the train command

FAKE = """
import json, pathlib, sys
assert "--resume" in sys.argv
folder = pathlib.Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "calls.txt", "a") as file:
    file.write(".")
if "_NL_" in folder.name and not (folder.parents[1] / "mended").exists():
    sys.exit("error: the weights are nowhere")
(folder / "metrics.json").write_text(json.dumps({"iteration": 5, "bbox/AP": 12.5}) + "\\n")
(folder / "model_final.pth").touch()
"""


def test_failed_row_does_not_stop_others_and_is_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setattr(reproduce, "TRAIN", (sys.executable, str(tmp_path / "fake.py")))
    output = tmp_path / "output"
    line = ("--table", 5, "--output", output, "--rows", "R50", "R50-NL", "R101", "--opts")
    line += ("DATASETS.TRAIN", "('nl_shapes_train',)", "DATASETS.TEST", "('nl_shapes_val',)")

    def calls() -> list[int]:
        return sorted(len(path.read_text()) for path in output.glob("*/*/calls.txt"))

    assert run_main(monkeypatch, *line) == 1
    assert calls() == [1, 1, 1]
    states = [row["state"] for row in read_csv(output / "table_5.csv")]
    assert states[::6] == ["done", "failed", "done"]
    (output / "mended").touch()
    run_main(monkeypatch, *line)
    assert calls() == [1, 1, 2]
    states = [row["state"] for row in read_csv(output / "table_5.csv")]
    assert states[::6] == ["done"] * 3
    # Other settings would mix two recipes in one folder.
    for other, named in (((*line, "SEED", 2), "opts"), (("--num-gpus", 4, *line), "gpus")):
        with pytest.raises(UserError, match=named):
            run_main(monkeypatch, *other)


def test_row_without_initial_weights_is_not_started(tmp_path: Path) -> None:
    args = arguments("--table", "2g", "--output", tmp_path)
    run = reproduce.plan_training(find_entry("Kinetics/i3d_R_50_NL5_128x1.yaml"), args)
    (reason,) = reproduce.carry_out([run], args).values()
    assert str(tmp_path / "Kinetics/i3d_R_50_32x2/model_final.pth") in reason
    assert not run.folder.exists()


# The report


def test_the_report_compares_differences_with_the_papers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, block = (tmp_path / config.removesuffix(".yaml") for config in (R50, R50_NL))
    write_metrics(base, {"iteration": 90_000, **AP, "bbox/AP": 38.9})
    line = ("--table", 5, "--output", tmp_path, "--collect-only", "--rows", "R50-NL", "R50")
    assert run_main(monkeypatch, *line) == 1
    write_metrics(block, {"iteration": 90_000, **AP, "bbox/AP": 40.3})
    assert run_main(monkeypatch, *line, "--opts", "SEED", 3) == 0
    rows = {(row["row"], row["metric"]): row for row in read_csv(tmp_path / "table_5.csv")}
    assert len(rows) == 12
    row = rows["R50-NL", "box AP"]
    assert (row["NL - baseline, paper"], row["NL - baseline, measured"]) == ("1.0", "1.4")
    assert (row["detectron2"], row["state"]) == ("", "done")
    text = (tmp_path / "table_5.md").read_text()
    assert "| box AP | 38.0 | 38.6 | 38.9 | 0.3 | – | – | done |" in re.sub(" +", " ", text)
    assert "SEED 3" in text


# The script


def test_a_dry_run_needs_no_data_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    line = ["--table", 6, "--num-gpus", 4, "--output", tmp_path / "output", "--dry-run"]
    assert run_main(monkeypatch, *line) == 0
    text = capsys.readouterr().out
    assert text.count("--num-gpus 4") == text.count("SOLVER.REFERENCE_WORLD_SIZE 8") == 3
    assert text.count("batch 8, learning rate 0.01, 180,000 iterations") == 3
    assert run_main(monkeypatch, "--released", "--output", tmp_path / "output", "--dry-run") == 0
    assert capsys.readouterr().out.count("--eval-only") == 12
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (("--released", "none", "--rows", "C2D-R50"), "none"),
        (("--released", "."), "c2d_baseline_32x2_IN_pretrain_400k.pkl"),
        (("--released", "--rows", "R50"), "R50"),
        (("--released", "--opts", "TEST.CLIP", 3), "TEST.CLIP"),
        (("--table", 5, "--rows", "R50", "r101-ml"), "R101-NL"),
        (("--table", "2a", "--rows", "C2D-R50-NL5-128x1"), "C2D-R50-NL5-128x1"),
        (("--table", 4, "--accumulate", "--num-gpus", 3), "--accumulate"),
        (("--table", 5, "--opts", "SOLVER.LR", 2), "SOLVER.LR"),
        (("--table", 5, "--opts", "DATASETS.TRAIN", "('absent',)"), "absent"),
        (("--table", 5, "--collect-only", "--output", "file"), "file"),
    ],
)
def test_invalid_flags_are_refused_before_start(
    line: tuple, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        run_main(monkeypatch, *line)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# The released weights, as a user evaluates them

SMALL = """
MODEL.RESNETS.STEM_OUT_CHANNELS 4 MODEL.RESNETS.RES2_OUT_CHANNELS 8
MODEL.RESNETS.WIDTH_PER_GROUP 4 DATALOADER.NUM_WORKERS 0 INPUT.CROP.SIZE [64,64]
INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 INPUT.MIN_SIZE_TRAIN_SAMPLING choice
"""
LABELS = (3, 17)


def write_kinetics(folder: Path) -> None:
    """Write validation videos in the official layout."""
    names = [f"val/class {label}/Ab-{label:08d}_000010_000020.mp4" for label in LABELS]
    for name, label in zip(names, LABELS, strict=True):
        (folder / name).parent.mkdir(parents=True)
        write_video(folder / name, "libx264", 12 + label)
    lines = [f"{name} {label}\n" for name, label in zip(names, LABELS, strict=True)]
    (folder / "val.txt").write_text("".join(lines))


def test_released_weights_use_official_protocol(tmp_path: Path) -> None:
    entry = find_entry("Kinetics/i3d_R_50_NL5_8x8.yaml")
    blobs = official_blobs(depth=50, i3d=True, nonlocal_=True, affine=False, classes=400)
    write_official(tmp_path / reproduce.FILES[entry.config], blobs)
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
    row = read_csv(output / "released/released.csv")[0]
    top1 = tiny_run.metrics(folder)[-1]["video/top1"]
    assert float(row["measured"]) == pytest.approx(top1, abs=1e-3)
    assert float(row["measured - official code"]) == pytest.approx(
        top1 - entry.official["video"][0], abs=1e-3
    )
