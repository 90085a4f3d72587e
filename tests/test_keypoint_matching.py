"""Keypoints that a match with the hat tells: what is drawn, what a glove sees, a trial of it."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from test_experiments import outcome

from experiments.evaluation import average_precision
from experiments.keypoints import trial as keypoint_trial
from experiments.keypoints.hypotheses import COMPARISONS
from experiments.keypoints.people import (
    COLORS,
    FAR,
    KEYPOINTS,
    NEAR,
    REACH,
    SIDE,
    SIDES,
    SIZE,
    Person,
    draw_person,
)
from experiments.keypoints.plan import ARMS, DIAL, LABELS, MORE_SEEDS, SEEDS, KeypointTrial, plan
from experiments.keypoints.report import MATCHING, head, lines, save_images, section
from experiments.keypoints.trial import SIGMAS, cost_of, run_trial, truth_of, validation_set
from experiments.registry import EXPERIMENTS
from nl_detectron.layers import NonLocalBlock

KEYPOINT_TRIALS = EXPERIMENTS["keypoints"]


def trial(
    arm: str = "blocks",
    seed: int = 1,
    distance: int = FAR,
    setting: str = "cpu",
    task: str = "match",
) -> KeypointTrial:
    return KeypointTrial(setting=setting, task=task, distance=distance, arm=arm, seed=seed)


def draw(count: int, *, distance: int = FAR, seed: int = 0) -> list[Person]:
    rng = np.random.default_rng(seed)
    return [draw_person(rng, distance) for _ in range(count)]


def seen(person: Person) -> dict[tuple[int, int], str]:
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
        points = dict(zip(KEYPOINTS, person.keypoints, strict=True))
        corners = seen(person)
        half = SIDE // 2
        colors = {
            (x, y): corners[int(x) - half, int(y) - half] for x, y, v in person.keypoints if v
        }
        x0, y0, x1, y1 = person.hat
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
    by_place = Counter(p.keypoints[0, 0] < p.keypoints[1, 0] for p in people)
    assert 1850 < by_place[True] < 2150
    for side in ("left", "right"):
        of_side = [p.keypoints[KEYPOINTS.index(f"{side} glove"), :2] for p in people]
        counts: Counter = Counter()
        for person, (x, y) in zip(people, of_side, strict=True):
            counts[tuple(person.image[int(y), int(x)])] += 1
        assert len(counts) == len(COLORS)
        assert all(880 < count < 1120 for count in counts.values())  # 1000, of deviation 27


def test_people_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="distance is 43; allowed: 0 to 42"):
        draw(1, distance=43)


@pytest.mark.parametrize("distance", DIAL)
def test_the_hat_is_in_the_first_row_where_that_is_the_task(distance):
    tops = {
        task: {p.hat[1] for p in validation_set(trial(distance=distance, task=task))}
        for task in ("match", "first_row")
    }
    assert tops["first_row"] == {0}
    assert tops["match"] == set(range(SIZE - 2 * SIDE - distance + 1))


@pytest.mark.parametrize(
    ("arm", "distance", "sees"),
    [("none", FAR, False), ("wider", FAR, False), ("none", NEAR, True), ("blocks", FAR, True)],
)
def test_only_a_block_lets_a_glove_see_the_hat_far_away(arm, distance, sees, tmp_path):
    torch.manual_seed(0)
    model = build_model(trial(arm, distance=distance).config(tmp_path)).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:  # biases, and the norms' scales, of which some start at zero
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    heads = model.roi_heads
    changed = []
    for person in draw(6, distance=distance):
        x0, y0, x1, y1 = person.hat
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
    model = build_model(trial("none").config(tmp_path)).eval()
    for parameter in model.parameters():  # so that no two ways cancel each other
        torch.nn.init.constant_(parameter, 0.01)
    image = torch.ones(1, 3, SIZE, SIZE, requires_grad=True)
    heads = model.roi_heads
    boxes = [Boxes(torch.tensor([[0.0, 0.0, SIZE, SIZE]]))]
    pooled = heads.keypoint_pooler([model.backbone(image)["stem"]], boxes)
    logits = heads.keypoint_head.layers(pooled)
    (gradient,) = torch.autograd.grad(logits[0, :, SIZE - SIDE].sum(), image)
    rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
    assert SIZE - SIDE - int(rows.min()) == REACH == FAR


def test_the_config_is_that_of_what_is_drawn(tmp_path):
    cfg = trial("none").config(tmp_path)
    assert len(KEYPOINTS) == cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (SIZE, SIZE)


@pytest.mark.parametrize("setting", ["cpu", "gpu"])
def test_arms_have_their_blocks_and_the_wider_head_costs_what_they_cost(setting, tmp_path):
    costs = {arm: cost_of(trial(arm, setting=setting).config(tmp_path)) for arm in ARMS}
    assert [len(costs[arm].blocks) for arm in ("none", "blocks", "wider")] == [0, 4, 0]
    least = costs["blocks"].multiply_adds
    for arm in ("wider", "wider_longer"):
        assert least <= costs[arm].multiply_adds < 1.05 * least
    model = build_model(trial("blocks").config(tmp_path))
    assert sum(isinstance(module, NonLocalBlock) for module in model.modules()) == 4


def test_every_arm_has_five_seeds_and_every_hypothesis_its_trials():
    planned = plan("cpu")
    assert len(set(planned)) == len(planned)
    assert {t.arm for t in planned} == set(ARMS) == set(LABELS)
    for t in planned:
        seeds = SEEDS if t.seed in SEEDS else MORE_SEEDS
        assert all(dataclasses.replace(t, seed=seed) in planned for seed in seeds)
    for comparison in COMPARISONS:
        for group in (comparison.first, comparison.second):
            seed = (MORE_SEEDS if group.arm.endswith("_longer") else SEEDS)[0]
            assert trial(group.arm, seed, group.distance, task=group.task) in planned


def test_average_precision_of_what_is_known_by_hand():
    people = draw(40)
    by_match, by_color = truth_of(people, SIDES), truth_of(people, slice(SIDES.stop, None))

    def score(swapped: bool, which) -> tuple[float, float]:
        found = []
        for number, person in enumerate(people):
            points = person.keypoints - (0.5, 0.5, 0)
            if swapped:
                points[[0, 1]] = points[[1, 0]]
            found.append({"image_id": number, "category_id": 0, "bbox": [0, 0, SIZE, SIZE]})
            found[-1] |= {"keypoints": points.ravel().tolist(), "score": 0.9}
        return average_precision(which, found, "keypoints", sigmas=SIGMAS)

    assert score(False, by_match) == score(False, by_color) == pytest.approx((100, 100))
    assert score(True, by_match)[1] < 5  # only where the gloves all but touch
    assert score(True, by_color) == pytest.approx((100, 100))


def test_a_trial_again_gives_the_same_row(tmp_path, monkeypatch):
    config = KeypointTrial.config

    def short(self, output):
        cfg = config(self, output)
        cfg.merge_from_list(["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 4])
        return cfg

    monkeypatch.setattr(KeypointTrial, "config", short)
    monkeypatch.setattr(keypoint_trial, "NUM_VAL", 20)
    monkeypatch.setattr(keypoint_trial, "_LOOKED_AT", 2)
    one = trial("blocks_longer", MORE_SEEDS[0])
    first, again = (dataclasses.replace(run_trial(one, tmp_path), seconds=0) for _ in range(2))
    assert first == again
    assert [use.block for use in first.blocks] == [
        f"roi_heads.keypoint_head.nonlocal_after_conv_fcn_relu{number}" for number in (2, 4, 6, 8)
    ]
    assert all(0 < use.even_share < 0.5 for use in first.blocks)
    KEYPOINT_TRIALS.save(tmp_path, {one: first})
    (loaded,) = KEYPOINT_TRIALS.load(tmp_path).values()
    assert loaded.parameters == first.parameters
    assert [use.block for use in loaded.blocks] == [use.block for use in first.blocks]
    save_images({one: first}, tmp_path, tmp_path)
    assert (tmp_path / "keypoints_attention.png").stat().st_size > 5_000


def test_the_page_says_what_the_rows_say_and_what_was_not_run(tmp_path):
    results = {}
    for seed in SEEDS:
        results[trial("none", seed)] = outcome(10.0 + seed)
        results[trial("blocks", seed)] = outcome(90.0 + seed, block="b")
    for seed in MORE_SEEDS:
        results[trial("none_longer", seed)] = outcome(5.0 + seed)
        results[trial("blocks_longer", seed)] = outcome(85.0 + seed, block="b")
        seen = {"distance": 16, "task": "first_row"}
        results[trial("none_longer", seed, **seen)] = outcome(70.0 + seed)
        results[trial("blocks_longer", seed, **seen)] = outcome(71.0 + seed, block="b")
    assert "AP 93.0 against 13.0, a difference of +80.0 [+77.7, +82.3]" in head(results)
    assert "16 pixels away: AP 79.0 against 78.0, a difference of +1.0" in head(results)
    assert "4 pixels away: not measured" in head(results)
    drawn = MATCHING.plot_distance(results, lines()).axes[0].get_lines()
    assert [[16.0, 78.0], [42.0, 13.0]] in [line.get_xydata().tolist() for line in drawn]
    save_images(results, tmp_path, tmp_path)
    assert (tmp_path / "keypoints_by_distance.png").stat().st_size > 5_000
    machines = {"keypoints/cpu": {"processor": "an abacus"}}
    text = re.sub(" +", " ", section(results, tmp_path, "at", machines))
    assert "| 42 pixels | +80.0 [+77.7, +82.3] | +40.0 [+38.8, +41.2] | AP | met |" in text
    assert "| 4 pixels | not run | not run | AP | not run |" in text
    assert (
        "| 42 pixels | 4 blocks in the head | 91.0, 92.0, 93.0, 94.0, 95.0 | 93.0 ± 1.6 |" in text
    )
    assert "| `b` | 0.500 | 30.0 % | 10.0 % | 30, 30, 30, 30, 30 |" in text
    assert "no block, wider at 42 pixels (5 seeds)" in text
    assert "an abacus" in text
    assert "keypoints_attention.png" not in text
