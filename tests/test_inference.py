"""The Python API for predictions."""

import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import tiny_run
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import Metadata
from detectron2.data.detection_utils import _M_RGB2YUV, read_image
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.structures import Instances
from PIL import Image
from pycocotools.coco import COCO

from nl_detectron.config import load_config
from nl_detectron.engine.predictor import Predictor, network_input, to_coco_results
from nl_detectron.utils.errors import ConfigError, UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a config and a checkpoint of random weights, which predict something at least."""
    folder = tmp_path_factory.mktemp("inference")
    tiny_run.write_run(folder, heads=True)
    torch.manual_seed(3)
    cfg = load_config(folder / "tiny.yaml")
    DetectionCheckpointer(build_model(cfg), str(folder)).save("weights")
    return folder


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return Predictor(folder / "tiny.yaml", weights=folder / "weights.pth")


def assert_same(a: Instances, b: Instances, tolerance: float = 1e-4) -> None:
    assert a.image_size == b.image_size
    assert len(a) == len(b)
    assert len(a) > 0
    assert a.pred_classes.equal(b.pred_classes)
    for x, y in [
        (a.pred_boxes.tensor, b.pred_boxes.tensor),
        (a.scores, b.scores),
        (a.pred_keypoints, b.pred_keypoints),
    ]:
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)
    assert (a.pred_masks == b.pred_masks).float().mean() > 0.999


def test_a_batch_gives_what_single_images_give(folder: Path, predictor: Predictor) -> None:
    files = sorted((folder / "images").iterdir())[:3]
    images = [read_image(str(file), format="BGR") for file in files]
    # Another shape in between: it must neither be padded nor pad the others.
    mixed = [images[0], images[1][:40], files[1], images[2]]
    together = predictor(mixed, batch_size=8)
    apart = [predictor([image])[0] for image in mixed]
    assert [found.image_size for found in together] == [(64, 64), (40, 64), (64, 64), (64, 64)]
    for a, b in zip(together, apart, strict=True):
        assert_same(a, b)


def test_memory_follows_the_batch_size(
    folder: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are read as they are needed, not all of them before the first forward pass."""
    image = cv2.imread(str(folder / "images" / "000.png"))
    read, seen = 0, []

    def images() -> Iterator[np.ndarray]:
        nonlocal read
        for read in range(1, 8):
            yield image[: 64 - read % 2 * 8]

    run = predictor._run
    monkeypatch.setattr(predictor, "_run", lambda batch: seen.append(read) or run(batch))
    found = predictor(images(), batch_size=3)
    assert sorted(set(seen)) == [3, 6, 7]
    assert [f.image_size[0] for f in found] == [56, 64, 56, 64, 56, 64, 56]


def test_it_agrees_with_detectron2s_predictor(folder: Path, predictor: Predictor) -> None:
    image = cv2.imread(str(folder / "images" / "000.png"))
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
def test_an_image_of_any_kind_has_the_channels_of_the_config(
    folder: Path, channels: str, tmp_path: Path
) -> None:
    opts = ["INPUT.FORMAT", channels]
    if channels == "L":
        opts += ["MODEL.PIXEL_MEAN", "[110.0]", "MODEL.PIXEL_STD", "[60.0]"]
    cfg = load_config(folder / "tiny.yaml", opts)
    bgr = cv2.imread(str(folder / "images" / "000.png"))
    bgr[:, :, 0] //= 2
    cv2.imwrite(str(tmp_path / "coloured.png"), bgr)
    rgb = np.ascontiguousarray(bgr[..., ::-1])
    kinds = (
        tmp_path / "coloured.png",
        str(tmp_path / "coloured.png"),
        bgr,
        Image.fromarray(rgb),
        torch.from_numpy(rgb).permute(2, 0, 1),
    )
    expected = FORMATS[channels](bgr).astype(np.float32).transpose(2, 0, 1)
    for kind in kinds:
        found = network_input(cfg, kind)["image"]
        torch.testing.assert_close(found, torch.from_numpy(expected), atol=1.01, rtol=0)
    if channels == "L":
        model = build_model(cfg).eval()
        DetectionCheckpointer(model, str(tmp_path)).save("grey")
        predict = Predictor(cfg, weights=tmp_path / "grey.pth")
        assert len(predict(bgr)) == len(predict(kinds[0])) > 0


@pytest.mark.parametrize(
    "opts",
    [
        ["INPUT.FORMAT", "BRG"],
        ["INPUT.FORMAT", "F"],
        ["INPUT.FORMAT", "CMYK"],
        ["INPUT.FORMAT", "L"],
        ["MODEL.PIXEL_MEAN", "[1.0]"],
    ],
)
def test_channels_that_cannot_be_name_the_key(folder: Path, opts: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"INPUT\.FORMAT"):
        load_config(folder / "tiny.yaml", opts)


def test_one_image_gives_one_result(folder: Path, predictor: Predictor) -> None:
    file = folder / "images" / "000.png"
    bgr = cv2.imread(str(file))
    tensor = torch.from_numpy(bgr[..., ::-1].copy()).permute(2, 0, 1)
    for image in (file, str(file), bgr, Image.open(file), tensor):
        assert isinstance(predictor(image), Instances)
    for images in (np.stack([bgr, bgr]), torch.stack([tensor, tensor]), iter([file, bgr])):
        assert len(predictor(images)) == 2


def test_deep_images_are_refused(predictor: Predictor) -> None:
    deep = np.full((64, 64), 3000, np.uint16)
    with pytest.raises(UserError):
        predictor(Image.fromarray(deep))
    with pytest.raises(ValueError, match="uint8"):
        predictor(np.stack([deep] * 3, axis=2))


def test_half_precision_is_close(folder: Path, predictor: Predictor) -> None:
    half = Predictor(folder / "tiny.yaml", weights=folder / "weights.pth", half=True)
    image = folder / "images" / "000.png"
    exact, rough = predictor([image])[0], half([image])[0]
    assert len(rough) > 0
    assert rough.scores.max() == pytest.approx(exact.scores.max().item(), abs=0.05)
    assert not torch.equal(rough.scores, exact.scores)
    assert rough.pred_boxes.tensor.isfinite().all()


def test_predicting_starts_no_process_and_handles_no_signal(folder: Path) -> None:
    def state() -> tuple[set[int], list[object]]:
        return (
            {child.pid for child in psutil.Process().children()},
            [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        )

    before = state()
    predict = Predictor(folder / "tiny.yaml", weights=folder / "weights.pth")
    predict(folder / "images" / "001.png")
    assert state() == before


def test_what_cannot_work_is_an_error(folder: Path, predictor: Predictor) -> None:
    assert predictor([]) == []
    with pytest.raises(ValueError, match="opts"):
        Predictor(predictor.cfg, opts=["A", "1"])
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS"):
        Predictor(folder / "tiny.yaml")
    with pytest.raises(UserError, match=r"no\.pth"):
        Predictor(folder / "tiny.yaml", weights=folder / "no.pth")
    for wrong in (np.zeros((64, 64), np.uint8), torch.zeros(64, 64, 3, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            predictor([wrong])
    with pytest.raises(ValueError, match="batch_size"):
        predictor([], batch_size=0)


def test_coco_results_load_and_have_the_data_sets_categories(
    folder: Path, predictor: Predictor
) -> None:
    (found,) = predictor([folder / "images" / "000.png"])
    results = to_coco_results(found, 0, Metadata(thing_dataset_id_to_contiguous_id={1: 0, 2: 1}))
    assert [r["category_id"] for r in results] == (found.pred_classes + 1).tolist()
    x0, y0, x1, y1 = found.pred_boxes.tensor[0].tolist()
    assert results[0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0])
    loaded = COCO(folder / "tiny.json").loadRes(results)
    assert len(loaded.anns) == len(found)
    assert {"segmentation", "keypoints", "score"} <= loaded.anns[1].keys()
    assert to_coco_results(found, 0)[0]["category_id"] == found.pred_classes[0]
