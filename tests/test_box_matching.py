"""Boxes that match a far sign: what is drawn, that no region sees the sign, and a trial of it."""

import dataclasses
import re
from collections import Counter

import numpy as np
import pytest
import torch
from test_experiments import outcome, pretend_to_run

from experiments import run as runner
from experiments.boxes import trial as box_trial
from experiments.boxes.hypotheses import COMPARISONS
from experiments.boxes.network import build
from experiments.boxes.plan import ARMS, LABELS, LATEST_SEEDS, MORE_SEEDS, SEEDS, BoxTrial, plan
from experiments.boxes.report import head, save_images, section
from experiments.boxes.scenes import (
    CLASSES,
    COLORS,
    FAR,
    HEIGHT,
    NEAR,
    RINGS,
    SIDE,
    WIDTH,
    Scene,
    draw_scene,
)
from experiments.boxes.trial import cost_of, run_trial, truth_of
from experiments.evaluation import average_precision
from experiments.plan import EXTRA_SEEDS
from experiments.registry import EXPERIMENTS
from nl_detectron.layers import NonLocalBlock
from nl_detectron.layers.nonlocal_block import POSITIONS

BOXES = EXPERIMENTS["boxes"]


def trial(arm: str = "res4", seed: int = 1, distance: int = FAR, task: str = "match") -> BoxTrial:
    return BoxTrial(setting="cpu", task=task, distance=distance, arm=arm, seed=seed)


def draw(count: int, *, task: str = "match", distance: int = FAR, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [draw_scene(rng, task, distance) for _ in range(count)]


def seen(scene: Scene) -> list[tuple[int, int, int, bool]]:
    """Left, top, colour and whether it is a cross of each object, from the pixels alone."""
    found = []
    for number, color in enumerate(COLORS):
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
def test_boxes_classes_and_distances_are_those_of_the_pixels(distance):
    for scene in draw(40, distance=distance):
        (x, y, color, _), (cross_x, cross_y, cross_color, is_cross) = seen(scene)
        assert is_cross
        assert scene.boxes.tolist() == [[x, y, x + SIDE, y + SIDE]]
        assert scene.classes.tolist() == [2 * color + (color == cross_color)]
        assert scene.cue == (cross_x, cross_y, cross_x + SIDE, cross_y + SIDE)
        assert abs(x - cross_x) == SIDE + distance


def test_the_start_names_the_colours_of_both_and_not_whether_they_match():
    for scene in draw(20, task="colors"):
        (x, *_, color, _), (cross_x, _, cross_color, _) = seen(scene)
        assert scene.boxes[:, 0].tolist() == [x, cross_x]
        assert scene.classes.tolist() == [color, len(COLORS) + cross_color]


def test_rings_are_added_to_what_is_there_and_their_colours_do_not_tell_the_answer():
    area = SIDE**2 - (SIDE // 2) ** 2
    counts: Counter = Counter()
    for seed in range(1000):
        (alone,), (among,) = (draw(1, task=task, seed=seed) for task in ("match", "among"))
        assert (among.boxes == alone.boxes).all()
        assert (among.classes, among.cue) == (alone.classes, alone.cue)
        added = np.any(among.image != alone.image, axis=-1)
        for x0, y0, x1, y1 in (alone.boxes[0].astype(int).tolist(), alone.cue):
            assert not added[y0:y1, x0:x1].any()
        assert added.sum() == RINGS * area
        for number, color in enumerate(COLORS):
            rings = (added & np.all(among.image == color, axis=-1)).sum() / area
            counts[int(among.classes[0]) % 2, number] += int(rings)
    assert sum(counts.values()) == 1000 * RINGS
    # 250 expected, of a standard deviation of 15.
    assert all(
        180 < counts[answer, number] < 320 for answer in (0, 1) for number in range(len(COLORS))
    )


def test_neither_colour_tells_the_answer():
    scenes = draw(4000)
    for of in (0, 1):  # the square, the cross
        counts = Counter((seen(scene)[of][2], int(scene.classes[0]) % 2) for scene in scenes)
        assert len(counts) == 2 * len(COLORS)
        # 500 expected, of a standard deviation of 21.
        assert all(400 < count < 600 for count in counts.values())


def test_scenes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="distance is 305; allowed: 0 to 304"):
        draw(1, distance=305)
    with pytest.raises(ValueError, match="task is 'cars'; allowed: match, among, colors"):
        draw(1, task="cars")


@pytest.mark.parametrize(
    ("arm", "distance", "sees"), [("none", FAR, False), ("none", NEAR, True), ("res4", FAR, True)]
)
def test_only_a_block_lets_a_region_far_away_see_the_sign(arm, distance, sees, tmp_path):
    cfg = trial(arm, distance=distance).config(tmp_path)
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


def test_the_config_is_that_of_what_is_drawn(tmp_path):
    cfg = trial("none").config(tmp_path)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == len(CLASSES) == 2 * len(COLORS)
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES == [[SIDE]]
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("arm", list(ARMS))
def test_arms_have_the_blocks_of_their_names(arm, tmp_path):
    cfg = trial(arm).config(tmp_path)
    cfg.MODEL.WEIGHTS = ""
    model = build(cfg)
    found = [n for n, module in model.named_modules() if isinstance(module, NonLocalBlock)]
    base = arm.removesuffix("_longer")
    assert len(found) == (base not in ("none", "wider"))
    if base.startswith("res"):
        assert found[0].startswith(f"backbone.{base}")
    assert (cfg.SOLVER.MAX_ITER == 600) == (arm != base)


@pytest.mark.parametrize("setting", ["cpu", "gpu"])
def test_the_wider_detector_costs_at_least_what_the_block_costs(setting, tmp_path):
    costs = {
        arm: cost_of(dataclasses.replace(trial(arm), setting=setting).config(tmp_path))
        for arm in ("none", "res4", "wider")
    }
    (shape,) = (block.input_shape for block in costs["res4"].blocks)
    block = sum(NonLocalBlock(shape[1]).orders(shape)[POSITIONS])
    assert costs["wider"].multiply_adds - costs["none"].multiply_adds >= block


def test_every_arm_has_five_seeds_its_start_and_every_hypothesis_its_trials():
    planned = plan("cpu")
    assert len(set(planned)) == len(planned)
    assert {t.arm for t in planned} == set(ARMS) == set(LABELS)
    for number, t in enumerate(planned):
        usual = (SEEDS, MORE_SEEDS, LATEST_SEEDS, EXTRA_SEEDS)
        (seeds,) = (some for some in usual if t.seed in some)
        assert all(dataclasses.replace(t, seed=seed) in planned for seed in seeds)
        assert t.start is None or t.start in planned[:number]
    assert trial("wider").start == trial("wider", task="colors")
    assert trial("res4", distance=NEAR).start == trial("none", task="colors")
    assert trial("res4", distance=NEAR, task="among").start == trial("res4", distance=NEAR)
    for comparison in COMPARISONS:
        for group in (comparison.first, comparison.second):
            assert any(
                (t.task, t.distance, t.arm) == (group.task, group.distance, group.arm)
                for t in planned
            )


def test_what_a_start_starts_from_runs_before_it(tmp_path, monkeypatch):
    ran = pretend_to_run(monkeypatch)
    among = trial(task="among")
    failed = runner.run(BOXES, [among], output=tmp_path, folder=tmp_path / "results", jobs=1)
    assert failed == {}
    assert ran == [[among.start.start], [among.start], [among]]
    assert set(BOXES.load(tmp_path / "results")) == {among, among.start, among.start.start}


def test_average_precision_of_what_is_known_by_hand():
    scenes = draw(30)
    truth = truth_of(scenes)
    right = [
        {"image_id": n, "category_id": int(s.classes[0]), "bbox": [*s.boxes[0, :2], SIDE, SIDE]}
        | {"score": 0.9}
        for n, s in enumerate(scenes)
    ]
    assert average_precision(truth, right) == pytest.approx((100, 100))
    wrong = [one | {"category_id": one["category_id"] ^ 1} for one in right]
    assert average_precision(truth, wrong) == (0, 0)
    assert average_precision(truth, wrong, use_classes=False) == pytest.approx((100, 100))
    # Intersection over union 20 / 28 = 0.71: right at thresholds 0.5 to 0.7, 5 of 10.
    moved = [one | {"bbox": [one["bbox"][0] + 4, *one["bbox"][1:]]} for one in right]
    assert average_precision(truth, moved) == pytest.approx((50, 100))
    assert average_precision(truth, []) == (0, 0)


def test_a_trial_starts_from_its_start_and_again_gives_the_same_row(tmp_path, monkeypatch):
    config = BoxTrial.config

    def short(self, output):
        cfg = config(self, output)
        cfg.merge_from_list(["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 4])
        return cfg

    monkeypatch.setattr(BoxTrial, "config", short)
    monkeypatch.setattr(box_trial, "NUM_VAL", 20)
    monkeypatch.setattr(box_trial, "_LOOKED_AT", 2)
    one, among = (trial(seed=MORE_SEEDS[0], task=task) for task in ("match", "among"))
    start = run_trial(one.start, tmp_path)
    assert start.blocks == []
    cfg = one.config(tmp_path)
    begun = build(cfg).backbone.state_dict()
    saved = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"]
    for name, weight in begun.items():
        assert "nonlocal" in name or torch.equal(weight, saved[f"backbone.{name}"])
    first, again = (dataclasses.replace(run_trial(one, tmp_path), seconds=0) for _ in range(2))
    assert first == again
    (use,) = first.blocks
    assert use.block == "backbone.res4.nonlocal_after_4"
    assert 0 < use.even_share < 0.5
    BOXES.save(tmp_path, {one: first})
    (loaded,) = BOXES.load(tmp_path).values()
    assert loaded.parameters == first.parameters
    assert loaded.blocks[0].block == use.block
    again_at_half = among.config(tmp_path).SOLVER
    assert again_at_half.BASE_LR == cfg.SOLVER.BASE_LR / 2
    assert again_at_half.MAX_ITER == cfg.SOLVER.MAX_ITER
    begun = build(among.config(tmp_path)).state_dict()
    saved = torch.load(one.weights(tmp_path), weights_only=True)["model"]
    assert begun.keys() == saved.keys()
    assert all(torch.equal(begun[name], weight) for name, weight in saved.items())
    run_trial(among, tmp_path)
    save_images({one: first}, tmp_path, tmp_path)
    assert (tmp_path / "boxes_attention.png").stat().st_size > 5_000


def test_the_page_says_what_the_rows_say_and_what_was_not_run(tmp_path):
    results = {}
    for seed in SEEDS:
        results[trial("none", seed)] = outcome(50.0 + seed)
        results[trial("res4", seed)] = outcome(90.0 + seed, block="b")
        results[trial("none", seed, task="among")] = outcome(50.0 + seed)
        results[trial("res4", seed, task="among")] = outcome(80.0 + seed, block="b")
        # Apart by more than the margin of 3 in AP, by less in AP50.
        results[trial("gaussian_longer", seed)] = outcome(94.0 + seed / 10, block="b")
        results[trial("res4_longer", seed)] = outcome(98.0 + seed / 10, block="b")
    assert "AP 93.0 against 53.0, a difference of +40.0 [+37.7, +42.3]" in head(results)
    assert "8 pixels away: not measured" in head(results)
    assert "distractors: AP 83.0 against 53.0, a difference of +30.0 [+27.7, +32.3]" in head(
        results
    )
    save_images(results, tmp_path, tmp_path)
    for image in ("by_distance", "arms"):
        assert (tmp_path / f"boxes_{image}.png").stat().st_size > 5_000
    machines = {"boxes/cpu": {"processor": "an abacus"}}
    text = re.sub(" +", " ", section(results, tmp_path, "at", machines))
    assert "| 192 pixels | +40.0 [+37.7, +42.3] | +20.0 [+18.8, +21.2] | AP | met |" in text
    assert "| 192 pixels | -4.0 [-4.2, -3.8] | -2.0 [-2.1, -1.9] | AP50 | met |" in text
    assert "| 8 pixels | not run | not run | AP | not run |" in text
    assert "| 192 pixels | 1 block in res4 | 91.0, 92.0, 93.0, 94.0, 95.0 | 93.0 ± 1.6 |" in text
    assert "| `b` | 0.500 | 30.0 % | 10.0 % | 30, 30, 30, 30, 30 |" in text
    assert "no block, wider at 192 pixels (10 seeds)" in text
    assert "an abacus" in text
    assert "boxes_attention.png" not in text
