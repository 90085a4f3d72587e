"""The paper's tables: rows, recipes and commands, resuming, and what the report says."""

import csv
import fcntl
import json
import math
import re
import sys
from pathlib import Path

import pytest
import reproduce
import tiny_run
from detectron2.data.datasets import register_coco_instances
from reproduction import Reproduction

from nl_detectron.config import load_config
from nl_detectron.engine import Trainer, argument_parser
from nl_detectron.errors import UserError
from nl_detectron.model_zoo import AP, Results, entries
from nl_detectron.reproduction import (
    TABLES,
    Machines,
    Row,
    State,
    as_csv,
    as_markdown,
    check_folders,
    collect,
    plan,
    read_state,
    run_all,
    save_measured,
    select,
)

R50, R50_NL, R101, R101_NL, X152, X152_NL = select("5")


def make_row(name: str, output: Path = Path("out"), table: str = "5", **options) -> Row:
    (entry,) = select(table, [name])
    script = options.pop("train_script", tiny_run.ROOT / "train_net.py")
    machines = options.pop("machines", Machines(num_gpus=8))
    return plan(entry, train_script=script, output=output, machines=machines, **options)


def write_metrics(folder: Path, *lines: dict[str, float], final: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.json").write_text(text)
    if final:
        (folder / "model_final.pth").touch()


# Rows


def test_rows_by_default_are_the_papers() -> None:
    names = ["R50", "R50-NL", "R101", "R101-NL", "X152", "X152-NL"]
    assert [entry.row_name for entry in select("5")] == names
    names = ["R101", "R101-NL-head", "R101-NL-head-backbone"]
    assert [entry.row_name for entry in select("6")] == names


@pytest.mark.parametrize("table", ["5", "6"])
def test_rows_are_found_by_short_name_and_by_config(table: str) -> None:
    every = [entry for entry in entries.ENTRIES if entry.section == f"{select(table)[0].section}"]
    assert len(every) == {"5": 10, "6": 12}[table]
    for entry in every:
        path = Path(entry.config)
        for name in (entry.row_name.lower(), entry.config, path.name, path.stem):
            assert select(table, [name]) == [entry]


def test_an_unknown_row_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no row 'r101-ml'. Did you mean 'R101-NL'\? It has R50,"):
        select("5", ["R50", "r101-ml"])


# Recipes and commands


@pytest.mark.parametrize(
    ("name", "gpus", "expected"),
    [
        ("R50-NL", 8, (16, 0.02, 90_000, (60_000, 80_000), 1000)),
        ("R50-NL", 4, (8, 0.01, 180_000, (120_000, 160_000), 2000)),
        ("R50-NL", 16, (32, 0.04, 45_000, (30_000, 40_000), 500)),
        ("X152", 8, (8, 0.01, 260_000, (200_000, 240_000), 1000)),
        ("X152", 1, (1, 0.00125, 2_080_000, (1_600_000, 1_920_000), 8000)),
    ],
)
def test_the_recipe_is_scaled_to_the_number_of_gpus(name: str, gpus: int, expected: tuple) -> None:
    recipe = make_row(name, machines=Machines(num_gpus=gpus)).recipe
    images, rate, *schedule = expected
    assert (recipe.samples, recipe.accumulate_steps) == (images, 1)
    assert recipe.learning_rate == pytest.approx(rate)
    assert [recipe.iterations, recipe.drops, recipe.warmup] == schedule


@pytest.mark.parametrize("name", ["R50", "X152"])
@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_accumulation_keeps_the_recipe(name: str, gpus: int) -> None:
    eight = make_row(name).recipe
    recipe = make_row(name, machines=Machines(num_gpus=gpus), accumulate=True).recipe
    assert recipe.accumulate_steps == 8 // gpus
    for field in ("samples", "learning_rate", "iterations", "drops", "warmup"):
        assert getattr(recipe, field) == getattr(eight, field)


@pytest.mark.parametrize("accumulate", [False, True])
def test_the_command_trains_the_recipe(accumulate: bool) -> None:
    machines = Machines(num_gpus=2, num_machines=2, machine_rank=1, dist_url="tcp://first:1234")
    row = make_row("R101-NL", machines=machines, accumulate=accumulate, opts=["SEED", "3"])
    python, script, *arguments = row.command
    assert Path(python).absolute() == Path(sys.executable)
    assert script.endswith("train_net.py")
    args = argument_parser().parse_args(arguments)
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (2, 2, 1)
    assert args.dist_url == "tcp://first:1234"
    assert args.resume
    cfg = load_config(args.config_file, args.opts)
    assert (cfg.OUTPUT_DIR, cfg.SEED) == (
        "out/COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_NL_1x",
        3,
    )
    solver = Trainer.auto_scale_workers(cfg, 4).SOLVER
    assert row.recipe.samples == solver.IMS_PER_BATCH * solver.ACCUMULATE_STEPS
    assert row.recipe.learning_rate == solver.BASE_LR
    assert row.recipe.iterations == solver.MAX_ITER


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"opts": ["SOLVER.IMS_PER_BATCH", "2"]}, "IMS_PER_BATCH 2 cannot be divided among 8"),
        ({"opts": ["SOLVER.LR", "2"]}, "unknown key 'SOLVER.LR'"),
        ({"machines": Machines(num_gpus=3), "accumulate": True}, "not of 3"),
        ({"machines": Machines(num_gpus=0)}, "--num-gpus 0"),
        ({"machines": Machines(num_machines=2)}, "--dist-url tcp://"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_row("R50", **options)


def test_gpu_hours_come_from_published_speeds() -> None:
    assert make_row("R50").gpu_hours == pytest.approx(0.261 * 90_000 * 8 / 3600)
    assert make_row("X152").gpu_hours == pytest.approx(1.188 * 260_000 * 8 / 3600)
    keypoints = make_row("R101-s1x", table="6")
    assert keypoints.gpu_hours == pytest.approx(0.390 * 130_000 * 8 / 3600)
    for gpus in (1, 16):
        row = make_row("R50", machines=Machines(num_gpus=gpus))
        assert row.gpu_hours == pytest.approx(make_row("R50").gpu_hours)
    assert make_row("R50-NL").gpu_hours == pytest.approx(54.2, abs=0.1)  # 3.8% more to compute


def test_every_row_has_a_speed() -> None:
    for table in ("5", "6"):
        section = select(table)[0].section
        for entry in (entry for entry in entries.ENTRIES if entry.section == section):
            assert make_row(entry.config, table=table).gpu_hours is not None


# Run folders


def test_the_state_of_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    assert str(read_state(tmp_path / "nowhere")) == "not run"
    loss, last = {"iteration": 79, "total_loss": 1.0}, {"iteration": 99, "total_loss": 0.5}
    ap = {"bbox/AP": 40.0, "bbox/AP50": 60.0, "bbox/AP75": 42.0, "segm/AP": math.nan}
    write_metrics(tmp_path, loss, final=False)
    assert str(read_state(tmp_path)) == "cut off at iteration 79"
    # Evaluated on the way; the end was trained, but not evaluated.
    write_metrics(tmp_path, loss, {"iteration": 79, **ap}, last)
    assert read_state(tmp_path).results is None
    # Evaluated, but another kill came before the model was written.
    write_metrics(tmp_path / "other", loss, last, {"iteration": 100, **ap}, final=False)
    assert read_state(tmp_path / "other").results is None
    write_metrics(tmp_path, loss, last, {"iteration": 100, **ap})
    with open(tmp_path / "metrics.json", "a") as file:
        file.write('{"iteration": 1, "tot')  # a line that a kill has cut off
    state = read_state(tmp_path)
    assert str(state) == "done"
    assert state.results is not None
    assert state.results["box"] == AP(40.0, 60.0, 42.0)
    assert math.isnan(state.results["mask"][0])
    assert "keypoint" not in state.results


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    def check(**options) -> None:
        check_folders([make_row("R50", tmp_path, **options)])

    folder = make_row("R50", tmp_path).folder
    check()
    folder.mkdir(parents=True)
    settings = {"opts": ["SEED", "1"], "processes": 8, "accumulate": False}
    (folder / "reproduce.json").write_text(json.dumps(settings))
    check(opts=["SEED", "1"])
    with pytest.raises(UserError, match=r"started with opts 'SEED 1', not 'SEED 2'; .*--output"):
        check(opts=["SEED", "2"])
    # Another number of GPUs gives iterations another meaning, until there are no more to come.
    with pytest.raises(UserError, match="started with processes 8, not 4"):
        check(opts=["SEED", "1"], machines=Machines(num_gpus=4))
    write_metrics(folder, {"iteration": 3, "bbox/AP": 1.0})
    check(opts=["SEED", "1"], machines=Machines(num_gpus=4))


# Training, by a script that stands in for train_net.py

FAKE = """
import json, pathlib, sys
assert "--resume" in sys.argv
folder = pathlib.Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
with open(folder / "calls.txt", "a") as file:
    file.write("called\\n")
if "_NL_" in folder.name and not (folder.parents[1] / "mended").exists():
    sys.exit("error: the weights are nowhere")
(folder / "metrics.json").write_text(json.dumps({"iteration": 5, "bbox/AP": 12.5}) + "\\n")
(folder / "model_final.pth").touch()
"""


def test_a_failed_row_does_not_stop_the_others_and_is_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    names = ("R50", "R50-NL", "R101")
    rows = [make_row(name, tmp_path, train_script=script) for name in names]

    def calls() -> list[int]:
        return [len((row.folder / "calls.txt").read_text().splitlines()) for row in rows]

    failed = run_all(rows, Machines(num_gpus=8))
    assert list(failed) == [R50_NL.config]
    assert "status 1: error: the weights are nowhere" in failed[R50_NL.config]
    assert calls() == [1, 1, 1]
    markdown = as_markdown(
        TABLES["5"], [R50, R50_NL, R101], collect([R50, R50_NL, R101], tmp_path), failed
    )
    assert [line.count("done") for line in table_lines(markdown)] == [1, 1, 0, 0, 1, 1]
    (tmp_path / "mended").touch()
    assert run_all(rows, Machines(num_gpus=8)) == {}
    assert calls() == [1, 2, 1]
    assert "[1/3] R50: done before\n[2/3] R50-NL: done\n" in capfd.readouterr().out


def test_a_run_that_is_still_alive_is_left_alone(tmp_path: Path) -> None:
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    row = make_row("R50", tmp_path, train_script=script)
    row.folder.mkdir(parents=True)
    with open(row.folder / ".lock-0", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process" in run_all([row], Machines())[R50.config]
    assert run_all([row], Machines()) == {}


# The report


def table_lines(markdown: str) -> list[str]:
    lines = [re.sub(" +", " ", line) for line in markdown.splitlines()]
    return [line for line in lines if line.startswith("|")][2:]


def done(box: float, mask: float | None = None, **options) -> State:
    results = Results(box=AP(box, 60.0, 40.0))
    if mask is not None:
        results["mask"] = AP(mask, 55.0, 35.0)
    return State(iteration=90_000, results=results, **options)


def test_the_report_compares_differences_with_the_papers() -> None:
    # Detectron2's R50 has 38.6 and 35.2; the paper's differences are 1.0 and 0.9.
    states = {R50.config: done(38.9, 34.8), R50_NL.config: done(40.3, 35.2)}
    rows = list(csv.DictReader(as_csv(TABLES["5"], [R50, R50_NL], states, {}).splitlines()))
    assert [(row["row"], row["metric"]) for row in rows] == [
        ("R50", "box"),
        ("R50", "mask"),
        ("R50-NL", "box"),
        ("R50-NL", "mask"),
    ]
    assert [row["within_tolerance"] for row in rows] == ["yes", "no", "yes", "no"]
    nl = rows[2]
    assert (nl["paper_AP75"], nl["measured_AP"], nl["state"]) == ("41.9", "40.3", "done")
    assert float(nl["paper_difference_AP50"]) == pytest.approx(1.5)
    assert float(nl["measured_difference_AP"]) == pytest.approx(1.4)
    lines = table_lines(as_markdown(TABLES["5"], [R50, R50_NL], states, {}))
    assert "38.0 / 59.6 / 41.0 | 38.6 | 38.9 / 60.0 / 40.0 | – | – | yes | done" in lines[0]
    assert "| +1.0 / +1.5 / +0.9 | +1.4 / +0.0 / +0.0 | yes | done" in lines[2]


def test_what_is_missing_is_not_judged() -> None:
    states = {R101.config: State(), R101_NL.config: done(math.nan), X152.config: done(44.0, 39.0)}
    lines = table_lines(as_markdown(TABLES["5"], [R101, R101_NL, X152], states, {}))
    assert [line.split(" | ")[-2] for line in lines] == ["–"] * 6
    assert lines[0].endswith("| not run |")
    assert "nan / 60.0 / 40.0" in lines[2]


def test_changed_recipes_are_named() -> None:
    states = {R50.config: done(38.6, 35.2, opts=("MODEL.WEIGHTS", ""))}
    assert "- R50: `MODEL.WEIGHTS ''`" in as_markdown(TABLES["5"], [R50], states, {})
    states = {R50.config: done(38.6, 35.2, opts=())}
    assert "options were given" not in as_markdown(TABLES["5"], [R50], states, {})


def test_measured_figures_go_into_the_zoos_file(tmp_path: Path) -> None:
    path = tmp_path / "measured.csv"
    package = Path(entries.__file__).with_name("measured.csv").read_text()
    path.write_text(package.splitlines()[0] + "\n" + f"{X152.config},1,2,3,4,5,6,,,,,,\n")
    states = {R50.config: done(38.614, 35.2, opts=()), R50_NL.config: State()}
    assert save_measured(path, [R50, R50_NL], states) == 1
    rows = {row["config"]: row for row in csv.DictReader(path.read_text().splitlines())}
    assert set(rows) == {X152.config, R50.config}
    measured = entries._measured(rows[R50.config])
    assert measured == Results(box=AP(38.61, 60.0, 40.0), mask=AP(35.2, 55.0, 35.0))
    for opts in (("SEED", "1"), None):
        with pytest.raises(UserError, match="R50 was trained with"):
            save_measured(path, [R50], {R50.config: done(1.0, opts=opts)})


# The script


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, arguments)])
    return reproduce.main()


def test_a_dry_run_needs_no_data_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    output = tmp_path / "output"
    line = ["--table", 6, "--num-gpus", 4, "--output", output, "--dry-run"]
    assert run_main(monkeypatch, *line) == 0
    text = capsys.readouterr().out
    assert text.count("--num-gpus 4") == text.count("SOLVER.REFERENCE_WORLD_SIZE 8") == 3
    assert "images per update: 8 (one batch), learning rate: 0.01\n" in text
    assert "iterations: 180,000, drops at: 120,000 and 160,000, warm-up: 2,000\n" in text
    assert (
        "GPU-hours: about 78 (source: Detectron2's MODEL_ZOO, V100, without blocks: 0.390" in text
    )
    assert not output.exists()


def test_without_data_nothing_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_coco_instances("absent", {}, str(tmp_path / "absent.json"), str(tmp_path))
    arguments = ("--table", 5, "--output", tmp_path / "output")
    arguments += ("--opts", "DATASETS.TEST", "('absent',)", "DATASETS.TRAIN", "('absent',)")
    with pytest.raises(UserError, match=r"'absent' is not there: .*DETECTRON2_DATASETS"):
        run_main(monkeypatch, *arguments)
    assert not (tmp_path / "output").exists()


def test_collecting_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--table", 5, "--output", tmp_path, "--collect-only", "--rows")
    ap = {"bbox/AP": 38.5, "bbox/AP50": 59.0, "bbox/AP75": 42.0, "segm/AP": 35.1}
    write_metrics(make_row("R50", tmp_path).folder, {"iteration": 90_000, **ap})
    assert run_main(monkeypatch, *arguments, "R50") == 0
    assert run_main(monkeypatch, *arguments, "R50", "R50-NL") == 1
    rows = list(csv.DictReader((tmp_path / "table_5.csv").read_text().splitlines()))
    assert [row["measured_AP"] for row in rows] == ["38.5", "35.1", "", ""]
    assert [row["state"] for row in rows] == ["done", "done", "not run", "not run"]
    assert "| R50-NL |" in (tmp_path / "table_5.md").read_text()


# End to end

TINY = """
MODEL.WEIGHTS '' MODEL.RESNETS.RES2_OUT_CHANNELS 16 MODEL.RESNETS.STEM_OUT_CHANNELS 8
MODEL.RESNETS.WIDTH_PER_GROUP 4 MODEL.RESNETS.NORM BN MODEL.FPN.OUT_CHANNELS 8
MODEL.ROI_HEADS.NUM_CLASSES 7 MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 16
MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 8 MODEL.RPN.POST_NMS_TOPK_TRAIN 50
MODEL.RPN.POST_NMS_TOPK_TEST 20 DATASETS.TRAIN ('nl_shapes_train',) DATASETS.TEST
('nl_shapes_val',) DATALOADER.NUM_WORKERS 0 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64
SOLVER.REFERENCE_WORLD_SIZE 0 SOLVER.IMS_PER_BATCH 1 SOLVER.BASE_LR 0.001 SOLVER.MAX_ITER 12
SOLVER.CHECKPOINT_PERIOD 1 TEST.DETECTIONS_PER_IMAGE 5
"""


@pytest.fixture
def small_shapes(tmp_path: Path) -> Path:
    """A cache in which nl_shapes has few images, under the name of the whole data set."""
    return tiny_run.write_small_shapes(tmp_path / "cache")


def test_killed_in_the_middle_of_a_row_it_goes_on(tmp_path: Path, small_shapes: Path) -> None:
    first, second = (str(Path(entry.config).with_suffix("")) for entry in (R50, R50_NL))
    run = Reproduction(
        tmp_path,
        *("--table", 5, "--rows", "R50", "R50-NL"),
        opts=TINY,
        environment={"NL_DETECTRON_CACHE": str(small_shapes)},
    )
    run.kill_in(first)
    assert not (run.output / second).exists()
    run.finish()
    starts = run.starts(first)
    assert len(starts) == 2
    assert starts[0] == 0 < starts[1] < 12
    assert "[1/2] R50: done\n" in run.log
    assert "[2/2] R50-NL: done\n" in run.log
    for row, name in zip(run.report("table_5.csv"), (first, first, second, second), strict=True):
        assert row["state"] == "done"
        task = {"box": "bbox", "mask": "segm"}[row["metric"]]
        measured = tiny_run.metrics(run.output / name)[-1][f"{task}/AP"]
        assert float(row["measured_AP"]) == pytest.approx(measured, abs=1e-3, nan_ok=True)
