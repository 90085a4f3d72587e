"""The check of data sets: every bad input is named, and nothing else is."""

import json
import random
import sys
from pathlib import Path

import dirty
import pycocotools.mask as mask_util
import pytest
import tiny_run
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from dirty import CASES, Case, Files
from test_check_videos import KINDS_OF_VIDEOS

import nl_detectron
from nl_detectron.config import load_lazy_config
from nl_detectron.dataset_check import (
    KINDS,
    Expected,
    Report,
    Run,
    Severity,
    check_file,
    check_registered,
    check_run,
)
from nl_detectron.dataset_check.annotations import run_lengths
from nl_detectron.errors import UserError

sys.path.insert(0, str(tiny_run.ROOT / "tools"))
import check_dataset

DOCUMENT = tiny_run.ROOT / "docs" / "datasets.md"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """The clean data set, written."""
    new = Files(tmp_path)
    new.write_images()
    new.write_annotations()
    return new


def kinds(report: Report) -> set[str]:
    return set(report.findings)


def check(files: Files, **expected: object) -> Report:
    return check_file(files.annotations, files.images, expected=Expected(**expected))  # type: ignore[arg-type]


def test_a_clean_data_set_has_no_problem(files: Files) -> None:
    report = check(files)
    assert report.facts == {"images": 2, "annotations": 5, "crowds": 1, "categories": 2}
    assert not report.findings
    assert "nothing wrong" in report.as_text()


@pytest.mark.parametrize(
    ("what", "case"),
    [pytest.param(what, case, id=f"{what}: {case.how}") for what in CASES for case in CASES[what]],
)
def test_what_is_wrong_is_reported_and_nothing_else(files: Files, what: str, case: Case) -> None:
    case.spoil(files)
    report = check(files)
    assert kinds(report) == set(case.reported.split())
    first = report.findings[case.kind].examples[0]
    assert first.where
    assert first.detail
    assert "\n" not in first.where + first.detail


def test_every_kind_of_problem_is_tried() -> None:
    spoilt = {kind for cases in CASES.values() for case in cases for kind in case.reported.split()}
    between_data_sets = {
        *("no-flip-map", "bad-flip-map", "keypoint-number", "oks-sigmas", "few-keypoints"),
        *("too-many-categories", "too-few-categories", "categories-differ"),
        *("category-only-in-train", "file-in-train-and-test"),
    }
    assert spoilt | between_data_sets | KINDS_OF_VIDEOS == set(KINDS)


def test_everything_is_reported_at_once(files: Files) -> None:
    cases = [
        dirty.a("bbox", [2, 4, 0, 12], 0),
        dirty.a("segmentation", [[1, 2]], 1),
        dirty.a("category_id", 9, 2),
        dirty.a("keypoints", [1], 3),
        dirty.image("a.jpg", lambda data: data[: len(data) // 2]),
        dirty.image("b.png", lambda data: b""),
    ]
    for spoil in cases:
        spoil(files)
    assert {"empty-box", "short-polygon", "unknown-category", "keypoint-count"} | {
        "truncated-image",
        "empty-image-file",
    } <= kinds(check(files))


def test_problems_are_counted_and_the_first_are_named(files: Files) -> None:
    for number in range(5):
        dirty.a("bbox", [2, 4, 0, 12], number)(files)
    finding = check(files).findings["empty-box"]
    assert finding.count == 5
    assert [e.where for e in finding.examples] == [
        *("annotation 1 of image 1", "annotation 2 of image 1", "annotation 3 of image 2")
    ]
    assert "... and 2 more" in check(files).as_text()


@pytest.mark.parametrize(
    ("spoil", "expected", "kind"),
    [
        (dirty.rle([0, 9, dirty.PIXELS - 9], 0), {"mask_format": "bitmask"}, "rle-mask"),
        (dirty.rle([0, 9, dirty.PIXELS - 9], 0), {"role": "test"}, "rle-mask"),
        (dirty.rle([0, 9, dirty.PIXELS - 9], 0), {"masks": False}, "rle-mask"),
        (dirty.no_a("segmentation"), {"masks": False}, "no-mask"),
        (dirty.no_a("keypoints"), {"keypoints": False}, "no-keypoints"),
        (dirty.no_a("num_keypoints"), {"keypoints": False}, "no-evaluation-key"),
        (dirty.a("keypoints", [1, 1, 1]), {"keypoints": False}, "keypoint-count"),
        (dirty.no_a("iscrowd"), {"role": "train"}, "no-evaluation-key"),
    ],
)
def test_what_a_run_does_not_need_is_no_error(
    files: Files, spoil: dirty.Spoil, expected: dict, kind: str
) -> None:
    spoil(files)
    assert kind in kinds(check(files))
    assert kind not in kinds(check(files, **expected))


def test_a_run_may_ask_for_more_than_the_file_has(files: Files) -> None:
    for annotation in files.content["annotations"]:
        del annotation["segmentation"], annotation["keypoints"]
    files.write_annotations()
    assert not check(files).errors
    assert kinds(check(files, masks=True)) == {"no-mask"}
    # Crowds are not trained on, so they need neither.
    assert check(files, masks=True).findings["no-mask"].count == 4
    assert "no-keypoints" in kinds(check(files, keypoints=True))


def test_keypoints_are_compared_with_the_model(files: Files) -> None:
    assert kinds(check(files, num_keypoints=17)) == {"keypoint-count"}
    assert kinds(check(files, min_keypoints=4)) == {"few-keypoints"}
    assert not kinds(check(files, min_keypoints=3))


def test_without_decoding_only_the_files_are_looked_for(files: Files) -> None:
    dirty.image("a.jpg", lambda data: data[: len(data) // 2])(files)
    dirty.image("b.png", lambda data: b"")(files)
    report = check_file(files.annotations, files.images, decode=False)
    assert kinds(report) == {"empty-image-file"}
    assert not check_file(files.annotations, None).findings


def test_run_lengths_are_those_of_pycocotools() -> None:
    numbers = random.Random(0)
    for _ in range(200):
        runs = [numbers.choice((0, 3, 40, 2000, 70000)) for _ in range(numbers.randint(1, 9))]
        size = [1, sum(runs)]
        compressed = mask_util.frPyObjects({"size": size, "counts": runs}, *size)["counts"]
        assert run_lengths(compressed.decode()) == runs


# Data sets of a config


@pytest.fixture
def registered(tmp_path: Path):
    """Register data sets ``checked_0``, ... for Detectron2, and forget them afterwards."""
    names: list[str] = []

    def register(files: Files, **metadata: object) -> str:
        name = f"checked_{len(names)}"
        names.append(name)
        defaults = {"keypoint_names": dirty.POINTS, "keypoint_flip_map": dirty.FLIPS}
        given = {k: v for k, v in {**defaults, **metadata}.items() if v is not None}
        register_coco_instances(name, given, str(files.annotations), str(files.images))
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def run_of(train: str, test: str, **changes: object) -> Run:
    values = {
        "train": (train,),
        "test": (test,),
        "masks": True,
        "mask_format": "polygon",
        "keypoints": True,
        "num_keypoints": 3,
        "min_keypoints": 1,
        "num_classes": 2,
        "oks_sigmas": (0.1, 0.1, 0.1),
    }
    return Run(**{**values, **changes})  # type: ignore[arg-type]


def write(folder: Path, **sections: list) -> Files:
    folder.mkdir()
    new = Files(folder)
    new.content.update(sections)
    new.write_images()
    new.write_annotations()
    return new


def last(run: Run) -> set[str]:
    """Return what is said about the data sets together; each alone is clean."""
    *alone, whole = check_run(run)
    assert not any(report.errors for report in alone)
    return kinds(whole)


def test_clean_data_sets_of_a_config(tmp_path: Path, registered) -> None:
    train, test = (registered(write(tmp_path / part)) for part in ("train", "test"))
    assert last(run_of(train, test)) == set()
    assert [r.title for r in check_run(run_of(train, test))][:2] == [train, test]


@pytest.mark.parametrize(
    ("metadata", "changes", "kind"),
    [
        ({"keypoint_flip_map": None}, {}, "no-flip-map"),
        ({"keypoint_names": None}, {}, "no-flip-map"),
        ({"keypoint_flip_map": [("left_ear", "right_ear")]}, {}, "bad-flip-map"),
        ({"keypoint_flip_map": dirty.FLIPS * 2}, {}, "bad-flip-map"),
        ({"keypoint_names": [*dirty.POINTS, "chin"]}, {}, "keypoint-number"),
        ({}, {"oks_sigmas": ()}, "oks-sigmas"),
        ({}, {"num_classes": 1}, "too-many-categories"),
        ({}, {"num_classes": 80}, "too-few-categories"),
        ({"thing_classes": ["box", "person"]}, {}, "categories-differ"),
    ],
)
def test_a_data_set_that_does_not_fit_the_model(
    tmp_path: Path, registered, metadata: dict, changes: dict, kind: str
) -> None:
    train = registered(write(tmp_path / "train"), **metadata)
    test = registered(write(tmp_path / "test"))
    assert kind in last(run_of(train, test, **changes))


def test_data_sets_that_do_not_fit_each_other(tmp_path: Path, registered) -> None:
    train_files = write(tmp_path / "train")
    train = registered(train_files)
    swapped = [{"id": 1, "name": "box"}, {"id": 2, "name": "person", "keypoints": dirty.POINTS}]
    other = registered(write(tmp_path / "swapped", categories=swapped))
    assert last(run_of(train, other)) == {"categories-differ"}

    people = [a for a in dirty.clean()["annotations"] if a["category_id"] == 1]
    few = registered(write(tmp_path / "people", annotations=people))
    assert last(run_of(train, few)) == {"category-only-in-train"}

    same_images = write(tmp_path / "same")
    same_images.folder = train_files.folder
    assert last(run_of(train, registered(same_images))) == {"file-in-train-and-test"}


def test_the_heads_of_a_config_say_what_its_data_needs() -> None:
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("one", "both"), ("both",)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    run = Run.from_config(cfg)
    assert run.expected("one") == Expected(
        role="train", masks=False, mask_format="bitmask", keypoints=False
    )
    cfg.MODEL.KEYPOINT_ON = cfg.MODEL.MASK_ON = True
    expected = Run.from_config(cfg).expected("both")
    assert (expected.role, expected.masks, expected.keypoints) == (None, True, True)
    assert (expected.num_keypoints, expected.min_keypoints) == (17, 1)


def test_a_lazy_config_says_the_same_as_its_yaml_twin() -> None:
    configs = tiny_run.ROOT / "configs" / "COCO-Keypoints"
    lazy = load_lazy_config(configs / "keypoint_rcnn_R_50_FPN_1x.py", ["train.device=cpu"])
    cfg = check_dataset.load_config(
        configs / "keypoint_rcnn_R_50_FPN_1x.yaml", ["MODEL.DEVICE", "cpu"]
    )
    ours, theirs = Run.from_lazy_config(lazy), Run.from_config(cfg)
    # COCO's default sigmas are written out in one of them.
    assert {**vars(ours), "oks_sigmas": ()} == {**vars(theirs), "oks_sigmas": ()}


def test_only_data_sets_in_cocos_format_can_be_checked(registered, files: Files) -> None:
    name = registered(files)
    assert not check_registered(name).findings
    with pytest.raises(UserError, match=f"'{name}x' is not registered. Did you mean '{name}'"):
        check_registered(f"{name}x")
    DatasetCatalog.register("checked_list", list)
    try:
        with pytest.raises(UserError, match=r"checked_list.*COCO's format"):
            check_registered("checked_list")
    finally:
        DatasetCatalog.remove("checked_list")
        MetadataCatalog.remove("checked_list")


# The script


def script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: object
) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["check_dataset.py", *map(str, arguments)])
    status = check_dataset.main()
    return status, capsys.readouterr().out


def test_the_script_fails_only_on_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, files: Files
) -> None:
    line = (files.annotations, files.images)
    assert script(monkeypatch, capsys, *line)[0] == 0
    dirty.a("id", 0)(files)
    status, out = script(monkeypatch, capsys, *line)
    assert (status, "0 errors and 1 warning" in out) == (0, True)
    dirty.image("a.jpg", lambda data: b"")(files)
    status, out = script(monkeypatch, capsys, *line)
    assert (status, "1 error and 1 warning" in out) == (1, True)
    assert KINDS["empty-image-file"].fix in out
    assert str(files.images / "a.jpg") in out
    assert script(monkeypatch, capsys, *line, "--no-images")[0] == 1


def test_the_script_prints_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, files: Files
) -> None:
    dirty.a("bbox", [2, 4, dirty.NAN, 12])(files)
    status, out = script(monkeypatch, capsys, files.annotations, files.images, "--json")
    (report,) = json.loads(out)
    (problem,) = report["problems"]
    assert (status, report["images"], problem["count"]) == (1, 2, 1)
    assert (problem["kind"], problem["severity"]) == ("impossible-number", "error")
    assert problem["examples"][0]["where"] == "annotation 1 of image 1"


def test_the_script_takes_a_mask_format(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, files: Files
) -> None:
    dirty.rle([0, 300, dirty.PIXELS - 300], 0)(files)
    line = (files.annotations, files.images)
    assert script(monkeypatch, capsys, *line)[0] == 1
    assert script(monkeypatch, capsys, *line, "--mask-format", "bitmask")[0] == 0


def test_the_script_checks_a_config(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, registered, tmp_path: Path
) -> None:
    name = registered(write(tmp_path / "data"))
    config = tmp_path / "run.yaml"
    config.write_text(f"DATASETS: {{TRAIN: [{name}], TEST: [{name}]}}\nMODEL: {{MASK_ON: True}}\n")
    status, out = script(monkeypatch, capsys, "--config-file", config)
    assert (status, "too-few-categories" in out) == (0, True)
    opts = ("--opts", "MODEL.ROI_HEADS.NUM_CLASSES", 1)
    status, out = script(monkeypatch, capsys, "--config-file", config, *opts)
    assert (status, "too-many-categories" in out) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.json", "images"], "neither a file nor a registered data set"),
        ([__file__], "IMAGE_DIR|folder of the images"),
        ([__file__, "no/folder"], "'no/folder' is not a folder"),
        ([__file__, "--no-images", "--examples", "0"], "--examples 0: at least 1"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    message: str,
) -> None:
    with pytest.raises(UserError, match=message):
        script(monkeypatch, capsys, *arguments)


def test_the_script_runs_as_a_user_runs_it(files: Files) -> None:
    dirty.text(lambda text: text[:100])(files)
    tool = tiny_run.ROOT / "tools" / "check_dataset.py"
    done = tiny_run.run(tool, files.annotations, files.images)
    assert done.returncode == 1
    assert "not-json" in done.stdout
    assert "Traceback" not in done.stderr


def test_the_documented_table_is_that_of_the_code() -> None:
    assert check_dataset.list_of_checks("github") in DOCUMENT.read_text(encoding="utf-8")
    for kind in KINDS.values():
        assert kind.severity in Severity
        assert kind.meaning
        assert kind.fix
