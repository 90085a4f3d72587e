"""Lists of videos: Kinetics', Charades', folders of classes, and custom ones."""

import json
import logging
import os
import shutil
from pathlib import Path

import cv2
import painted
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from painted import paint, write_video

from nl_detectron.data import register_all, register_videos
from nl_detectron.data.datasets import charades
from nl_detectron.data.datasets import video_list as lists
from nl_detectron.data.datasets.video_list import Entry
from nl_detectron.utils.errors import DataError, UserError


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", "mpeg4", 12)


def copies(video: Path, folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, folder / name)


# Lines


@pytest.mark.parametrize(
    ("line", "path", "labels"),
    [
        ("a.mp4 3", "a.mp4", (3,)),
        ("a.mp4\t3", "a.mp4", (3,)),
        ("a.mp4,3", "a.mp4", (3,)),
        ("a.mp4, 3", "a.mp4", (3,)),
        ("a.mp4 3,5,12", "a.mp4", (3, 5, 12)),
        ("a.mp4\t12,3,3", "a.mp4", (3, 12)),
        ("a.mp4,3,5", "a.mp4", (3, 5)),
        ("my holiday 2.mp4 7", "my holiday 2.mp4", (7,)),
        ("one 2 3", "one 2", (3,)),
        ("one 2\t3,4", "one 2", (3, 4)),
        ('"a, b 1.mp4" 3', "a, b 1.mp4", (3,)),
        ("  x/ä.mp4   0 \r", "x/ä.mp4", (0,)),
        ("/abs/a.mp4 399", "/abs/a.mp4", (399,)),
    ],
)
def test_a_line_is_a_path_and_labels(
    tmp_path: Path, line: str, path: str, labels: tuple[int, ...]
) -> None:
    file = tmp_path / "list.txt"
    file.write_text(f"\n{line}\n\n", encoding="utf-8")
    assert lists.read_list(file) == [Entry(path=path, labels=labels, line=2)]


@pytest.mark.parametrize(
    "line", ["a.mp4", "a.mp4 jump", "3", "a.mp4 -1", "a.mp4 1.5", "a.mp4 1,,2", "a.mp4 0 1"]
)
def test_invalid_line_is_reported(tmp_path: Path, line: str) -> None:
    file = tmp_path / "list.txt"
    file.write_text(f"b.mp4 1\n{line}\n")
    with pytest.raises(DataError, match=r"\A.*list\.txt, line 2: .*\Z"):
        lists.read_list(file)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", None])
def test_invalid_list_file_is_reported(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"list\.txt"):
        lists.read_list(file)


# Charades

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"


def write_charades(root: Path, split: str, rows: list[tuple[str, str]]) -> None:
    lines = [
        f'{name},U1,Kitchen,6,7,Yes,"A, with ""words"".",cup,d,{actions},12.00'
        for name, actions in rows
    ]
    (root / f"Charades_v1_{split}.csv").write_text("\n".join([HEADER, *lines]))


def test_charades_rows_are_actions_with_seconds(tmp_path: Path) -> None:
    actions = "c092 11.90 21.20;c147 0.00 12.60"
    write_charades(tmp_path, "train", [("AB12C", actions), ("XY", "")])
    (tmp_path / "XY").mkdir()
    first, second = charades.read_csv(tmp_path / "Charades_v1_train.csv", tmp_path)
    assert (first.path, first.labels) == ("AB12C.mp4", (92, 147))
    assert first.intervals == ((92, 11.9, 21.2), (147, 0.0, 12.6))
    assert (second.path, second.labels, second.intervals) == ("XY", (), ())


@pytest.mark.parametrize(
    "actions", ["c092 11.90", "92 1 2", "c092 a b", "c092 nan 2", "c0x2 1 2", "c092;1 2"]
)
def test_invalid_charades_actions_are_reported(tmp_path: Path, actions: str) -> None:
    write_charades(tmp_path, "train", [("AB", "c001 0 1"), ("XY", actions)])
    with pytest.raises(DataError, match="line 3: "):
        charades.read_csv(tmp_path / "Charades_v1_train.csv", tmp_path)


@pytest.mark.parametrize(("name", "split"), [("charades_train", "train"), ("charades_val", "test")])
def test_registered_charades(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch, name: str, split: str
) -> None:
    root = tmp_path / "charades"
    root.mkdir()
    write_charades(root, split, [("CD", "c092 0.10 0.30;c147 0.00 9"), ("GONE", "c001 0 1")])
    copies(video, root / "Charades_v1_480", "CD.mp4")
    names = [f"c{i:03d} Name of {i}" for i in range(157)]
    (root / "Charades_v1_classes.txt").write_text("\n".join(names) + "\n")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", {})
    register_all()
    (found,) = DatasetCatalog.get(name)
    assert (found["video_id"], found["labels"]) == ("CD.mp4", [92, 147])
    assert found["intervals"] == ((92, 0.1, 0.3), (147, 0.0, 9.0))
    assert found["info"].num_frames == 12
    metadata = MetadataCatalog.get(name)
    assert metadata.evaluator_type == "video_map"
    assert metadata.thing_classes[156] == "Name of 156"


# Datasets


def test_registered_kinetics_metadata() -> None:
    for split in ("train", "val"):
        metadata = MetadataCatalog.get(f"kinetics400_{split}")
        assert metadata.evaluator_type == "video_top_k"
        assert Path(metadata.list_file).parts[-2:] == ("kinetics400", f"{split}.txt")
        assert Path(metadata.list_file).parent == Path(metadata.video_root)
        assert len(MetadataCatalog.get(f"charades_{split}").thing_classes) == 157


def test_missing_videos_are_skipped_and_logged(
    tmp_path: Path, video: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copies(video, tmp_path, "x/a.mp4", "x/b c.mp4")
    (tmp_path / "list.txt").write_text("x/a.mp4 0\ngone.mp4 1\nx/b c.mp4 2,1\nx/a.mp4 0\n")
    register_videos("own", tmp_path / "list.txt", tmp_path, classes=["p", "q", "r"])
    with caplog.at_level(logging.INFO):
        videos = DatasetCatalog.get("own")
    assert [v["video_id"] for v in videos] == ["x/a.mp4", "x/b c.mp4", "x/a.mp4#2"]
    assert [v["labels"] for v in videos] == [[0], [1, 2], [0]]
    assert f"{tmp_path}/gone.mp4" in caplog.text
    assert MetadataCatalog.get("own").thing_classes == ["p", "q", "r"]
    (tmp_path / "list.txt").write_text("gone.mp4 1\n")
    with pytest.raises(DataError, match=r"'own'.*gone\.mp4"):
        DatasetCatalog.get("own")


def test_label_out_of_range_is_reported(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4 0\nb.mp4 2\n")
    register_videos("own", tmp_path / "list.txt", tmp_path, classes=["p", "q"])
    with pytest.raises(DataError, match=r"list\.txt, line 2: .*'b\.mp4'"):
        DatasetCatalog.get("own")


def test_a_folder_of_classes(tmp_path: Path, video: Path) -> None:
    root = tmp_path / "root"
    copies(video, root, "run/a.mp4", "jump/b.mp4", "jump/c.mp4", "jump/notes.txt")
    (root / "run" / "frames").mkdir()
    for i in range(3):
        cv2.imwrite(str(root / "run" / "frames" / f"{i}.png"), paint(i))
    register_videos("own", None, root)
    videos = DatasetCatalog.get("own")
    assert [(v["video_id"], v["labels"]) for v in videos] == [
        ("jump/b.mp4", [0]),
        ("jump/c.mp4", [0]),
        ("run/a.mp4", [1]),
        ("run/frames", [1]),
    ]
    assert videos[3]["info"].num_frames == 3
    assert videos[3]["info"].width == painted.WIDTH
    assert MetadataCatalog.get("own").thing_classes == ["jump", "run"]
    (tmp_path / "empty" / "run").mkdir(parents=True)
    for name in ("empty", "nowhere"):
        with pytest.raises(UserError, match=name):
            lists.read_folders(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("names.txt", "run\njump high\n"),
        ("names.json", json.dumps({'"jump high"': 1, "run": 0})),
    ],
)
def test_class_names_from_a_file(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert lists.read_classes(tmp_path / name) == ["run", "jump high"]


def test_class_count_defaults_to_largest_label(tmp_path: Path, video: Path) -> None:
    copies(video, tmp_path, "a.mp4")
    (tmp_path / "list.txt").write_text("a.mp4 4\n")
    register_videos("own", os.fspath(tmp_path / "list.txt"), os.fspath(tmp_path))
    DatasetCatalog.get("own")
    assert MetadataCatalog.get("own").thing_classes == ["0", "1", "2", "3", "4"]
