"""The Python API for predictions."""

import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import torch
from detectron2.data import Metadata
from detectron2.data.detection_utils import _M_RGB2YUV
from detectron2.engine import DefaultPredictor
from detectron2.structures import Instances
from PIL import ExifTags, Image, ImageOps
from pycocotools.coco import COCO

from nl_detectron.config import load_config
from nl_detectron.data.detection_utils import read_image
from nl_detectron.engine.predictor import Predictor, network_input, to_coco_results
from nl_detectron.utils.errors import UserError


@pytest.fixture(scope="module")
def predictor(tiny_detector: Path) -> Predictor:
    return Predictor(tiny_detector / "tiny.yaml", weights=tiny_detector / "weights.pth")


def assert_same(a: Instances, b: Instances) -> None:
    assert a.image_size == b.image_size
    assert len(a) == len(b)
    assert len(a) > 0
    assert a.pred_classes.equal(b.pred_classes)
    for x, y in [
        (a.pred_boxes.tensor, b.pred_boxes.tensor),
        (a.scores, b.scores),
        (a.pred_keypoints, b.pred_keypoints),
    ]:
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)
    assert (a.pred_masks == b.pred_masks).float().mean() > 0.999


def test_batch_equals_single_images(tiny_detector: Path, predictor: Predictor) -> None:
    files = sorted((tiny_detector / "images").iterdir())[:3]
    images = [read_image(file) for file in files]
    # Another shape in between: it must neither be padded nor pad the others.
    mixed = [images[0], images[1][:40], files[1], images[2]]
    together = predictor(mixed, batch_size=8)
    apart = [predictor([image])[0] for image in mixed]
    assert [found.image_size for found in together] == [(64, 64), (40, 64), (64, 64), (64, 64)]
    for a, b in zip(together, apart, strict=True):
        assert_same(a, b)


def test_memory_follows_the_batch_size(tiny_detector: Path, predictor: Predictor) -> None:
    """Images are read as they are needed, not all of them before the first forward pass."""
    files = sorted((tiny_detector / "images").iterdir())
    unread = iter(files)
    next(predictor.stream(unread, batch_size=3))
    assert list(unread) == files[3:]


def test_it_agrees_with_detectron2s_predictor(tiny_detector: Path, predictor: Predictor) -> None:
    image = cv2.imread(str(tiny_detector / "images" / "000.png"))
    large = cv2.resize(image, (100, 80))
    theirs = DefaultPredictor(predictor.cfg)(large)["instances"]
    assert_same(predictor([large])[0], theirs)


FORMATS = {
    "RGB": lambda bgr: bgr[..., ::-1],
    "BGR": lambda bgr: bgr,
    "L": lambda bgr: cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)[..., None],
    "HSV": lambda bgr: np.asarray(Image.fromarray(bgr[..., ::-1].copy()).convert("HSV")),
    "YUV-BT.601": lambda bgr: bgr[..., ::-1] / 255 @ np.array(_M_RGB2YUV).T,
}


@pytest.mark.parametrize("channels", FORMATS)
def test_image_types_are_converted_to_config_format(
    tiny_detector: Path, channels: str, tmp_path: Path
) -> None:
    cfg = load_config(tiny_detector / "tiny.yaml")
    cfg.INPUT.FORMAT = channels
    bgr = cv2.imread(str(tiny_detector / "images" / "000.png"))
    bgr[:, :, 0] //= 2
    cv2.imwrite(str(tmp_path / "colored.png"), bgr)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    kinds = (tmp_path / "colored.png", bgr, Image.fromarray(rgb), tensor)
    expected = FORMATS[channels](bgr).astype(np.float32).transpose(2, 0, 1)
    for kind in kinds:
        found = network_input(cfg, kind)["image"]
        torch.testing.assert_close(found, torch.from_numpy(expected), atol=1.01, rtol=0)


COLORS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))
TURNED = COLORS.copy()
TURNED.getexif()[ExifTags.Base.Orientation] = 6


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("one.png", Image.new("RGB", (1, 1))),
        ("gray.png", COLORS.convert("L")),
        ("alpha.png", COLORS.convert("RGBA")),
        ("cmyk.jpg", COLORS.convert("CMYK")),
        ("moving.gif", COLORS.convert("P")),
        ("turned.png", TURNED),
    ],
)
def test_an_unusual_image_is_read(
    predictor: Predictor, tmp_path: Path, name: str, image: Image.Image
) -> None:
    image.save(tmp_path / name, exif=image.getexif())
    with Image.open(tmp_path / name) as written:
        expected = np.asarray(ImageOps.exif_transpose(written).convert("RGB"))[..., ::-1]
    assert np.array_equal(read_image(tmp_path / name), expected)
    assert predictor(tmp_path / name).image_size == expected.shape[:2]


# A PNG that unfolds to 10^10 pixels.
BOMB = b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 10**5, 10**5, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(9))),
        (b"IEND", b""),
    )
)


@pytest.mark.parametrize(
    "make", [lambda path: path.write_bytes(BOMB), lambda path: path.write_text("<html>")]
)
def test_invalid_image_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a.png")
    with pytest.raises(UserError) as error:
        read_image(tmp_path / "a.png")
    said = str(error.value)
    assert said.startswith(f"{tmp_path / 'a.png'}: ")
    assert "\n" not in said


def test_one_image_gives_one_result(tiny_detector: Path, predictor: Predictor) -> None:
    file = tiny_detector / "images" / "000.png"
    bgr = cv2.imread(str(file))
    tensor = torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)
    for image in (file, str(file), bgr, Image.open(file), tensor):
        assert isinstance(predictor(image), Instances)
    for images in (np.stack([bgr, bgr]), torch.stack([tensor, tensor]), iter([file, bgr])):
        assert len(predictor(images)) == 2


def test_half_precision_is_close(tiny_detector: Path, predictor: Predictor) -> None:
    half = Predictor(tiny_detector / "tiny.yaml", weights=tiny_detector / "weights.pth", half=True)
    image = tiny_detector / "images" / "000.png"
    exact, rough = predictor([image])[0], half([image])[0]
    assert len(rough) > 0
    assert rough.scores.max() == pytest.approx(exact.scores.max().item(), abs=0.05)
    assert not torch.equal(rough.scores, exact.scores)
    assert rough.pred_boxes.tensor.isfinite().all()


def test_predicting_starts_no_process_and_handles_no_signal(tiny_detector: Path) -> None:
    def state() -> tuple[set[int], list[object]]:
        return (
            {child.pid for child in psutil.Process().children()},
            [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        )

    before = state()
    predict = Predictor(tiny_detector / "tiny.yaml", weights=tiny_detector / "weights.pth")
    predict(tiny_detector / "images" / "001.png")
    assert state() == before


def test_invalid_inputs_are_refused(tiny_detector: Path, predictor: Predictor) -> None:
    assert predictor([]) == []
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS"):
        Predictor(tiny_detector / "tiny.yaml")
    with pytest.raises(UserError, match=r"no\.pth"):
        Predictor(tiny_detector / "tiny.yaml", weights=tiny_detector / "no.pth")
    deep = np.full((64, 64, 3), 3000, np.uint16)
    for wrong in (deep, deep[..., 0].astype(np.uint8), torch.zeros(64, 64, 3).byte()):
        with pytest.raises(ValueError, match="uint8"):
            predictor([wrong])
    with pytest.raises(ValueError, match="batch_size"):
        predictor([], batch_size=0)


def test_coco_results_use_dataset_category_ids(tiny_detector: Path, predictor: Predictor) -> None:
    (found,) = predictor([tiny_detector / "images" / "000.png"])
    results = to_coco_results(found, 0, Metadata(thing_dataset_id_to_contiguous_id={1: 0, 2: 1}))
    assert [r["category_id"] for r in results] == (found.pred_classes + 1).tolist()
    x0, y0, x1, y1 = found.pred_boxes.tensor[0].tolist()
    assert results[0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0])
    loaded = COCO(tiny_detector / "tiny.json").loadRes(results)
    assert len(loaded.anns) == len(found)
    assert {"segmentation", "keypoints", "score"} <= loaded.anns[1].keys()
    keypoints = found.pred_keypoints.clone()
    assert to_coco_results(found, 0)[0]["category_id"] == found.pred_classes[0]
    assert torch.equal(found.pred_keypoints, keypoints)
