"""The check of lists of videos."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_videos import late_noise, write_frames, write_good
from painted import remux
from test_video_lists import write_charades

from nl_detectron.data import register_videos
from nl_detectron.data.datasets.video_list import Entry
from nl_detectron.data.validation.kinds import Report
from nl_detectron.data.validation.videos import VideoSet, check_videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good videos and a folder of frames, and bad ones."""
    folder = write_good(tmp_path_factory.mktemp("videos"))
    write_frames(folder / "frames")
    write_frames(folder / "half")
    (folder / "half" / "0020.jpg").write_text("no image")
    remux(folder / "a.mp4", folder / "late.mp4", late_noise)
    return folder


def found(report: Report) -> dict[str, list[str]]:
    """Return the places of each kind of problem."""
    return {kind: [p.where for p in problems] for kind, problems in report.problems.items()}


def check(folder: Path, text: str, *, decode: bool = True) -> dict[str, list[str]]:
    (folder / "list.txt").write_text(text)
    return found(check_videos(VideoSet.of_list(folder / "list.txt", folder), decode=decode))


def test_undecodable_files_are_reported(folder: Path) -> None:
    assert check(folder, "a.mp4 0\nframes 1\na.webm 1\n") == {}
    text = "late.mp4 0\nhalf 0\ngone.mp4 0\na.mp4 0\n"
    missing = {"missing-video": ["line 3, gone.mp4"]}
    unreadable = {"unreadable-video": ["line 1, late.mp4", "line 2, half"]}
    assert check(folder, text) == unreadable | missing
    assert check(folder, text, decode=False) == missing


def test_invalid_list_entries_are_reported(folder: Path) -> None:
    lines = (
        ("a.mp4", (0,)),
        ("b.mp4", (5,)),
        ("./a.mp4", (0,)),
        ("c", (1,)),
        ("c", (3,)),
        ("d", ()),
    )
    entries = [Entry(path=path, labels=labels) for path, labels in lines]
    videos = VideoSet(name="list", entries=entries, root=folder, classes=["p", "q", "r", "s"])
    report = found(check_videos(videos, decode=False))
    assert report.pop("missing-video")
    assert report == {
        "video-label-range": ["b.mp4"],
        "duplicate-video": ["./a.mp4"],
        "conflicting-labels": ["c"],
        "video-no-label": ["d"],
    }


@pytest.fixture
def registered(folder: Path) -> None:
    (folder / "train.txt").write_text("a.mp4 0\na.webm 1\n")
    (folder / "val.txt").write_text("a.avi 0\na.webm 1\ngone.mp4 1\n")
    for split in ("train", "val"):
        register_videos(f"v_{split}", folder / f"{split}.txt", folder, classes=["p", "q"])


def test_tool_checks_lists_datasets_and_charades(
    folder: Path,
    registered: None,
    tmp_path: Path,
    check_tool: Callable[..., tuple[int, list[dict[str, Any]]]],
) -> None:
    def tool(*arguments: object) -> tuple[int, list[str]]:
        """Return the exit status, and the kinds of the last report's problems."""
        status, (*_, report) = check_tool(*arguments)
        return status, [p["kind"] for p in report["problems"]]

    (folder / "list.txt").write_text("late.mp4 0\n")
    assert tool(folder / "list.txt", folder) == (1, ["unreadable-video"])
    assert tool("v_train") == (0, [])
    assert tool("v_val") == (0, ["missing-video"])
    shutil.copy(folder / "a.mp4", tmp_path / "AB.mp4")
    write_charades(tmp_path, "train", [("AB", "c000 0 1;c001 0 1"), ("CD", "")])
    assert tool(tmp_path / "Charades_v1_train.csv", tmp_path) == (0, ["missing-video"])
    (tmp_path / "video.yaml").write_text(
        "VERSION: 2\nMODEL: {META_ARCHITECTURE: VideoClassifier, BACKBONE: "
        "{NAME: build_nonlocal_video_resnet_backbone}}\n"
        "DATASETS: {TRAIN: [v_train], TEST: [v_val]}\n"
    )
    kinds = ["class-number", "video-in-train-and-test"]
    assert tool("--config-file", tmp_path / "video.yaml") == (1, kinds)
