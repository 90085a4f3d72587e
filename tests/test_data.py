"""The embedded data set: its making, its files and its registration."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from pycocotools.coco import COCO

from nl_detectron.data import cache_root, make_shapes, register_generated
from nl_detectron.data.datasets.synthetic import coco
from nl_detectron.data.datasets.synthetic.canvas import SCALE
from nl_detectron.data.datasets.synthetic.shapes import CLASSES
from nl_detectron.utils.errors import UserError

SIZE = {"num_train": 14, "num_val": 4}
PERSON = 1


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes"), **SIZE, progress=False)


@pytest.fixture(scope="module")
def train(folder):
    return COCO(coco.annotation_file(folder, "train"))


@pytest.fixture
def registered(folder):
    """Register both splits under names of this test's own; return the name of ``train``."""
    names = [f"small_shapes_{split}" for split in ("train", "val")]
    for name, split in zip(names, ("train", "val"), strict=True):
        register_generated(name, split, CLASSES, lambda: folder)
    yield names[0]
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_same_seed_same_bytes_other_seed_other_images(folder, tmp_path):
    again = make_shapes(tmp_path, **SIZE, progress=False)
    other = make_shapes(tmp_path, **SIZE, seed=1, progress=False)
    assert again.name == folder.name != other.name
    assert contents(again) == contents(folder)
    first = "train/000001.jpg"
    assert contents(other)[first] != contents(folder)[first] != contents(folder)["val/000001.jpg"]


def test_a_image_depends_on_its_index_only(folder, tmp_path):
    fewer = make_shapes(tmp_path, num_train=2, num_val=0, progress=False)
    assert fewer.name != folder.name
    for name in ("train/000001.jpg", "train/000002.jpg"):
        assert contents(fewer)[name] == contents(folder)[name]


def test_made_once(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert make_shapes(folder.parent, **SIZE, progress=False) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_files_are_coco(folder, train):
    assert [c["name"] for c in train.loadCats(train.getCatIds())] == list(CLASSES)
    person = train.loadCats(PERSON)[0]
    assert len(person["keypoints"]) == 17
    assert np.array(person["skeleton"]).max() <= 17
    assert len(train.imgs) == SIZE["num_train"]
    assert {a["category_id"] for a in train.anns.values()} == set(train.cats)
    sizes = set()
    for record in train.imgs.values():
        with Image.open(coco.image_folder(folder, "train") / record["file_name"]) as image:
            assert image.size == (record["width"], record["height"])
            sizes.add(image.size)
    assert any(w != h for w, h in sizes)


def test_crowd_is_a_region_of_people(train):
    crowds = [a for a in train.anns.values() if a["iscrowd"]]
    assert crowds
    for a in crowds:
        assert a["category_id"] == PERSON
        mask = train.annToMask(a)
        assert mask.sum() == a["area"] > 0
        assert a["bbox"] == tight_box(mask)
        assert a["num_keypoints"] == 0
        assert any(not b["iscrowd"] for b in train.imgToAnns[a["image_id"]]), (
            "an image without any object would be dropped from training"
        )


def tight_box(mask):
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]


def test_box_area_and_mask_agree(train):
    for a in train.anns.values():
        if a["iscrowd"]:
            continue
        mask = train.annToMask(a)
        assert mask.sum() == a["area"]
        x, y, w, h = a["bbox"]
        tight_x, tight_y, tight_w, tight_h = tight_box(mask)
        difference = np.subtract(
            [x, y, x + w, y + h], [tight_x, tight_y, tight_x + tight_w, tight_y + tight_h]
        )
        assert np.abs(difference).max() <= 1  # a box follows the edge within the pixel
        image = train.imgs[a["image_id"]]
        assert 0 <= x < x + w <= image["width"]
        assert 0 <= y < y + h <= image["height"]


def test_hidden_parts_are_not_in_the_mask(train):
    pieces = 0
    for image_id in train.imgs:
        masks = [train.annToMask(a) for a in train.imgToAnns[image_id]]
        total = np.sum(masks, axis=0)
        # Two masks can share no more than the pixels that their common border runs through.
        assert (total > 1).sum() <= 0.03 * (total > 0).sum()
        pieces += sum(
            len(a["segmentation"]) > 1 for a in train.imgToAnns[image_id] if not a["iscrowd"]
        )
    assert pieces, "nothing is cut in two by what stands before it"


def test_keypoints_agree_with_masks(train):
    seen = set()
    for a in train.anns.values():
        k = np.array(a["keypoints"]).reshape(17, 3)
        assert a["num_keypoints"] == np.count_nonzero(k[:, 2])
        assert not k[k[:, 2] == 0].any()
        if a["category_id"] != PERSON or a["iscrowd"]:
            assert not k.any()
            continue
        seen |= set(k[:, 2])
        near = np.pad(train.annToMask(a), 1)
        for x, y, v in k:
            around = near[y : y + 3, x : x + 3]
            # On the border of an occluder the pixel itself can belong to the other object.
            assert v != 2 or around.any()
            assert v != 1 or not around.all()
    assert seen == {0, 1, 2}


def test_visibility_of_keypoints():
    visible = np.zeros((20 * SCALE, 30 * SCALE), bool)
    visible[:, : 15 * SCALE] = True
    points = np.full((17, 2), np.nan)
    points[:5] = (3.7, 4.2), (20.0, 4.9), (-0.1, 4.0), (4.0, 20.0), (14.9, 19.9)
    annotation = coco.instance(PERSON, visible, points)
    triplets = np.array(annotation["keypoints"]).reshape(17, 3).tolist()
    assert triplets[:5] == [[3, 4, 2], [20, 4, 1], [0, 0, 0], [0, 0, 0], [14, 19, 2]]
    assert triplets[5:] == [[0, 0, 0]] * 12
    assert annotation["num_keypoints"] == 3


def test_polygons_keep_holes_and_drop_fragments():
    y, x = (np.mgrid[: 40 * SCALE, : 50 * SCALE] + 0.5) / SCALE
    ring = np.hypot(x - 20, y - 20)
    mask = (ring < 15) & (ring > 6)
    speck = (abs(x - 45) < 0.5) & (abs(y - 5) < 0.5)
    bar = abs(x - 45) + abs(y - 30) < 4
    annotation = coco.instance(2, mask | speck | bar)
    assert len(annotation["segmentation"]) == 2
    dataset = COCO()
    dataset.imgs = {1: {"height": 40, "width": 50}}
    decoded = dataset.annToMask(annotation | {"image_id": 1})
    covered = (mask | bar).reshape(40, SCALE, 50, SCALE).mean(axis=(1, 3))
    wrong = decoded != (covered >= 0.5)
    assert wrong.sum() <= 0.02 * decoded.sum()
    assert np.abs(covered[wrong] - 0.5).max() < 0.2  # none but those that are cut in half
    assert decoded[20, 20] == 0
    assert decoded[20, 10] == 1


def test_invisible_object_is_refused():
    with pytest.raises(ValueError, match="not visible"):
        coco.instance(1, np.zeros((40, 40), bool))


def perfect_outputs(api: COCO):
    """Yield, for each image, what a model without any error would say."""
    for image_id, image in api.imgs.items():
        annotations = [a for a in api.imgToAnns[image_id] if not a["iscrowd"]]
        boxes = [
            BoxMode.convert(a["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) for a in annotations
        ]
        keypoints = torch.tensor([a["keypoints"] for a in annotations], dtype=torch.float32)
        keypoints = keypoints.reshape(-1, 17, 3)
        keypoints[..., :2] += 0.5  # models speak of points, the files of pixels
        instances = Instances((image["height"], image["width"]))
        instances.pred_boxes = Boxes(torch.tensor(boxes))
        instances.scores = torch.ones(len(annotations))
        instances.pred_classes = torch.tensor([a["category_id"] - 1 for a in annotations])
        instances.pred_masks = torch.tensor(np.array([api.annToMask(a) for a in annotations]))
        instances.pred_keypoints = keypoints
        yield {"image_id": image_id}, {"instances": instances}


@pytest.mark.filterwarnings("ignore")
def test_perfect_predictions_score_100(registered, train):
    evaluator = COCOEvaluator(registered, distributed=False)
    evaluator.reset()
    for image, output in perfect_outputs(train):
        evaluator.process([image], [output])
    results = evaluator.evaluate()
    assert set(results) == {"bbox", "segm", "keypoints"}
    for task, scores in results.items():
        assert scores["AP"] == pytest.approx(100), task
    for name in CLASSES:
        assert results["segm"][f"AP-{name}"] == pytest.approx(100)


@pytest.mark.filterwarnings("ignore")
def test_side_swapped_keypoints_do_not_score_100(registered, train):
    flip = create_keypoint_hflip_indices([registered])
    evaluator = COCOEvaluator(registered, distributed=False)
    evaluator.reset()
    for image, output in perfect_outputs(train):
        output["instances"].pred_keypoints = output["instances"].pred_keypoints[:, flip]
        evaluator.process([image], [output])
    assert evaluator.evaluate()["keypoints"]["AP"] < 10


@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_mapper_flips_left_and_right(registered, mask_format):
    def load(augmentations):
        mapper = DatasetMapper(
            is_train=True,
            augmentations=augmentations,
            image_format="BGR",
            use_instance_mask=True,
            use_keypoint=True,
            instance_mask_format=mask_format,
            keypoint_hflip_indices=create_keypoint_hflip_indices([registered]),
        )
        return [mapper(d) for d in DatasetCatalog.get(registered)]

    names = MetadataCatalog.get(registered).keypoint_names
    left, right = names.index("left_wrist"), names.index("right_wrist")
    compared = 0
    for plain, flipped in zip(load([]), load([T.RandomFlip(prob=1.0)]), strict=True):
        assert torch.equal(plain["image"].flip(2), flipped["image"])
        width = plain["image"].shape[2]
        before = plain["instances"].gt_keypoints.tensor
        after = flipped["instances"].gt_keypoints.tensor
        labelled = before[:, left, 2] > 0
        compared += int(labelled.sum())
        assert torch.equal(width - before[labelled, left, 0], after[labelled, right, 0])
        assert torch.equal(before[labelled, left, 1:], after[labelled, right, 1:])
        assert len(plain["instances"].gt_masks) == len(before)
    assert compared > 10


def test_no_image_at_import_and_registration_twice(tmp_path):
    code = (
        "import nl_detectron.data as data\n"
        "data.register_all(); data.register_all()\n"
        "from detectron2.data import MetadataCatalog\n"
        "print(MetadataCatalog.get('nl_shapes_val').thing_classes[0])\n"
    )
    cache = tmp_path / "cache"
    done = run(code, NL_DETECTRON_CACHE=str(cache))
    assert done.communicate()[0].split() == ["person"]
    assert done.returncode == 0
    assert not cache.exists()


def run(code: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment | {"PYTHONWARNINGS": "ignore"},
    )


def test_two_processes_at_once(folder, tmp_path):
    code = (
        "from pathlib import Path\n"
        "from nl_detectron.data import make_shapes\n"
        f"print(make_shapes(Path({str(tmp_path)!r}), **{SIZE!r}))\n"
    )
    processes = [run(code), run(code)]
    outputs = [p.communicate()[0].strip() for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
    assert outputs == [str(tmp_path / folder.name)] * 2
    assert os.listdir(tmp_path) == [folder.name]
    assert contents(tmp_path / folder.name) == contents(folder)


def blank(split, index):
    return coco.AnnotatedImage(np.zeros((8, 8, 3), np.uint8), [])


def write(folder, draw, count=2, **options):
    coco.write(folder, ["person"], {"train": count}, draw, description="blank", **options)


def test_the_first_to_finish_wins(tmp_path):
    def overtaken(split, index):
        if index == 1:
            write(tmp_path / "data", blank, count=1, progress=False)
        return blank(split, index)

    write(tmp_path / "data", overtaken, progress=False)
    assert os.listdir(tmp_path) == ["data"]
    assert os.listdir(tmp_path / "data" / "train") == ["000001.jpg"]


def test_nothing_is_left_of_an_interrupted_run(tmp_path):
    def interrupted(split, index):
        if index == 1:
            raise KeyboardInterrupt
        return blank(split, index)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "data", interrupted, progress=False)
    assert os.listdir(tmp_path) == []


def test_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        write(tmp_path / "file" / "data", blank)
    message = str(caught.value)
    assert str(tmp_path / "file" / "data") in message
    assert "NL_DETECTRON_CACHE" in message
    assert "\n" not in message


def test_progress_bar(tmp_path, capsys):
    write(tmp_path / "loud", blank)
    shown = capsys.readouterr().err
    assert "blank" in shown
    assert "2/2" in shown
    write(tmp_path / "quiet", blank, progress=False)
    assert capsys.readouterr().err == ""


def test_cache_root(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NL_DETECTRON_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == tmp_path / "home" / ".cache" / "nl_detectron"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "nl_detectron"
    monkeypatch.setenv("NL_DETECTRON_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"


def test_metadata_names_the_files(registered, folder):
    metadata = MetadataCatalog.get(registered)
    assert metadata.evaluator_type == "coco"
    assert json.loads(Path(metadata.json_file).read_text())["info"]["description"] == "nl_shapes"
    assert Path(metadata.image_root) == folder / "train"
    assert len(metadata.keypoint_names) == 17
