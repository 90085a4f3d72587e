"""What the check of data sets finds in lists of videos."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import check_dataset
import pytest
from bad_videos import noise, write_frames, write_good
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from painted import remux
from test_video_lists import write_charades

import nl_detectron
from nl_detectron.data import register_videos
from nl_detectron.data.video.lists import Entry
from nl_detectron.dataset_check.report import Report
from nl_detectron.dataset_check.videos import VideoSet, check_video_run, check_videos

KINDS_OF_VIDEOS = {
    *("missing-video", "unreadable-video"),
    *("video-label-range", "video-no-label", "duplicate-video", "conflicting-labels"),
    *("class-without-video", "video-in-train-and-test", "class-number"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good videos and a folder of frames, and bad ones."""
    folder = tmp_path_factory.mktemp("videos")
    write_good(folder)
    write_frames(folder / "frames")
    write_frames(folder / "half")
    (folder / "half" / "0020.jpg").write_text("no image")
    remux(folder / "a.mp4", folder / "late.mp4", lambda i, p: noise(i, p) if i >= 10 else p)
    (folder / "cut.mkv").write_bytes((folder / "a.mkv").read_bytes()[:2500])
    return folder


def found(report: Report) -> dict[str, list[str]]:
    return {
        name: [f"{p.where}: {p.detail}" for p in finding.examples]
        for name, finding in report.findings.items()
    }


def check(
    folder: Path, text: str, *, decode: bool = True, num_classes: int | None = None
) -> Report:
    (folder / "list.txt").write_text(text)
    videos = VideoSet.of_list(folder / "list.txt", folder)
    if num_classes is not None:
        classes = [f"c{i}" for i in range(num_classes)]
        videos = VideoSet(
            name="list",
            entries=videos.entries,
            root=folder,
            classes=classes,
            multi_label=videos.multi_label,
        )
    return check_videos(videos, decode=decode, max_examples=9)


def test_a_good_list_has_nothing_wrong(folder: Path) -> None:
    report = check(folder, "a.mp4 0\nframes 1\na.webm 1\n", num_classes=2)
    assert found(report) == {}
    assert report.facts == {"videos": 3, "labels": 3, "classes": 2}


def test_every_file_that_cannot_be_decoded_to_its_end_is_named(folder: Path) -> None:
    report = found(check(folder, "late.mp4 0\ncut.mkv 0\nhalf 0\ngone.mp4 0\na.mp4 0\n"))
    assert set(report) == {"unreadable-video", "missing-video"}
    late, cut, half = report["unreadable-video"]
    assert late.startswith("line 1, late.mp4: ")
    assert cut.startswith("line 2, cut.mkv: ")
    assert half.startswith("line 3, half: ")
    assert "0020.jpg" in half
    assert report["missing-video"] == [f"line 4, gone.mp4: no {folder}/gone.mp4"]
    assert set(found(check(folder, "late.mp4 0\ngone.mp4 0\n", decode=False))) == {"missing-video"}


def test_a_video_without_a_label(folder: Path) -> None:
    videos = VideoSet(
        name="list",
        entries=[Entry(path="a.mp4", labels=()), Entry(path="a.webm", labels=(0,))],
        root=folder,
        classes=["p"],
        multi_label=False,
    )
    assert found(check_videos(videos)) == {"video-no-label": ["a.mp4: no label"]}


def test_what_is_wrong_in_the_lines(folder: Path) -> None:
    text = "a.mp4 0\nb.mp4 5\n./a.mp4 0\na.webm 1\na.webm 3\n"
    report = found(check(folder, text, decode=False, num_classes=4))
    assert report["video-label-range"] == ["line 2, b.mp4: label 5 of 4 classes, from 0"]
    assert report["duplicate-video"] == ["line 3, ./a.mp4: it is in line 1 too"]
    assert report["conflicting-labels"] == ["line 5, a.webm: it is in line 4 too"]
    assert report["class-without-video"] == ["class 2: c2"]
    assert set(report) - {"missing-video"} == {
        "video-label-range",
        "duplicate-video",
        "conflicting-labels",
        "class-without-video",
    }


@pytest.fixture
def run(folder: Path) -> Iterator[CfgNode]:
    (folder / "train.txt").write_text("a.mp4 0\na.webm 1\n")
    (folder / "val.txt").write_text("a.avi 0\na.webm 1\n")
    for split in ("train", "val"):
        register_videos(f"v_{split}", folder / f"{split}.txt", folder, classes=["p", "q"])
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "VideoClassifier"
    cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES = 3
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("v_train",), ("v_val",)
    yield cfg
    for split in ("train", "val"):
        DatasetCatalog.remove(f"v_{split}")
        MetadataCatalog.pop(f"v_{split}")


def test_what_does_not_fit_together(run: CfgNode) -> None:
    train, val, whole = check_video_run(run)
    assert found(train) == found(val) == {}
    problems = found(whole)
    assert problems["video-in-train-and-test"] == ["data sets 'v_train' and 'v_val': a.webm"]
    assert problems["class-number"][0] == "data set 'v_train': 2 classes, 3 in the model"


def test_the_tool_checks_lists_names_and_charades(
    folder: Path,
    run: CfgNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def tool(*arguments: object) -> tuple[int, list[dict]]:
        monkeypatch.setattr(sys, "argv", ["check_dataset.py", "--json", *map(str, arguments)])
        status = check_dataset.main()
        return status, json.loads(capsys.readouterr().out)

    (folder / "list.txt").write_text("late.mp4 0\n")
    status, [report] = tool(folder / "list.txt", folder)
    assert status == 1
    assert [p["kind"] for p in report["problems"]] == ["unreadable-video"]
    status, [report] = tool("v_train")
    assert (status, report["problems"]) == (0, [])
    shutil.copy(folder / "a.mp4", tmp_path / "AB.mp4")
    write_charades(tmp_path, "train", [("AB", "c000 0 1;c001 0 1"), ("CD", "")])
    status, [report] = tool(tmp_path / "Charades_v1_train.csv", tmp_path)
    assert status == 0
    assert [p["kind"] for p in report["problems"]] == ["missing-video"]
    (tmp_path / "video.yaml").write_text(
        "VERSION: 2\nMODEL: {META_ARCHITECTURE: VideoClassifier, BACKBONE: "
        "{NAME: build_nonlocal_video_resnet_backbone}}\n"
        "DATASETS: {TRAIN: [v_train], TEST: [v_val]}\n"
    )
    status, reports = tool("--config-file", tmp_path / "video.yaml")
    assert status == 1
    assert [p["kind"] for p in reports[-1]["problems"]] == [
        "class-number",
        "video-in-train-and-test",
    ]
