"""The check of datasets: every bad input is named, and nothing else is."""

import re
from collections.abc import Callable
from pathlib import Path

import dirty
import pytest
import tiny_run
from dirty import CASES, Files, register, written
from omegaconf import OmegaConf

from nl_detectron.commands import check as command
from nl_detectron.config import load_config, load_lazy_config
from nl_detectron.data.validation import check_file, check_run
from nl_detectron.data.validation.coco import Expected
from nl_detectron.data.validation.kinds import KINDS, Severity
from nl_detectron.data.validation.run import Run
from nl_detectron.utils.errors import UserError

DOCUMENT = tiny_run.ROOT / "docs" / "datasets.md"
Tool = Callable[..., tuple[int, list[dict]]]


def check(files: Files, **expected: object) -> set[str]:
    """Return the kinds of problems."""
    needs = Expected(**expected)  # type: ignore[arg-type]
    return set(check_file(files.annotations, None, expected=needs).problems)


def test_a_clean_dataset_has_no_problem(files: Files) -> None:
    report = check_file(files.annotations, files.images)
    assert report.facts == {"images": 2, "annotations": 5, "crowds": 1, "categories": 2}
    assert report.problems == {}


@pytest.mark.parametrize("how", CASES)
def test_a_problem_is_reported_and_nothing_else(files: Files, how: str) -> None:
    spoil, kinds = CASES[how]
    spoil(files)
    report = check_file(files.annotations, files.images)
    assert set(report.problems) == set(kinds.split())
    _, where, detail = report.problems[kinds.split()[0]][0]
    assert re.fullmatch(".+\n.+", f"{where}\n{detail}")


def test_problems_are_counted_with_examples(check_tool: Tool, files: Files) -> None:
    for number in range(5):
        dirty.a("bbox", [number, 4, 0, 12], number)(files)
    dirty.a("id", 0)(files)
    dirty.image("a.jpg", dirty.half)(files)
    status, [report] = check_tool(files.annotations, files.images, "--examples", 2)
    found = [(p["kind"], p["severity"], p["count"], len(p["examples"])) for p in report["problems"]]
    assert status == 1
    assert found == [
        ("empty-box", "error", 5, 2),
        ("unreadable-image", "error", 1, 1),
        ("annotation-id-zero", "warning", 1, 1),
    ]
    text = check_file(files.annotations, files.images).as_text()
    assert all(part in text for part in ("empty-box", "a.jpg", KINDS["unreadable-image"].fix))


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
        (dirty.a("id", 0), {"role": "train"}, "annotation-id-zero"),
    ],
)
def test_checks_irrelevant_to_run_are_skipped(
    files: Files, spoil: dirty.Spoil, expected: dict, kind: str
) -> None:
    spoil(files)
    assert kind in check(files)
    assert kind not in check(files, **expected)


def test_missing_required_fields_are_reported(files: Files) -> None:
    assert check(files, num_keypoints=17) == {"keypoint-count"}
    for annotation in files.content["annotations"]:
        del annotation["segmentation"], annotation["keypoints"]
    files.write_annotations()
    report = check_file(files.annotations, None, expected=Expected(masks=True, keypoints=True))
    # Crowds are not trained on, so they need neither.
    assert len(report.problems["no-mask"]) == len(report.problems["no-keypoints"]) == 4
    dirty.change(lambda content: content.pop("annotations"))(files)
    assert "not-coco" in check(files, role="train")


def test_no_decode_skips_image_content(files: Files) -> None:
    dirty.image("a.jpg", dirty.half)(files)
    dirty.image("b.png", lambda data: b"")(files)
    report = check_file(files.annotations, files.images, decode=False)
    assert set(report.problems) == {"empty-image-file"}


# The datasets of a config


def together(train: str, test: str, **changes: object) -> set[str]:
    """Return the problems of the datasets with the run; each alone has no error."""
    values = {
        "masks": True,
        "keypoints": True,
        "num_keypoints": 3,
        "num_classes": 2,
        "oks_sigmas": (0.1, 0.1, 0.1),
    }
    run = Run(train=(train,), test=(test,), **{**values, **changes})  # type: ignore[arg-type]
    *alone, whole = check_run(run)
    errors = [(report.title, report.count(Severity.ERROR)) for report in alone]
    assert errors == [(train, 0), (test, 0)]
    return set(whole.problems)


@pytest.mark.parametrize(
    ("metadata", "changes", "kind"),
    [
        ({}, {}, ""),
        ({"keypoint_flip_map": None}, {}, "no-flip-map"),
        ({"keypoint_names": None}, {}, "no-flip-map"),
        ({"keypoint_names": [*dirty.POINTS, "chin"]}, {}, "keypoint-number"),
        ({}, {"oks_sigmas": ()}, "oks-sigmas"),
        ({}, {"num_classes": 1}, "too-many-categories"),
        ({}, {"num_classes": 80}, "too-few-categories"),
        ({"thing_classes": ["box", "person"]}, {}, "categories-differ"),
    ],
)
def test_a_dataset_that_does_not_fit_the_model(
    tmp_path: Path, metadata: dict, changes: dict, kind: str
) -> None:
    train = register("train", written(tmp_path / "train"), **metadata)
    test = register("test", written(tmp_path / "test"))
    assert together(train, test, **changes) == set(kind.split())


def test_datasets_that_do_not_fit_each_other(tmp_path: Path) -> None:
    train_files = written(tmp_path / "train")
    train = register("train", train_files)
    swapped = [{"id": 1, "name": "box"}, {"id": 2, "name": "person", "keypoints": dirty.POINTS}]
    other = register("other", written(tmp_path / "swapped", categories=swapped))
    assert together(train, other) == {"categories-differ"}

    people = [a for a in dirty.clean()["annotations"] if a["category_id"] == 1]
    few = register("few", written(tmp_path / "people", annotations=people))
    assert not together(train, few)

    same_images = written(tmp_path / "same")
    same_images.folder = train_files.folder
    assert together(train, register("same", same_images)) == {"file-in-train-and-test"}


def test_expected_annotations_follow_config_heads() -> None:
    opts = ["DATASETS.TRAIN", ("one", "both"), "DATASETS.TEST", ("both", "other")]
    cfg = load_config("quickstart.yaml", [*opts, "INPUT.MASK_FORMAT", "bitmask"])
    run = Run.from_config(cfg)
    assert [run.expected(name).role for name in ("one", "both", "other")] == ["train", None, "test"]
    assert (run.masks, run.mask_format) == (True, "bitmask")
    assert (run.keypoints, run.num_keypoints) == (True, 17)
    cfg.MODEL.KEYPOINT_ON = cfg.MODEL.MASK_ON = False
    run = Run.from_config(cfg)
    assert (run.masks, run.keypoints, run.num_keypoints) == (False, False, None)


def test_lazy_and_yaml_configs_give_same_run() -> None:
    configs = tiny_run.ROOT / "configs" / "COCO-Keypoints"
    lazy = load_lazy_config(configs / "keypoint_rcnn_R_50_FPN_1x.py", ["train.device=cpu"])
    cfg = load_config(configs / "keypoint_rcnn_R_50_FPN_1x.yaml", ["MODEL.DEVICE", "cpu"])
    ours, theirs = Run.from_lazy_config(lazy), Run.from_config(cfg)
    # COCO's default sigmas are written out in one of them.
    written_otherwise = {"oks_sigmas": (), "classes_key": ""}
    assert {**vars(ours), **written_otherwise} == {**vars(theirs), **written_otherwise}
    lazy.dataloader.evaluator = OmegaConf.create([{}, {"kpt_oks_sigmas": [0.5]}])
    assert Run.of(lazy).oks_sigmas == (0.5,)


# The script


def test_the_script_checks_a_config(check_tool: Tool, tmp_path: Path) -> None:
    name = register("checked", written(tmp_path / "data"))
    config = tmp_path / "run.yaml"
    config.write_text(f"DATASETS: {{TRAIN: [{name}], TEST: [{name}]}}\nMODEL: {{MASK_ON: True}}\n")
    for classes, expected, kinds in ((2, 0, []), (80, 1, ["too-few-categories"])):
        opts = ("--opts", "MODEL.ROI_HEADS.NUM_CLASSES", classes)
        status, [_, whole] = check_tool("--config-file", config, *opts)
        assert status == expected
        assert [p["kind"] for p in whole["problems"]] == kinds


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.json", "images"], "nowhere.json"),
        ([__file__], "--no-images"),
        ([__file__, "no/folder"], "no/folder"),
    ],
)
def test_invalid_arguments_give_one_line_error(
    check_tool: Tool, arguments: list[str], named: str
) -> None:
    with pytest.raises(UserError, match=rf"^[^\n]*{named}[^\n]*\Z"):
        check_tool(*arguments)


def test_documented_table_matches_code() -> None:
    assert command.list_of_checks("github") in DOCUMENT.read_text(encoding="utf-8")
