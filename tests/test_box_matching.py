"""Boxes that match a distant sign: the drawings, and receptive fields without the sign."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from experiments.boxes import FAR, NEAR, PLAN, RINGS, SIDE, build, draw_scene, score
from experiments.drawing import COLORS, Scene
from experiments.plan import Trial


def trial(arm: str = "block", distance: int = FAR, task: str = "match") -> Trial:
    return Trial(experiment="boxes", task=task, distance=distance, arm=arm, seed=6)


def draw(count: int, *, task: str = "match", distance: int = FAR, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, task, distance) for _ in range(count)]


def seen(scene: Scene) -> list[tuple[int, int, int, bool]]:
    """Return left, top, color and shape (cross or not) of each object, from the pixels alone."""
    found = []
    for number, color in enumerate(COLORS.values()):
        mask = np.all(scene.image == np.array(color), axis=-1)
        columns = np.flatnonzero(mask.any(0))
        for group in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            if len(group):
                part = mask[:, group[0] : group[-1] + 1]
                rows = np.flatnonzero(part.any(1))
                assert len(group) == len(rows) == SIDE
                found.append((int(group[0]), int(rows[0]), number, not part[rows[0], 0]))
    return sorted(found, key=lambda one: one[3])


@pytest.mark.parametrize("distance", [NEAR, FAR])
def test_boxes_classes_and_distances_match_pixels(distance):
    for scene in draw(40, distance=distance):
        (x, y, color, _), (cross_x, cross_y, cross_color, is_cross) = seen(scene)
        assert is_cross
        assert scene.boxes.tolist() == [[x, y, x + SIDE, y + SIDE]]
        assert scene.classes.tolist() == [2 * color + (color == cross_color)]
        assert scene.cue == (cross_x, cross_y, cross_x + SIDE, cross_y + SIDE)
        assert abs(x - cross_x) == SIDE + distance


def test_colors_task_labels_both_objects():
    for scene in draw(20, task="colors"):
        (x, *_, color, _), (cross_x, _, cross_color, _) = seen(scene)
        assert scene.boxes[:, 0].tolist() == [x, cross_x]
        assert scene.classes.tolist() == [color, len(COLORS) + cross_color]


def test_distractors_do_not_predict_label():
    area = SIDE**2 - (SIDE // 2) ** 2
    counts: Counter = Counter()
    for seed in range(200):
        (alone,), (among,) = (draw(1, task=task, seed=seed) for task in ("match", "among"))
        assert (among.boxes.tolist(), among.classes, among.cue) == (
            *(alone.boxes.tolist(), alone.classes, alone.cue),
        )
        added = np.any(among.image != alone.image, axis=-1)
        assert added.sum() == RINGS * area
        for color in COLORS.values():
            rings = (added & np.all(among.image == color, axis=-1)).sum() // area
            counts[int(among.classes[0]) % 2, color] += rings
    assert sum(counts.values()) == 200 * RINGS
    # 50 expected, of a standard deviation of 7.
    assert all(25 < counts[answer, color] < 75 for answer in (0, 1) for color in COLORS.values())


def test_single_color_does_not_predict_label():
    counts: Counter = Counter()
    for scene in draw(1000):
        number = int(scene.classes[0])
        x, y = scene.cue[0] + SIDE // 2, scene.cue[1] + SIDE // 2
        for thing, color in (("square", number // 2), ("cross", tuple(scene.image[y, x]))):
            counts[thing, color, number % 2] += 1
    assert len(counts) == 4 * len(COLORS)
    # 125 expected, of a standard deviation of 10.
    assert all(85 < count < 165 for count in counts.values())


@pytest.mark.parametrize(
    ("arm", "distance", "sees"), [("none", FAR, False), ("none", NEAR, True), ("block", FAR, True)]
)
def test_distant_region_sees_cue_only_with_block(arm, distance, sees, tmp_path):
    cfg = PLAN.cfg(trial(arm, distance=distance), tmp_path)
    cfg.MODEL.WEIGHTS = ""
    torch.manual_seed(0)
    model = build(cfg).eval()
    for parameter in model.backbone.parameters():
        if parameter.dim() == 1:  # the norms' scales, of which some start at zero
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    changed = []
    for scene in draw(12, distance=distance):
        painted = scene.image.copy()
        x0, y0, x1, y1 = scene.cue
        painted[y0:y1, x0:x1] = 120
        records = [scene.record(), dataclasses.replace(scene, image=painted).record()]
        boxes = [record["instances"].gt_boxes for record in records]
        with torch.no_grad():
            features = model.backbone(model.preprocess_image(records).tensor)["res4"]
            regions = model.roi_heads.box_pooler([features], boxes)
        changed.append(not torch.equal(regions[0], regions[1]))
    assert np.any(changed) == sees  # attention that is not trained lies on few places


def test_detector_loads_start_trial_weights(tmp_path):
    colors, match, among = (trial("none", task=task) for task in ("colors", "match", "among"))
    assert PLAN.start(among) == match
    assert PLAN.start(trial(distance=NEAR)) == colors
    assert PLAN.start(trial("wider")) == trial("wider", task="colors")
    assert PLAN.start(colors) is None
    start = build(PLAN.cfg(colors, tmp_path)).state_dict()
    path = colors.weights(tmp_path)
    path.parent.mkdir(parents=True)
    torch.save({"model": start}, path)
    begun = build(PLAN.cfg(trial(), tmp_path)).state_dict()
    assert {name for name in begun if "nonlocal" not in name} == set(start)
    assert all(torch.equal(begun[name], weight) for name, weight in start.items())


def test_score_of_known_results():
    scenes = draw(30)

    def measure(found: list[dict]) -> tuple[float, float]:
        return score(found, scenes)

    right = [
        {"image_id": n, "category_id": int(s.classes[0]), "bbox": [*s.boxes[0, :2], SIDE, SIDE]}
        | {"score": 0.9}
        for n, s in enumerate(scenes)
    ]
    assert measure(right) == pytest.approx((100, 100))
    assert measure(
        [one | {"category_id": one["category_id"] ^ 1} for one in right]
    ) == pytest.approx((0, 0))
    # Intersection over union 20 / 28 = 0.71: right at thresholds 0.5 to 0.7, 5 of 10.
    moved = [one | {"bbox": [one["bbox"][0] + 4, *one["bbox"][1:]]} for one in right]
    assert measure(moved) == pytest.approx((50, 100))
    assert measure([]) == (0, 0)
