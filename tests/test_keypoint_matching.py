"""Keypoints that depend on a match with the hat: the drawings, and a glove's receptive field."""

from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from matching import scale_at_random, with_and_without_cue

from experiments.drawing import COLORS, Scene
from experiments.keypoints import DIAL, FAR, KEYPOINTS, NEAR, PLAN, SIDE, SIZE, draw_person, score
from experiments.plan import Trial


def draw(count: int, *, distance: int = FAR, **options: bool) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [draw_person(rng, distance, **options) for _ in range(count)]


def seen(person: Scene) -> dict[tuple[int, int], str]:
    """Color by the upper left corner of each hat and glove, from the pixels alone."""
    found = {}
    for name, color in COLORS.items():
        mask = np.all(person.image == np.array(color), axis=-1)
        for y, x in np.argwhere(mask):
            if mask[y : y + SIDE, x : x + SIDE].sum() >= SIDE**2 - 9 and (
                mask[y, x : x + SIDE].all() and mask[y : y + SIDE, x].all()
            ):
                found.setdefault((int(x), int(y)), name)
    return found


@pytest.mark.parametrize("first_row", [False, True])
@pytest.mark.parametrize("distance", DIAL)
def test_keypoints_match_pixels(distance, first_row):
    people = draw(30, distance=distance, first_row=first_row)
    assert ({person.cue[1] for person in people} == {0}) == (first_row or distance == FAR)
    for person in people:
        points = dict(zip(KEYPOINTS, person.keypoints[0], strict=True))
        corners, half = seen(person), SIDE // 2
        visible = {name: (int(x), int(y)) for name, (x, y, v) in points.items() if v}
        colors = {name: corners[x - half, y - half] for name, (x, y) in visible.items()}
        x0, y0, x1, y1 = person.cue
        assert (x1 - x0, y1 - y0) == (SIDE, SIDE)
        hat, other = corners[x0, y0], colors["right glove"]
        assert colors["left glove"] == hat != other
        left, right = visible["left glove"], visible["right glove"]
        assert left[1] == right[1] == y1 + distance + half
        assert abs(left[0] - right[0]) >= SIDE
        assert visible == {
            "left glove": left,
            "right glove": right,
            f"{hat} hat": (x0 + half, y0 + half),
            f"{hat} glove": left,
            f"{other} glove": right,
        }


def test_color_and_position_do_not_predict_side():
    people = draw(4000)
    by_place = Counter(p.keypoints[0, 0, 0] < p.keypoints[0, 1, 0] for p in people)
    assert 1850 < by_place[True] < 2150
    for side in ("left", "right"):
        of_side = [p.keypoints[0, KEYPOINTS.index(f"{side} glove"), :2] for p in people]
        counts: Counter = Counter()
        for person, (x, y) in zip(people, of_side, strict=True):
            counts[tuple(person.image[int(y), int(x)])] += 1
        assert len(counts) == len(COLORS)
        assert all(880 < count < 1120 for count in counts.values())  # 1000, of deviation 27


@pytest.mark.parametrize(
    ("arm", "distance", "sees"),
    [("none", FAR, False), ("wider", FAR, False), ("none", NEAR, True), ("head", FAR, True)],
)
def test_glove_sees_distant_hat_only_with_block(arm, distance, sees, tmp_path):
    torch.manual_seed(0)
    trial = Trial(experiment="keypoints", task="match", distance=distance, arm=arm, seed=6)
    model = scale_at_random(build_model(PLAN.cfg(trial, tmp_path)).eval())
    heads = model.roi_heads
    changed = []
    for person in draw(6, distance=distance):
        records = with_and_without_cue(person)
        with torch.no_grad():
            features = [model.backbone(model.preprocess_image(records).tensor)["stem"]]
            boxes = [Boxes(torch.tensor([[0.0, 0.0, SIZE, SIZE]]))] * 2
            logits = heads.keypoint_head.layers(heads.keypoint_pooler(features, boxes))
        below = person.cue[3] + distance
        first, second = logits[:, :, below : below + SIDE]
        changed.append(not torch.equal(first, second))
    assert np.any(changed) == sees


def test_score_of_known_results():
    people = draw(40)
    right = []
    for number, person in enumerate(people):
        points = (person.keypoints[0] - (0.5, 0.5, 0)).ravel().tolist()
        right.append({"image_id": number, "category_id": 0, "bbox": [0, 0, SIZE, SIZE]})
        right[-1] |= {"keypoints": points, "score": 0.9}
    swapped = []
    for one in right:
        points = one["keypoints"]
        swapped.append(one | {"keypoints": [*points[3:6], *points[:3], *points[6:]]})
    assert score(right, people) == pytest.approx((100, 100))
    assert score(swapped, people)[1] < 5  # only where the gloves almost touch
