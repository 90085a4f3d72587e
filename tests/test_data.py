"""The embedded dataset: its making, its files and its registration."""

import os

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.structures import BoxMode
from pycocotools.coco import COCO

from nl_detectron.data import cache_root, make_clips, make_shapes
from nl_detectron.data.datasets.synthetic import canvas, coco, landscape, things
from nl_detectron.data.datasets.synthetic.generated import atomic_folder
from nl_detectron.data.datasets.synthetic.people import KEYPOINT_NAMES, person
from nl_detectron.data.datasets.synthetic.shapes import CLASSES
from nl_detectron.data.validation import check_file
from nl_detectron.utils.errors import UserError

SIZE = {"num_train": 14, "num_val": 4}
PERSON = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_shapes(tmp_path_factory.mktemp("shapes"), **SIZE, progress=False)


@pytest.fixture(scope="module")
def train(folder):
    return COCO(coco.annotation_file(folder, "train"))


@pytest.mark.parametrize(("make", "suffix"), [(make_shapes, ".jpg"), (make_clips, ".mp4")])
def test_items_are_determined_by_seed_split_and_index(tmp_path, make, suffix):
    few, more, other = (
        make(tmp_path, num_train=count, num_val=1, seed=seed, progress=False)
        for count, seed in ((1, 0), (2, 0), (1, 1))
    )

    def item(folder, split):
        return (folder / split / f"000001{suffix}").read_bytes()

    assert len({few, more, other}) == 3
    assert item(few, "train") == item(more, "train")
    assert len({item(few, "train"), item(other, "train"), item(few, "val")}) == 3


def test_files_are_coco(folder, train):
    assert [c["name"] for c in train.loadCats(train.getCatIds())] == list(CLASSES)
    person = train.loadCats(PERSON)[0]
    assert len(person["keypoints"]) == 17
    assert np.array(person["skeleton"]).max() <= 17
    assert len(train.imgs) == SIZE["num_train"]
    assert {a["category_id"] for a in train.anns.values()} == set(train.cats)
    assert any(image["width"] != image["height"] for image in train.imgs.values())
    assert check_file(coco.annotation_file(folder, "train"), folder / "train").problems == {}


def test_box_area_and_mask_agree(train):
    crowds = 0
    for a in train.anns.values():
        rle = train.annToRLE(a)
        assert mask_util.area(rle) == a["area"] > 0
        boxes = np.array([a["bbox"], mask_util.toBbox(rle)])
        box, tight = BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
        # The box of an object follows the edge within the pixel.
        assert np.abs(box - tight).max() <= (0 if a["iscrowd"] else 1)
        if a["iscrowd"]:
            crowds += 1
            assert a["category_id"] == PERSON
            # An image without any object would be dropped from training.
            assert any(not b["iscrowd"] for b in train.imgToAnns[a["image_id"]])
    assert crowds


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


def test_polygons_keep_holes_and_drop_fragments():
    y, x = (np.mgrid[: 40 * canvas.SCALE, : 50 * canvas.SCALE] + 0.5) / canvas.SCALE
    ring = np.hypot(x - 20, y - 20)
    mask = (ring < 15) & (ring > 6)
    speck = (abs(x - 45) < 0.5) & (abs(y - 5) < 0.5)
    bar = abs(x - 45) + abs(y - 30) < 4
    annotation = coco.instance(2, mask | speck | bar)
    assert len(annotation["segmentation"]) == 2
    dataset = COCO()
    dataset.imgs = {1: {"height": 40, "width": 50}}
    decoded = dataset.annToMask(annotation | {"image_id": 1})
    covered = (mask | bar).reshape(40, canvas.SCALE, 50, canvas.SCALE).mean(axis=(1, 3))
    wrong = decoded != (covered >= 0.5)
    assert wrong.sum() <= 0.02 * decoded.sum()
    assert np.abs(covered[wrong] - 0.5).max() < 0.2  # none but those that are cut in half
    assert decoded[20, 20] == 0
    assert decoded[20, 10] == 1


def test_concurrent_write_keeps_first_result(tmp_path):
    folder = tmp_path / "data"
    with atomic_folder(folder, "data"), atomic_folder(folder, "data") as first:
        (first / "first").touch()
    assert os.listdir(tmp_path) == ["data"]
    assert os.listdir(folder) == ["first"]


def test_nothing_is_left_of_an_interrupted_run(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "data", "data"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="NL_DETECTRON_CACHE"):
        make_shapes(tmp_path / "file")


def test_cache_root(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NL_DETECTRON_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "nl_detectron"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / "home" / ".cache" / "nl_detectron"


# The sprites

PAIRS = [
    (KEYPOINT_NAMES.index(f"left_{name}"), KEYPOINT_NAMES.index(f"right_{name}"))
    for name in ("shoulder", "hip", "ear")
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(5))
def test_left_and_right_follow_facing_direction(seed):
    front, back = (person(rng(seed), back=b).keypoints for b in (False, True))
    for left, right in PAIRS:
        assert front[left, 0] > front[right, 0]
        assert back[left, 0] < back[right, 0]
    face = [KEYPOINT_NAMES.index(n) for n in ("nose", "left_eye", "right_eye")]
    assert not np.isnan(front).any()
    assert np.flatnonzero(np.isnan(back[:, 0])).tolist() == face


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_keypoints_are_inside_person(seed, back):
    sprite = person(rng(seed), back=back).placed(60, 110, 90)
    covered = canvas.silhouette(sprite, 120, 128)
    points = sprite.keypoints[~np.isnan(sprite.keypoints[:, 0])]
    columns, rows = (points * canvas.SCALE).astype(int).T
    assert covered[rows, columns].all()


@pytest.mark.parametrize(
    "make", [things.ball, things.kite, things.house, things.tree, things.car, things.umbrella]
)
@pytest.mark.parametrize("seed", range(3))
def test_things_have_unit_height_and_correct_silhouette(make, seed):
    sprite = make(rng(seed))
    assert sprite.category == make.__name__
    _, top, _, bottom = sprite.bounds()
    assert -1.05 < top < -0.9
    assert -0.05 < bottom < 0.05
    sprite = sprite.placed(48, 80, 60, angle=10, mirror=True)
    background, _ = landscape.landscape(rng(seed), 96, 96)
    drawn = canvas.draw(background, [sprite])
    covered = canvas.silhouette(sprite, 96, 96).reshape(96, canvas.SCALE, 96, canvas.SCALE)
    touched = covered.any(axis=(1, 3))
    assert np.array_equal(drawn[~touched], background[~touched])
    assert (drawn[touched] != background[touched]).any(axis=1).mean() > 0.95
