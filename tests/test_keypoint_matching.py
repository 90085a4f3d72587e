"""Keypoints that a match with the hat tells: what is drawn, and what a glove sees."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes

from experiments.detector import validation_set
from experiments.drawing import COLORS, Scene
from experiments.keypoints.plan import PLAN
from experiments.keypoints.report import DIAL
from experiments.keypoints.task import FAR, KEYPOINTS, NEAR, SIDE, SIZE, draw_person
from experiments.keypoints.trial import draw_of, scores
from experiments.plan import Trial


def trial(arm: str = "head", distance: int = FAR, task: str = "match") -> Trial:
    return Trial(experiment="keypoints", task=task, distance=distance, arm=arm, seed=6)


def draw(count: int, *, distance: int = FAR, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [draw_person(rng, distance) for _ in range(count)]


def seen(person: Scene) -> dict[tuple[int, int], str]:
    """Colour by the upper left corner of each hat and glove, from the pixels alone."""
    found = {}
    for name, color in COLORS.items():
        mask = np.all(person.image == np.array(color), axis=-1)
        for y, x in np.argwhere(mask):
            if mask[y : y + SIDE, x : x + SIDE].sum() >= SIDE**2 - 9 and (
                mask[y, x : x + SIDE].all() and mask[y : y + SIDE, x].all()
            ):
                found.setdefault((int(x), int(y)), name)
    return found


@pytest.mark.parametrize("distance", DIAL)
def test_keypoints_are_those_of_the_pixels(distance):
    for person in draw(30, distance=distance):
        points = dict(zip(KEYPOINTS, person.keypoints[0], strict=True))
        corners = seen(person)
        half = SIDE // 2
        colors = {
            (x, y): corners[int(x) - half, int(y) - half] for x, y, v in person.keypoints[0] if v
        }
        x0, y0, x1, y1 = person.cue
        assert (x1 - x0, y1 - y0) == (SIDE, SIDE)
        hat = corners[x0, y0]
        left, right = (tuple(points[f"{side} glove"][:2]) for side in ("left", "right"))
        assert colors[left] == hat != colors[right]
        assert left[1] == right[1] == y1 + distance + half
        assert abs(left[0] - right[0]) >= SIDE
        visible = {name for name, (_, _, v) in points.items() if v}
        assert visible == {"left glove", "right glove", f"{hat} hat", f"{hat} glove"} | {
            f"{colors[right]} glove"
        }
        assert tuple(points[f"{hat} glove"][:2]) == left
        assert tuple(points[f"{colors[right]} glove"][:2]) == right


def test_neither_a_colour_nor_a_place_tells_left_from_right():
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


@pytest.mark.parametrize("distance", DIAL)
def test_the_hat_is_in_the_first_row_where_that_is_the_task(distance):
    tops = {
        task: {p.cue[1] for p in validation_set(draw_of(trial(distance=distance, task=task)))}
        for task in ("match", "first_row")
    }
    assert tops["first_row"] == {0}
    assert tops["match"] == set(range(SIZE - 2 * SIDE - distance + 1))


@pytest.mark.parametrize(
    ("arm", "distance", "sees"),
    [("none", FAR, False), ("wider", FAR, False), ("none", NEAR, True), ("head", FAR, True)],
)
def test_only_a_block_lets_a_glove_see_the_hat_far_away(arm, distance, sees, tmp_path):
    torch.manual_seed(0)
    model = build_model(PLAN.cfg(trial(arm, distance=distance), tmp_path)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # biases, and the norms' scales, of which some start at zero
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    heads = model.roi_heads
    changed = []
    for person in draw(6, distance=distance):
        x0, y0, x1, y1 = person.cue
        painted = person.image.copy()
        painted[y0:y1, x0:x1] = 120
        records = [person.record(), dataclasses.replace(person, image=painted).record()]
        with torch.no_grad():
            features = [model.backbone(model.preprocess_image(records).tensor)["stem"]]
            boxes = [Boxes(torch.tensor([[0.0, 0.0, SIZE, SIZE]]))] * 2
            logits = heads.keypoint_head.layers(heads.keypoint_pooler(features, boxes))
        below = y1 + distance
        first, second = logits[:, :, below : below + SIDE]
        changed.append(not torch.equal(first, second))
    assert np.any(changed) == sees


def test_the_reach_is_what_the_head_sees(tmp_path):
    model = build_model(PLAN.cfg(trial("none"), tmp_path)).eval()
    for parameter in model.parameters():  # so that no two ways cancel each other
        torch.nn.init.constant_(parameter, 0.01)
    image = torch.ones(1, 3, SIZE, SIZE, requires_grad=True)
    heads = model.roi_heads
    boxes = [Boxes(torch.tensor([[0.0, 0.0, SIZE, SIZE]]))]
    pooled = heads.keypoint_pooler([model.backbone(image)["stem"]], boxes)
    logits = heads.keypoint_head.layers(pooled)
    (gradient,) = torch.autograd.grad(logits[0, :, SIZE - SIDE].sum(), image)
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    assert SIZE - SIDE - int(rows.min()) == FAR


def test_scores_of_results_known_by_hand():
    people = draw(40)
    score, by_color = scores(people)

    def found(*, swapped: bool) -> list[dict]:
        results = []
        for number, person in enumerate(people):
            points = person.keypoints[0] - (0.5, 0.5, 0)
            if swapped:
                points[[0, 1]] = points[[1, 0]]
            results.append({"image_id": number, "category_id": 0, "bbox": [0, 0, SIZE, SIZE]})
            results[-1] |= {"keypoints": points.ravel().tolist(), "score": 0.9}
        return results

    right, wrong = found(swapped=False), found(swapped=True)
    assert score(right) == by_color(right) == by_color(wrong) == pytest.approx((100, 100))
    assert score(wrong)[1] < 5  # only where the gloves almost touch
