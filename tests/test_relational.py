"""The relational data set: solvable with the cue, a guess without it, and no other way to know."""

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES

from experiments.oracle import oracle_ap
from nl_detectron.data import relational
from nl_detectron.data.register import register_generated
from nl_detectron.data.relational import CUE_COLORS, HEIGHT, WIDTH, draw_panorama, read_cue

CASES = [(task, distance) for task in relational.TASKS for distance in (0, 200, 384)]


def draw(task: str, distance: int, answer: int, seed: int = 3):
    return draw_panorama(np.random.default_rng(seed), task, distance, answer)


@pytest.mark.parametrize(("task", "distance"), CASES)
def test_images_differ_in_the_cue_alone(task, distance):
    for seed in range(5):
        images = [draw(task, distance, a, seed) for a in range(len(CUE_COLORS[task]))]
        x, y, width, height = images[0].annotations[0]["cue"]
        outside = np.ones((HEIGHT, WIDTH), bool)
        # The border line and the smoothing reach a pixel or two farther.
        top, left = max(int(y) - 2, 0), max(int(x) - 2, 0)
        outside[top : int(y + height) + 3, left : int(x + width) + 3] = False
        for other in images[1:]:
            assert np.array_equal(images[0].image[outside], other.image[outside])
            assert not np.array_equal(images[0].image, other.image)
            assert other.annotations[0]["bbox"] == images[0].annotations[0]["bbox"]


@pytest.mark.parametrize(("task", "distance"), CASES)
def test_the_cue_is_at_its_distance_and_shows_the_answer(task, distance):
    for seed in range(8):
        for answer in range(len(CUE_COLORS[task])):
            image = draw(task, distance, answer, seed)
            annotation = image.annotations[0]
            cue = annotation["cue"]
            x, _, width, _ = annotation["bbox"]
            points = np.reshape(annotation["keypoints"], (-1, 3))
            thing = points[points[:, 2] > 0, 0].mean() if task == "walkers" else x + width / 2
            assert abs(thing - (cue[0] + cue[2] / 2)) == pytest.approx(distance, abs=1)
            assert cue[0] >= 0
            assert cue[0] + cue[2] <= WIDTH
            assert read_cue(task, image.image, cue) == answer


def test_left_and_right_of_a_walker_change_places_with_the_answer():
    left, right = (COCO_PERSON_KEYPOINT_NAMES.index(f"{s}_wrist") for s in ("left", "right"))
    away, facing = (
        np.reshape(draw("walkers", 384, answer).annotations[0]["keypoints"], (-1, 3))
        for answer in (0, 1)
    )
    assert np.array_equal(away[left], facing[right])
    assert np.array_equal(away[right], facing[left])
    assert facing[left][1] < facing[right][1]  # lying with its head at the left, it faces us
    assert (facing[:, 2] > 0).sum() == 2


def test_every_answer_is_as_frequent_and_the_split_is_reproducible(tmp_path):
    folders = [
        relational.make_relational(
            tmp_path / name, "crates", 128, num_train=8, num_val=4, progress=False
        )
        for name in ("a", "b")
    ]
    texts = [(f / "annotations" / "instances_train.json").read_text() for f in folders]
    assert texts[0] == texts[1]
    found = [a["category_id"] for a in json.loads(texts[0])["annotations"]]
    assert sorted(found) == [1, 1, 2, 2, 3, 3, 4, 4]
    images = [sorted((f / "train").iterdir()) for f in folders]
    for a, b in zip(*images, strict=True):
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize(
    ("task", "distance", "message"),
    [("crates", -1, "distance"), ("crates", 385, "distance"), ("boats", 0, "crates, walkers")],
)
def test_impossible_panoramas_are_refused(task, distance, message):
    with pytest.raises(ValueError, match=message):
        draw(task, distance, 0)


@pytest.mark.parametrize("task", relational.TASKS)
def test_oracle_with_the_cue_is_perfect_and_without_it_a_guess(task, tmp_path):
    """Read from the stored images: JPEG must not have spoilt the cue either."""
    name = f"nl_relational_{task}_d70_val"  # no other test's
    register_generated(
        name,
        "val",
        relational.CLASSES[task],
        lambda: relational.make_relational(
            tmp_path, task, 70, num_train=0, num_val=80, progress=False
        ),
    )
    try:
        assert oracle_ap(task, 70, sees_cue=True) == pytest.approx(100)
        guesses = [oracle_ap(task, 70, sees_cue=False, seed=seed) for seed in range(4)]
        # A quarter of the classes is right; of two hands, both or none, at half the precision.
        assert 20 < np.mean(guesses) < 36
    finally:
        MetadataCatalog.remove(name)

        DatasetCatalog.remove(name)
