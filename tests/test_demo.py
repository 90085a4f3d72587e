"""``demo/demo.py``: its inputs, its outputs and its errors."""

import argparse
import gc
import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import tiny_run
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import Metadata
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from PIL import Image

from nl_detectron.commands import demo
from nl_detectron.config import load_config
from nl_detectron.data import inputs
from nl_detectron.data.detection_utils import read_image
from nl_detectron.data.inputs import list_images, number_images
from nl_detectron.engine.predictor import Predictor
from nl_detectron.utils.errors import UserError
from nl_detectron.visualization import draw_instances
from nl_detectron.visualization.detections import enlarge, without_foreign_keypoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    tiny_run.write_run(folder, heads=True)
    torch.manual_seed(3)
    DetectionCheckpointer(build_model(load_config(folder / "tiny.yaml")), str(folder)).save("w")
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run the demo's main with arguments, in this process."""

    def run_main(*arguments: object) -> None:
        line = ["demo.py", "--config-file", folder / "tiny.yaml", *arguments]
        line += ["--confidence-threshold", 0, "--opts", "MODEL.WEIGHTS", folder / "w.pth"]
        monkeypatch.setattr("sys.argv", list(map(str, line)))
        monkeypatch.setattr(demo, "has_screen", lambda: False)
        demo.main()

    return run_main


def test_good_files_are_drawn_and_bad_ones_named(
    run: Callable[..., None], folder: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in (1, 2, 3):
        source = folder / "images" / f"{number:03}.png"
        (images / f"{number:012}.png").write_bytes(source.read_bytes())
    whole = (folder / "images" / "004.png").read_bytes()
    (images / "000000000004.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no image")
    arguments = ("--json", tmp_path / "found.json", "--batch-size", 2)
    with pytest.raises(UserError) as error:
        run("--input", images, tmp_path / "note*.txt", "--output", tmp_path / "drawn", *arguments)
    assert all(name in str(error.value) for name in ("000000000004.png", "notes.txt"))
    drawn = sorted((tmp_path / "drawn").iterdir())
    assert [path.name for path in drawn] == [f"{n:012}.png" for n in (1, 2, 3)]
    image = cv2.imread(str(drawn[0]))
    assert image.shape == (512, 512, 3)  # a small image is enlarged before it is drawn on
    original = cv2.imread(str(images / "000000000001.png"))
    enlarged = cv2.resize(original, (512, 512), interpolation=cv2.INTER_CUBIC)
    assert np.abs(image.astype(int) - enlarged).mean() > 2
    first, *rest = json.loads((tmp_path / "found.json").read_text())
    files = {result["file_name"] for result in (first, *rest)}
    assert files == {str(images / path.name) for path in drawn}
    assert {"image_id", "category_id", "bbox", "score", "segmentation", "keypoints"} <= first.keys()


# Images that are none, and images that are unusual

COLOURS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
IMAGE = Image.fromarray(COLOURS)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


BOMB = b"".join(
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(9))),
        (b"IEND", b""),
    )
)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(IMAGE, "JPEG", exif=exif)


JPEG, PNG = encoded(IMAGE, "JPEG"), encoded(IMAGE, "PNG")
DEEP = Image.fromarray(np.arange(32 * 48, dtype=np.uint16).reshape(32, 48) * 40)
NO_IMAGES: dict[str, tuple[str, bytes | Callable[[Path], object]]] = {
    "zero.jpg": ("a file of zero bytes", b""),
    "half.jpg": ("half a JPEG", JPEG[: len(JPEG) // 2]),
    "page.png": ("a web page", b"<html>404</html>"),
    "bomb.png": ("a PNG that unfolds to 10^10 pixels", b"\x89PNG\r\n\x1a\n" + BOMB),
    "deep.png": ("an image of 16 bits a channel", encoded(DEEP, "PNG")),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_named(tmp_path: Path, name: str) -> None:
    _what, content = NO_IMAGES[name]
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        content(file)
    with pytest.raises(UserError) as error:
        read_image(file)
    said = str(error.value)
    assert said.startswith(f"{file}: ")
    assert "\n" not in said


IMAGES = {
    "one.png": ("an image of one pixel", encoded(Image.new("RGB", (1, 1)), "PNG"), (1, 1)),
    "grey.png": ("a grey image", encoded(IMAGE.convert("L"), "PNG"), (32, 48)),
    "alpha.png": ("an image with transparency", encoded(IMAGE.convert("RGBA"), "PNG"), (32, 48)),
    "cmyk.jpg": ("a JPEG in CMYK", encoded(IMAGE.convert("CMYK"), "JPEG"), (32, 48)),
    "turned.jpg": ("a JPEG turned by EXIF", turned(), (48, 32)),
    "moving.gif": (
        "an animated GIF",
        encoded(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(180)]),
        (32, 48),
    ),
    "wrong_name.jpg": ("a PNG named .jpg", PNG, (32, 48)),
    "bytes_after.jpg": ("a JPEG with bytes after its end", JPEG + bytes(99), (32, 48)),
}


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor(folder / "tiny.yaml", weights=folder / "w.pth", confidence_threshold=0)


@pytest.mark.parametrize("name", IMAGES)
def test_an_unusual_image_is_read_searched_and_drawn_on(
    predictor: Predictor, tmp_path: Path, name: str
) -> None:
    _what, content, size = IMAGES[name]
    file = tmp_path / name
    file.write_bytes(content)
    image = read_image(file)
    assert (image.shape, image.dtype) == ((*size, 3), np.uint8)
    if name not in ("one.png", "grey.png"):
        colours = np.rot90(COLOURS, -1) if name == "turned.jpg" else COLOURS
        assert np.corrcoef(image[:, :, ::-1].ravel(), colours.ravel())[0, 1] > 0.4
    from_file, from_array = predictor([file, image])
    assert from_file.image_size == size
    assert torch.equal(from_file.pred_boxes.tensor, from_array.pred_boxes.tensor)
    drawn = draw_instances(image[..., ::-1], from_file, predictor.metadata)
    assert drawn.shape[0] * size[1] == pytest.approx(drawn.shape[1] * size[0], rel=0.01)


def test_inputs_are_not_drawn_over(run: Callable[..., None], folder: Path, tmp_path: Path) -> None:
    before = (folder / "images" / "000.png").read_bytes()
    (tmp_path / "a.png").write_bytes(before)
    with pytest.raises(UserError, match=r"a\.png"):
        run("--input", tmp_path, "--output", tmp_path)
    assert (tmp_path / "a.png").read_bytes() == before


def test_every_frame_of_a_video_is_written(
    run: Callable[..., None], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.avi", tmp_path / "out.mp4"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for number in range(7):
        writer.write(cv2.imread(str(folder / "images" / f"{number:03}.png")))
    writer.release()
    arguments = ("--batch-size", 3, "--json", tmp_path / "frames.json")
    run("--video-input", source, "--output", target, *arguments)
    video = cv2.VideoCapture(str(target))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    shapes = []
    while (frame := video.read())[0]:
        shapes.append(frame[1].shape)
    assert shapes == [(512, 512, 3)] * 7
    results = json.loads((tmp_path / "frames.json").read_text())
    assert {result["image_id"] for result in results} == set(range(7))
    real = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: real(str(source)))
    run("--webcam", "--output", tmp_path)
    monkeypatch.undo()
    assert cv2.VideoCapture(str(tmp_path / "webcam.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 7
    content = source.read_bytes()
    (tmp_path / "cut.avi").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(UserError, match=r"cut\.avi"):
        run("--video-input", tmp_path / "cut.avi", "--output", tmp_path / "cut.mp4")
    assert cv2.VideoCapture(str(tmp_path / "cut.mp4")).read()[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--input", "{}/images"), "--output"),
        (("--webcam",), "--output"),
        (("--input", "{}/no*.png", "--output", "{}/o"), "no*.png"),
        (("--video-input", "{}/no.mp4", "--output", "{}/o"), "no.mp4"),
        (("--video-input", "{}/tiny.json", "--output", "{}/o"), "tiny.json"),
    ],
)
def test_what_cannot_work_is_an_error(
    run: Callable[..., None], folder: Path, arguments: tuple[str, ...], named: str
) -> None:
    with pytest.raises(UserError, match=re.escape(named)):
        run(*(argument.format(folder) for argument in arguments))


def test_inputs_are_files_folders_patterns_and_data_sets(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = folder / "images"
    records = [{"file_name": str(files / "002.png")}, {"file_name": str(files / "005.png")}]
    monkeypatch.setattr(inputs, "DatasetCatalog", {"some_set": records})
    monkeypatch.setattr(inputs, "check_datasets", lambda names: None)

    def names(*inputs: str) -> list[str]:
        return [path.name for path in list_images(inputs)]

    assert names(str(files)) == [f"{n:03}.png" for n in range(8)]
    assert names(str(files / "00[67].png"), str(files / "001.png")) == [
        "006.png", "007.png", "001.png",
    ]  # fmt: skip
    assert names("some_set") == ["002.png", "005.png"]
    assert names("some_set:1") == ["002.png"]
    with pytest.raises(UserError, match="some_set:x"):
        names("some_set:x")
    assert names(str(files / "001.png"), str(files / "00[01].png")) == ["001.png", "000.png"]


def test_image_ids_are_those_of_data_sets_or_of_names() -> None:
    def numbers(*names: str, **known: int) -> list[int]:
        found = number_images({Path(name): known.get(Path(name).stem) for name in names})
        return [found[Path(name)] for name in names]

    assert numbers("0012.jpg", "7.jpg") == [12, 7]
    assert numbers("0012.jpg", "x.jpg") == [0, 1]
    assert numbers("a/1.jpg", "b/1.jpg") == [0, 1]
    assert numbers("p.jpg", "q.jpg", p=1000) == [1000, 1001]


def test_drawing_is_where_it_belongs_and_only_people_have_skeletons() -> None:
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
    large = enlarge(without_foreign_keypoints(found, metadata), 8)
    assert large.image_size == (480, 720)
    assert enlarge(found[[False, False]], 8).pred_masks.shape == (0, 480, 720)
    assert large.pred_boxes.tensor[0].tolist() == [80, 160, 240, 400]
    assert large.pred_masks[0].nonzero().amin(0).tolist() == [160, 80]
    assert large.pred_keypoints[:, 0].tolist() == [
        pytest.approx([120, 200, 0.9]),
        pytest.approx([480, 160, 0]),
    ]
    assert found.pred_keypoints[1, 0, 2] == pytest.approx(0.9)
    drawn = draw_instances(np.full((60, 90, 3), 128, np.uint8), found, metadata)
    changed = (drawn != 128).any(axis=2)
    assert changed[170:390, 90:230].mean() > 0.9
    assert changed[420:, :].mean() < 0.02


def test_many_images_leave_no_file_open(predictor: Predictor, tmp_path: Path) -> None:
    """Make every other file no image, since failures leak handles most easily."""
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(PNG[: len(PNG) // (1 + number % 2)])
    files = dict.fromkeys(sorted(tmp_path.iterdir()), 0)
    (drawn := tmp_path / "drawn").mkdir()
    targets = {file: drawn / file.name for file in files}
    arguments = argparse.Namespace(input=[], output=str(drawn), json=None, batch_size=2)
    process, found = psutil.Process(), []
    for _ in range(4):
        with pytest.raises(UserError, match=r"1\.png"):
            demo.detect_in_images(predictor, files, targets, arguments, False)
        gc.collect()
        found.append((process.num_fds(), process.memory_info().rss / 2**20))
    assert len(list(drawn.iterdir())) == 2
    open_files, memory = zip(*found[1:], strict=True)
    assert len(set(open_files)) == 1
    assert memory[-1] - memory[0] < 30
