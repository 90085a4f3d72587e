"""``demo/demo.py``: its inputs, its outputs and its errors."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from painted import write_video

from nl_detectron.commands import demo
from nl_detectron.data import inputs
from nl_detectron.data.inputs import list_images, number_images
from nl_detectron.data.video.probing import probe
from nl_detectron.utils.errors import UserError
from nl_detectron.visualization import draw_instances
from nl_detectron.visualization.detections import shown_instances


@pytest.fixture
def run(tiny_detector: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the demo's main with arguments, in this process."""

    def run_main(*arguments: object) -> None:
        line = ["demo.py", "--config-file", tiny_detector / "tiny.yaml", *arguments]
        line += ["--confidence-threshold", 0]
        line += ["--opts", "MODEL.WEIGHTS", tiny_detector / "weights.pth"]
        monkeypatch.setattr("sys.argv", list(map(str, line)))
        monkeypatch.setattr(demo, "has_screen", lambda: False)
        demo.main()

    return run_main


def test_bad_files_are_reported_and_others_drawn(
    run: Callable[..., None], tiny_detector: Path, tmp_path: Path, capsys
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in (1, 2, 3):
        shutil.copy(tiny_detector / "images" / f"{number:03}.png", images / f"{number:012}.png")
    whole = (images / "000000000003.png").read_bytes()
    (images / "000000000004.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no image")
    arguments = ("--json", tmp_path / "found.json", "--batch-size", 2)
    with pytest.raises(UserError) as error:
        run("--input", images, tmp_path / "note*.txt", "--output", tmp_path / "drawn", *arguments)
    assert all(name in str(error.value) for name in ("000000000004.png", "notes.txt"))
    assert "100%|" in capsys.readouterr().err
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == [f"{n:012}.png" for n in (1, 2, 3)]
    found = json.loads((tmp_path / "found.json").read_text())
    assert {result["file_name"] for result in found} == {str(images / path.name) for path in drawn}
    assert {"image_id", "category_id", "bbox", "segmentation", "keypoints"} <= found[0].keys()


def test_inputs_are_not_overwritten(
    run: Callable[..., None], tiny_detector: Path, tmp_path: Path
) -> None:
    before = (tiny_detector / "images" / "000.png").read_bytes()
    (tmp_path / "a.png").write_bytes(before)
    with pytest.raises(UserError, match=r"a\.png"):
        run("--input", tmp_path, "--output", tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before


def test_every_frame_of_a_video_is_written(
    run: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_video(tmp_path / "in.avi", "mjpeg", 7, rate=10, pixels="yuvj420p")
    target, found = tmp_path / "out.mp4", tmp_path / "frames.json"
    run("--video-input", source, "--output", target, "--batch-size", 3, "--json", found)
    drawn = probe(target)
    assert (drawn.num_frames, drawn.rate) == (7, pytest.approx(10))
    assert {result["image_id"] for result in json.loads(found.read_text())} == set(range(7))
    camera = cv2.VideoCapture(str(source))
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: camera)
    run("--webcam", "--output", tmp_path)
    assert probe(tmp_path / "webcam.mp4").num_frames == 7


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--input", "{}/images"), "--output"),
        (("--webcam",), "--output"),
        (("--input", "{}/no*.png", "--output", "{}/o"), "no*.png"),
        (("--video-input", "{}/no.mp4", "--output", "{}/o"), "no.mp4"),
        (("--video-input", "{}/tiny.json", "--output", "{}/o"), "tiny.json"),
        (("--input", "coco_2017_val:x", "--output", "{}/o"), "coco_2017_val:x"),
    ],
)
def test_invalid_arguments_are_refused(
    run: Callable[..., None], tiny_detector: Path, arguments: tuple[str, ...], named: str
) -> None:
    with pytest.raises(UserError, match=re.escape(named)):
        run(*(argument.format(tiny_detector) for argument in arguments))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["."], [f"{n:03}.png" for n in range(8)]),
        (["00[67].png", "001.png"], ["006.png", "007.png", "001.png"]),
        (["001.png", "00[01].png"], ["001.png", "000.png"]),
        (["some_set"], ["002.png", "005.png"]),
        (["some_set:1"], ["002.png"]),
    ],
)
def test_inputs_are_files_folders_patterns_and_datasets(
    given: list[str], names: list[str], tiny_detector: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"file_name": "002.png"}, {"file_name": "005.png"}]
    monkeypatch.setattr(inputs, "DatasetCatalog", {"some_set": records})
    monkeypatch.setattr(inputs, "check_datasets", lambda names: None)
    monkeypatch.chdir(tiny_detector / "images")
    assert [path.name for path in list_images(given)] == names


@pytest.mark.parametrize(
    ("known", "numbers"),
    [
        ({"0012.jpg": None, "7.jpg": None}, [12, 7]),
        ({"0012.jpg": None, "x.jpg": None}, [0, 1]),
        ({"a/1.jpg": None, "b/1.jpg": None}, [0, 1]),
        ({"p.jpg": None, "q.jpg": 1000}, [1001, 1000]),
    ],
)
def test_image_ids_come_from_dataset_or_file_name(known: dict, numbers: list[int]) -> None:
    found = number_images({Path(name): number for name, number in known.items()})
    assert [found[Path(name)] for name in known] == numbers


def test_drawing_positions_and_person_only_keypoints() -> None:
    found = Instances(
        (60, 90),
        pred_boxes=Boxes(torch.tensor([[10.0, 20, 30, 50], [50, 10, 80, 40]])),
        scores=torch.tensor([0.9, 0.8]),
        pred_classes=torch.tensor([0, 1]),
        pred_masks=torch.zeros(2, 60, 90, dtype=torch.bool),
        pred_keypoints=torch.tensor([[[15.0, 25, 0.9]], [[60.0, 20, 0.9]]]),
    )
    found.pred_masks[0, 20:50, 10:30] = True
    metadata = Metadata(thing_classes=["person", "car"], keypoint_names=["nose"])
    large = shown_instances(found, metadata, 8)
    assert large.pred_boxes.tensor[0].tolist() == [80, 160, 240, 400]
    assert large.pred_masks[0].nonzero().amin(0).tolist() == [160, 80]
    assert large.pred_keypoints[:, 0].tolist() == [
        pytest.approx([120, 200, 0.9]),
        pytest.approx([480, 160, 0]),
    ]
    assert len(shown_instances(found[[False, False]], metadata, 8)) == 0
    drawn = draw_instances(np.full((60, 90, 3), 128, np.uint8), found, metadata)
    changed = (drawn != 128).any(axis=2)  # of 480 x 720
    assert changed[170:390, 90:230].mean() > 0.9
    assert changed[420:, :].mean() < 0.02
    assert found.pred_keypoints[1, 0, 2] > 0  # the caller's own are as they were
