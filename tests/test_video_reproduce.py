"""The paper's video tables: their rows and starts; the released weights."""

import functools
import pickle
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import reproduce
import tiny_run
import torch
from detectron2.data import MetadataCatalog
from reproduction import Reproduction
from sklearn.metrics import average_precision_score
from test_video_lists import write_charades
from test_video_weights import official_blobs, official_scores, write_official

from nl_detectron.data import video_file
from nl_detectron.errors import UserError
from nl_detectron.model_zoo import Entry
from nl_detectron.reproduction import (
    Machines,
    Row,
    plan,
    plan_released,
    released_markdown,
    run_all,
    select,
    select_released,
    with_starts,
)
from nl_detectron.reproduction.released import FILES

SCRIPT = tiny_run.ROOT / "train_net.py"
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
DATA = ("Kinetics", "Charades")
# By video, in the order of the lists.
KINETICS_LABELS = {"train": (3, 399, 3, 0, 17), "val": (0, 3, 17, 3)}
CHARADES_ACTIONS = {
    "train": ("c003 0.00 0.30;c156 0.20 0.90", "c003 0.10 0.90", "", "c020 0.00 0.05"),
    "test": ("c003 0.10 0.60;c020 0.00 0.90", "c003 0.00 0.90", "c156 0.20 0.30", ""),
}


def row_of(entry: Entry, output: Path, *opts: str) -> Row:
    return plan(entry, train_script=SCRIPT, output=output, machines=Machines(), opts=opts)


def test_table_2_has_each_network_of_its_parts_once() -> None:
    whole = [entry.config for entry in select("2")]
    parts = {entry.config for part in "abcdefg" for entry in select(f"2{part}")}
    assert len(whole) == len(set(whole)) == 29
    assert set(whole) == parts


def test_short_clips_come_first_and_charades_after_kinetics(tmp_path: Path) -> None:
    names = [entry.row_name for entry in with_starts(select("4"))]
    assert names == [
        "I3D-R101",
        "I3D-R101-128x1",
        "Charades-I3D-R101-128x1",
        "I3D-R101-NL5-128x1",
        "Charades-I3D-R101-NL5-128x1",
    ]
    rows = [row_of(e, tmp_path, "MODEL.WEIGHTS", "other.pth") for e in with_starts(select("4"))]
    weights = [row.command[-1] for row in rows]
    final = [str(row.folder / "model_final.pth") for row in rows]
    assert weights == ["other.pth", final[0], final[1], final[0], final[3]]


def test_a_row_whose_start_is_missing_is_not_started(tmp_path: Path) -> None:
    (entry,) = select("2g", ["I3D-R50-NL5-128x1"])
    row = row_of(entry, tmp_path)
    start = tmp_path / "Kinetics/i3d_R_50_32x2/model_final.pth"
    error = run_all([row], Machines())[entry.config]
    assert error == f"not started: there is no {start}, which it starts from"
    assert not row.folder.exists()


@pytest.fixture
def datasets(tmp_path: Path) -> Path:
    """Kinetics and Charades in their official layouts, with few videos."""
    random = np.random.default_rng(0)

    def write(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        small = random.integers(0, 256, (int(random.integers(12, 25)), 8, 9, 3), np.uint8)
        video_file.write(path, small.repeat(8, axis=1).repeat(8, axis=2), rate=20)

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


def saved_scores(run: Reproduction, row: str, dataset: str) -> dict[str, np.ndarray]:
    return dict(np.load(run.output / row / "inference" / f"scores_{dataset}.npz"))


def check_start(run: Reproduction, row: str, other: str) -> None:
    """The rate is so low that a network still has nearly the weights that it started from."""
    a, b = (torch.load(run.output / folder / "model_final.pth")["model"] for folder in (row, other))
    for name in ("backbone.stem.conv1.weight", "backbone.res5.2.conv3.weight"):
        assert (a[name] - b[name]).abs().max() < 1e-3 < b[name].abs().mean()


def check_accuracies(run: Reproduction, report: str, expected: set[str]) -> None:
    """Those of a report of Kinetics are what the saved scores give, of rows that are done."""
    rows = {row["config"].removesuffix(".yaml"): row for row in run.report(report)}
    assert set(rows) == expected
    for name, row in rows.items():
        scores = saved_scores(run, name, "kinetics400_val")["scores"]
        ranks = (-scores).argsort(axis=1, kind="stable")
        hits = ranks == np.array(KINETICS_LABELS["val"])[:, None]
        assert row["state"] == "done"
        assert float(row["measured_top1"]) == 100 * hits[:, :1].any(axis=1).mean()
        assert float(row["measured_top5"]) == 100 * hits[:, :5].any(axis=1).mean()


def test_tables_2_3_and_4_killed_in_a_row_of_long_clips_go_on(
    tmp_path: Path, datasets: Path
) -> None:
    folders = [f"Kinetics/{n}" for n in ("c2d_R_50_NL1_gaussian_32x2", "i3d_R_101_32x2")]
    blocks, short, long, charades = (*folders, *(f"{n}/i3d_R_101_128x1" for n in DATA))
    other = "Kinetics/i3d_R_101_NL5_128x1"
    start = functools.partial(
        Reproduction, tmp_path, opts=TRAINING, environment={"DETECTRON2_DATASETS": str(datasets)}
    )

    run = start("--table", 2, "--rows", "C2D-R50-NL1-gaussian", "I3D-R101-128x1")
    run.kill_in(long)
    run.finish()
    assert run.log.count("done before\n") == 2
    assert len(run.starts(blocks)) == len(run.starts(short)) == 1
    assert run.starts(long)[0] == 0 < run.starts(long)[1]
    check_start(run, long, short)
    check_accuracies(run, "table_2.csv", {blocks, long})

    run = start("--table", 3, "--rows", "I3D-R101-NL5-128x1")
    run.kill_in(other)
    run.finish()
    assert run.log.count("done before\n") == 1
    assert run.starts(other)[0] == 0 < run.starts(other)[1]
    check_start(run, other, short)
    check_accuracies(run, "table_3.csv", {other})

    run = start("--table", 4, "--rows", "Charades-I3D-R101-128x1")
    run.finish()
    assert run.log.count("done before\n") == 2
    check_start(run, charades, long)
    [row] = run.report("table_4.csv")
    saved = saved_scores(run, charades, "charades_val")
    labels = np.zeros((4, 157), bool)
    labels[[0, 0, 1, 2], [3, 20, 3, 156]] = True
    some = labels.any(axis=0)
    expected = 100 * average_precision_score(labels[:, some], saved["scores"][:, some])
    assert (row["metric"], row["state"]) == ("actions", "done")
    assert float(row["measured_mAP"]) == pytest.approx(expected, abs=1e-4)
    assert len(np.unique(saved["scores"][:, 3])) == 4
    assert saved["protocol"] == "2 clips x 1 crop of 32, max of sigmoid"


def official_views(path: Path, *, frames: int, stride: int) -> torch.Tensor:
    """The official protocol's 10 clips x 3 crops of a video whose height is that of the crop."""
    with av.open(str(path)) as container:
        video = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    count, height, width = video.shape[:3]
    clips = [video[[(count * k // 10 + stride * i) % count for i in range(frames)]]
             for k in range(10)]  # fmt: skip
    offsets = (0, (width - height) // 2, width - height)
    views = [clip[:, :, x : x + height] for clip in clips for x in offsets]
    return torch.from_numpy(np.stack(views)).permute(0, 4, 1, 2, 3)


def test_released_weights_are_evaluated_by_the_official_protocol(
    tmp_path: Path, datasets: Path
) -> None:
    [entry] = select_released(["I3D-R50-NL5-8x8"])
    blobs = official_blobs(depth=50, i3d=True, nonlocal_=True, affine=False, classes=400)
    write_official(tmp_path / FILES[entry.config], blobs)
    kinetics = datasets / "kinetics400"
    names = [line.rpartition(" ")[0] for line in (kinetics / "val.txt").read_text().splitlines()]
    views = [official_views(kinetics / name, frames=8, stride=8) for name in names]
    expected = torch.stack(
        [official_scores(blobs, v, time_stride=1, group=0).mean(0) for v in views]
    )
    # The labels of the first and the second best score, and of two of the worst ones.
    ranked = expected.argsort(dim=1, descending=True)
    labels = [int(ranked[i, rank]) for i, rank in enumerate((0, 1, 300, 399))]
    lines = [f"{name} {label}\n" for name, label in zip(names, labels, strict=True)]
    (kinetics / "val.txt").write_text("".join(lines))
    run = Reproduction(
        tmp_path,
        *("--released", tmp_path, "--rows", entry.row_name),
        opts=f"{NARROW} INPUT.CROP.SIZE [64,64] INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 "
        "INPUT.MIN_SIZE_TRAIN_SAMPLING choice",
        environment={"DETECTRON2_DATASETS": str(datasets)},
    )
    run.finish()
    folder = f"released/{entry.config.removesuffix('.yaml')}"
    saved = saved_scores(run, folder, "kinetics400_val")
    assert saved["protocol"] == "10 clips x 3 crops of 64, mean of softmax"
    assert np.abs(saved["scores"] - expected.numpy()).max() < 1e-5 < expected.std()
    [line] = run.report("released/released.csv")
    assert (line["measured_top1"], line["measured_top5"]) == ("25.0", "50.0")
    figures = (float(line["official_top1"]), float(line["official_top5"]))
    assert figures == entry.official["video"]
    markdown = (run.output / "released" / "released.md").read_text()
    assert "| 25.0 / 50.0" in markdown
    assert f"| {25 - figures[0]:+.1f} / {50 - figures[1]:+.1f}" in markdown


# Bad input


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
    return reproduce.main()


def place_kinetics(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for split in ("train", "val"):
        metadata = vars(MetadataCatalog.get(f"kinetics400_{split}"))
        monkeypatch.setitem(metadata, "list_file", str(folder / f"{split}.txt"))
        monkeypatch.setitem(metadata, "video_root", str(folder))


RELEASED = ("--released", ".", "--rows", "C2D-R50")


@pytest.mark.parametrize(
    ("what", "arguments", "message"),
    [
        (
            "a folder that is not there",
            ("--released", "none"),
            "--released none: there is no such folder",
        ),
        (
            "a file in place of the folder",
            ("--released", FILES["Kinetics/c2d_R_50_32x2.yaml"]),
            "--released c2d_baseline_32x2_IN_pretrain_400k.pkl: there is no such folder",
        ),
        (
            "a folder without a row's file",
            ("--released", ".", "--rows", "C2D-R50-NL5"),
            "--released . has no c2d_nonlocal_32x2_IN_pretrain_400k.pkl, the weights of "
            "C2D-R50-NL5; download it from https://",
        ),
        (
            "a row that was not released",
            ("--released", "--rows", "R50"),
            "the official README has no row 'R50'",
        ),
        (
            "--accumulate, which is for trainings",
            ("--released", "--accumulate"),
            "--accumulate is for trainings: it needs --table",
        ),
        (
            "--save-measured, which is for trainings",
            ("--released", "--save-measured"),
            "--save-measured is for trainings: it needs --table",
        ),
        (
            "Kinetics is not there",
            RELEASED,
            "data set 'kinetics400_val' is not there",
        ),
        (
            "an unknown key in --opts",
            (*RELEASED, "--opts", "TEST.CLIP", 3),
            "unknown key 'TEST.CLIP'. Did you mean 'TEST.CLIPS'?",
        ),
        (
            "no GPU and no process",
            (*RELEASED, "--num-gpus", 0),
            "--num-gpus 0 --num-machines 1 --machine-rank 0: there must be at least one process",
        ),
        (
            "a row of another table",
            ("--table", "2a", "--rows", "C2D-R50-NL5-128x1"),
            "Table 2a has no row 'C2D-R50-NL5-128x1'",
        ),
        (
            "--accumulate on 3 GPUs",
            ("--table", 4, "--accumulate", "--num-gpus", 3),
            "--accumulate makes 8 GPUs of 1, 2, 4 or 8, not of 3",
        ),
        (
            "Table 4 without Kinetics, on which its networks start",
            ("--table", 4),
            "data set 'kinetics400_train' is not there",
        ),
        (
            "nothing to collect",
            ("--table", 3, "--output", "none", "--collect-only"),
            "nothing to collect: there is no folder none",
        ),
    ],
)
def test_bad_flags_are_told_before_anything_starts(
    what: str,
    arguments: tuple,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / FILES["Kinetics/c2d_R_50_32x2.yaml"]
    weights.touch()
    place_kinetics(monkeypatch, tmp_path / "none")
    with pytest.raises(UserError) as caught:
        run_main(monkeypatch, *arguments)
    said = str(caught.value)
    assert message in said
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == [weights]


def test_an_unknown_table(monkeypatch, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, "--table", "2h")
    said = capsys.readouterr().err.splitlines()[-1]
    assert caught.value.code == 2
    assert "argument --table: invalid choice: '2h' (choose from" in said


def test_output_that_cannot_be_written(
    tmp_path: Path, datasets: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    place_kinetics(monkeypatch, datasets / "kinetics400")
    (tmp_path / "output").write_text("a file")
    arguments = ("--table", 2, "--rows", "C2D-R50", "--output", tmp_path / "output")
    with pytest.raises(UserError, match=r"cannot write .*table_2\.md \(Not a directory\)"):
        run_main(monkeypatch, *arguments)
    said = capsys.readouterr().out
    assert "[1/1] C2D-R50: failed: cannot write " in said


def files_of_other_kinds(folder: Path) -> dict[str, tuple[str, str]]:
    """Write files named as released ones; by row: what it is, and what is said of it."""
    blobs = official_blobs(depth=50, i3d=True, nonlocal_=False, affine=False, classes=400)
    few = official_blobs(depth=50, i3d=True, nonlocal_=True, affine=False)
    write_official(folder / "whole.pkl", blobs)
    whole = (folder / "whole.pkl").read_bytes()
    damaged = "the file is damaged or is not a checkpoint ("
    contents: dict[str, tuple[bytes | dict, str, str]] = {
        "C2D-R50-NL5-8x8": (b"<html>not found</html>", "a page in place of the pickle", damaged),
        "I3D-R50-8x8": (whole[: len(whole) // 2], "a file cut off", damaged),
        "I3D-R50": (b"", "an empty file", damaged),
        "C2D-R50-8x8": (blobs, "the file of I3D in place of C2D's", "is of another network: "),
        "I3D-R50-NL5": (blobs, "the file without blocks in place of that with 5", "is of another"),
        "I3D-R50-NL5-8x8": (few, "a file of 5 classes", "is of another network: "),
        "C2D-R50": (pickle.dumps({"blobs": {"conv1_w": 1}}), "no weights", "holds no weights: "),
        "C2D-R50-NL5": (pickle.dumps(Path("x")), "a pickle that could run code", "could run code"),
    }
    told = {}
    for row, (content, what, said) in contents.items():
        [entry] = select_released([row])
        path = folder / FILES[entry.config]
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            write_official(path, content)
        told[row] = (what, said)
    return told


def test_files_that_are_not_the_released_ones_are_not_evaluated(tmp_path: Path) -> None:
    told = files_of_other_kinds(tmp_path)
    runs = [
        plan_released(
            entry,
            weights_folder=tmp_path,
            train_script=tmp_path / "none.py",
            output=tmp_path / "output",
            machines=Machines(),
            opts=NARROW.split(),
        )
        for entry in select_released(list(told))
    ]
    failed = run_all(runs, Machines())
    assert len(failed) == len(told) == 8
    for run in runs:
        _what, said = told[run.entry.row_name]
        error = failed[run.entry.config]
        assert error.startswith("failed: ")
        assert said in error
        assert FILES[run.entry.config] in error
        assert "\n" not in error
        assert not run.folder.exists()
    markdown = released_markdown([run.entry for run in runs], tmp_path / "output", failed)
    assert markdown.count("| failed") == 8


def test_every_official_layout_is_taken_for_its_row(tmp_path: Path) -> None:
    for entry in select_released():
        name = FILES[entry.config]
        kind = {"i3d": "i3d" in name, "nonlocal_": "nonlocal" in name, "affine": "I3D_" in name}
        blobs = official_blobs(depth=50, classes=400, **kind)
        write_official(tmp_path / name, {**blobs, "left_from_training": np.zeros(1)})
        run = plan_released(
            entry,
            weights_folder=tmp_path,
            train_script=SCRIPT,
            output=tmp_path,
            machines=Machines(),
            opts=NARROW.split(),
        )
        run.check()
