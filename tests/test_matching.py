"""Matching in clips: what is drawn, that no feature of C2D sees both objects, and a trial of it."""

import dataclasses
import json
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from experiments.page import write_page
from experiments.plan import EXTRA_SEEDS
from experiments.registry import EXPERIMENTS
from experiments.trial import BlockUse
from experiments.video import trial as video_trial
from experiments.video.clips import COLORS, FAR, FRAMES, KINDS, SIDE, Task, draw_clips
from experiments.video.hypotheses import BARS, COMPARISONS, Bar
from experiments.video.plan import (
    ARMS,
    CORE,
    LABELS,
    LATEST_SEEDS,
    MORE_SEEDS,
    SEEDS,
    TASKS,
    VideoTrial,
    plan,
)
from experiments.video.plots import plot_curves, plot_dial
from experiments.video.report import head, judge_bar
from experiments.video.results import load, save, values
from experiments.video.trial import Score, VideoOutcome, cost_of, run_trial
from nl_detectron.layers import NonLocalBlock
from nl_detectron.layers.nonlocal_block import POSITIONS

COUNT = 144  # of clips: every label, kind and pair of colours


def draw(task: Task, *, count: int = COUNT, seed: int = 5):
    return draw_clips(np.random.default_rng(seed), task, count)


def seen(clip: torch.Tensor) -> list[tuple[int, int, int, int, bool]]:
    """Frame, top, left, colour and whether it is a cross of each object, from the pixels alone."""
    found = []
    pixels = clip.permute(1, 2, 3, 0).numpy().astype(int)
    for number, color in enumerate(COLORS):
        mask = np.all(pixels == np.array(color), axis=-1)  # (T, H, W)
        for t in np.flatnonzero(mask.any((1, 2))):
            columns = np.flatnonzero(mask[t].any(0))
            # Objects of one frame are apart, each of its width.
            for group in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
                part = mask[t][:, group[0] : group[-1] + 1]
                rows = np.flatnonzero(part.any(1))
                assert len(group) == len(rows) == SIDE
                corner = part[rows[0], 0]
                found.append((int(t), int(rows[0]), int(group[0]), number, not corner))
    return found


@pytest.mark.parametrize("task", list(TASKS))
def test_labels_distances_and_moments_are_those_of_the_pixels(task):
    clips = draw(TASKS[task])
    for clip, label, kind, places in zip(
        clips.frames, clips.labels, clips.kinds, clips.places, strict=True
    ):
        objects = seen(clip)
        assert sorted(o[:3] for o in objects) == sorted(map(tuple, places.tolist()))
        (t1, y1, x1, c1, cross1), (t2, y2, x2, c2, cross2) = objects
        assert cross1 == cross2
        assert label == (cross1 if task == "control" else c1 == c2)
        apart = {"s": t1 == t2, "t": (x1, y1) == (x2, y2), "st": t1 != t2}[KINDS[kind]]
        assert apart
        if "s" in KINDS[kind]:
            assert abs(x1 - x2) - SIDE == TASKS[task].gap
        if "t" in KINDS[kind] and TASKS[task].lag is None:
            assert t1 // 2 != t2 // 2  # the pooling joins frames 0 and 1, 2 and 3, ...
        elif "t" in KINDS[kind]:
            assert abs(t1 - t2) == TASKS[task].lag


def test_kinds_labels_and_pairs_of_colours_are_balanced():
    clips = draw(Task(), count=144)
    for kind in range(len(KINDS)):
        for label in (0, 1):
            chosen = (clips.kinds == kind) & (clips.labels == label)
            assert chosen.sum() == 24
            objects = map(seen, clips.frames[torch.from_numpy(chosen)])
            pairs = Counter((first[3], second[3]) for first, second in objects)
            colors = range(len(COLORS))
            every = zip(colors, colors, strict=True) if label else combinations(colors, 2)
            assert pairs == dict.fromkeys(every, 6 if label else 4)


def test_the_same_seed_draws_the_same_clips_and_another_others():
    first, again, other = (draw(Task(), seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.frames, other.frames)


def test_clips_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="multiples of 6"):
        draw(Task(), count=7)
    with pytest.raises(ValueError, match="gap is 105; allowed: 0 to 104"):
        draw(Task(gap=105))


def _changed(model, clips, which: int) -> torch.Tensor:
    """Which features of each clip change if one of its objects is painted over; (N, T, H, W)."""
    without = clips.frames.clone()
    for clip, places in zip(without, clips.places, strict=True):
        t, y, x = places[which]
        clip[:, t, y : y + SIDE, x : x + SIDE] = 120
    with torch.no_grad():
        features = [
            model.backbone((frames.float() - 130) / 50)["res3"]
            for frames in (clips.frames, without)
        ]
    return (features[0] != features[1]).any(1)


@pytest.mark.parametrize(("gap", "shared"), [(FAR, False), (56, True)])
def test_no_feature_of_c2d_sees_both_objects(gap, shared, tmp_path):
    model = build_model(trial("none").config(tmp_path)).eval()
    for parameter in model.backbone.parameters():
        if parameter.dim() == 1:  # the norms' scales, of which some start at zero
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    clips = draw(Task(gap=gap), count=48)
    both = _changed(model, clips, 0) & _changed(model, clips, 1)
    in_space = clips.kinds == KINDS.index("s")
    assert both[torch.from_numpy(in_space)].any() == shared
    assert not both[torch.from_numpy(~in_space)].any()


def trial(arm: str = "spacetime", seed: int = 1, task: str = "matching") -> VideoTrial:
    return VideoTrial(setting="cpu", task=task, arm=arm, seed=seed)


@pytest.mark.parametrize(
    ("arm", "blocks"),
    [(arm, 1) for arm in ARMS if arm not in ("none", "none_batch", "wider", "i3d")],
)
def test_arms_have_their_blocks(arm, blocks, tmp_path):
    cfg, usual = trial(arm).config(tmp_path).SOLVER, trial("none").config(tmp_path).SOLVER
    assert usual.IMS_PER_BATCH * (3 if "batch" in arm else 1) == cfg.IMS_PER_BATCH
    assert (usual.MAX_ITER == 2 * cfg.MAX_ITER) == arm.endswith("_batch_300")
    model = build_model(trial(arm).config(tmp_path))
    found = [module for module in model.modules() if isinstance(module, NonLocalBlock)]
    assert len(found) == {"2_blocks": 2, "4_blocks": 4}.get(arm, blocks)
    axes = arm.partition("_")[0]
    assert {b.axes for b in found} == {axes if axes in ("space", "time") else "spacetime"}


@pytest.mark.parametrize("setting", ["cpu", "gpu"])
def test_the_wider_network_costs_what_the_block_costs(setting, tmp_path):
    costs = {
        arm: cost_of(dataclasses.replace(trial(arm), setting=setting).config(tmp_path))
        for arm in ("none", "spacetime", "wider")
    }
    (shape,) = (block.input_shape for block in costs["spacetime"].blocks)
    block = sum(NonLocalBlock(shape[1], dims=3).orders(shape)[POSITIONS])
    wider = costs["wider"].multiply_adds - costs["none"].multiply_adds
    assert 0.9 * block <= wider <= 1.4 * block


def test_every_arm_has_five_seeds_and_every_hypothesis_its_trials():
    planned = plan("cpu")
    assert len(set(planned)) == len(planned)
    assert {t.arm for t in planned} == set(ARMS) == set(LABELS)
    assert {t.task for t in planned} == set(TASKS)
    for t in planned:
        seeds = LATEST_SEEDS if "batch" in t.arm else SEEDS
        seeds = MORE_SEEDS if t.arm == "space_longer" else seeds
        seeds = (*seeds, *EXTRA_SEEDS) if t.seed in EXTRA_SEEDS else seeds
        assert all(dataclasses.replace(t, seed=seed) in planned for seed in seeds)
    kinds = {"all": "matching", **dict.fromkeys(KINDS, "matching")}
    asked = [(bar.arm, bar.kind) for bar in BARS]
    asked += [(arm, c.kind) for c in COMPARISONS for arm in (c.first, c.second)]
    for arm, kind in asked:
        assert any((t.arm, t.task) == (arm, kinds.get(kind, kind)) for t in planned)


def test_a_trial_again_gives_the_same_row(tmp_path, monkeypatch):
    config = VideoTrial.config

    def short(self, output):
        cfg = config(self, output)
        cfg.merge_from_list(["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 6])
        return cfg

    monkeypatch.setattr(VideoTrial, "config", short)
    monkeypatch.setattr(video_trial, "NUM_VAL", 72)
    monkeypatch.setattr(video_trial, "_LOOKED_AT", 2)
    first, again, other = (
        dataclasses.replace(run_trial(trial(seed=seed), tmp_path), seconds=0) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.curve != other.curve
    assert set(first.scores) == {*KINDS, "all"}
    means = [
        np.mean([getattr(first.scores[k], m) for k in KINDS]) for m in ("accuracy", "cross_entropy")
    ]
    assert means == pytest.approx([first.scores["all"].accuracy, first.scores["all"].cross_entropy])
    (use,) = first.blocks
    assert use.block == "backbone.res3.nonlocal_after_2"
    assert 0 < use.even_share < 0.5
    assert trial().weights(tmp_path).is_file()
    save(tmp_path, {trial(): first})
    assert load(tmp_path).keys() == {trial()}
    assert load(tmp_path)[trial()].scores["st"].accuracy == pytest.approx(
        first.scores["st"].accuracy, rel=1e-5
    )


def outcome(accuracy: float, loss: float, *, control: bool = False, block: bool = False):
    score = Score(accuracy=accuracy, cross_entropy=loss)
    use = BlockUse(block="b", residual_ratio=0.5, cue_share=0.3, even_share=0.1)
    return VideoOutcome(
        scores={"control": score} if control else dict.fromkeys((*KINDS, "all"), score),
        curve={100: score},
        seconds=50.0,
        parameters=20_000,
        multiply_adds=11_000_000 if block else 10_000_000,
        blocks=[use] if block else [],
    )


def test_the_page_says_what_the_rows_say_and_what_was_not_run(tmp_path):
    results = {}
    for arm in CORE:
        for seed in SEEDS:
            solved = arm == "spacetime"
            found = outcome(
                99.0 + seed / 10 if solved else 50.0 + seed, 0.05 if solved else 0.65, block=solved
            )
            results[trial(arm, seed)] = found
            larger = outcome(98.0 + seed / 10 if solved else 50.0 + seed, 0.05, block=solved)
            results[trial(f"{arm}_batch", seed)] = larger
            results[trial(arm, seed, "control")] = outcome(100.0, 0.001, control=True)
    folder, page = tmp_path / "experiments", tmp_path / "experiments.md"
    save(folder, results)
    assert load(folder) == results
    assert values(results, arm="none", kind="st") == [51, 52, 53, 54, 55]
    (folder / "machines.json").write_text(json.dumps({"video/cpu": {"processor": "an abacus"}}))
    nothing: dict = {name: {} for name in EXPERIMENTS}
    write_page(nothing | {"video": load(folder)}, folder, page, output=tmp_path)
    text = re.sub(" +", " ", page.read_text())
    top = "\n".join(text.splitlines()[:10])
    assert "98.3 against 53.0 %, a difference of +45.3" in top  # of the larger batch
    assert "100.0 against 100.0 %, a difference of +0.0" in top
    assert "+10 % of multiply-adds" in top
    assert "| all: at least 95 % | 99.1, 99.2, 99.3, 99.4, 99.5 | met, 5 of 5 |" in text
    assert "| all | +46.3 [+44.3, +48.3] | met | -0.600 [-0.600, -0.600] |" in text
    assert "0.650, 0.650, 0.650, 0.650, 0.650 | missed, 0 of 5 |" in text
    assert "| 30.0 % | 10.0 % | 3.00 |" in text
    paper = text[text.index("## The paper's orderings") : text.index("## Results")]
    not_run = "| not run | not run |"
    assert f"I3D with 5 blocks 76.0 | A C2D with a block is better than I3D. {not_run}" in paper
    assert f"| | | I3D with a block is better than I3D. {not_run}" in paper
    assert "matching, I3D (5 seeds)" in text  # is missing
    assert "an abacus" in text
    assert "dial" not in text
    for image in re.findall(r"\]\((experiments/[^)]+)\)", text):
        assert (tmp_path / image).stat().st_size > 5_000


def test_the_cost_in_time_is_of_seeds_that_have_both():
    results = {trial("none", seed): outcome(50.0, 0.7) for seed in SEEDS}
    slower = dataclasses.replace(outcome(99.0, 0.1, block=True), seconds=60.0)
    results |= {trial("spacetime", seed): slower for seed in SEEDS}
    on_another_day = dataclasses.replace(outcome(50.0, 0.7), seconds=500.0)
    text = head(results | {trial("none", EXTRA_SEEDS[0]): on_another_day})
    assert "+20 % of the processor's time" in text


def test_the_curves_have_a_legend_whatever_was_run():
    (legend,) = plot_curves({}).legends
    assert [text.get_text() for text in legend.get_texts()] == [LABELS[arm] for arm in CORE]


def test_the_dial_is_drawn_and_said_once_it_is_run():
    def of_task(task: str, accuracy: float) -> dict[VideoTrial, VideoOutcome]:
        score = Score(accuracy=accuracy, cross_entropy=0.5)
        run = dataclasses.replace(outcome(accuracy, 0.5), scores={task: score})
        return {trial("none", seed, task): run for seed in SEEDS}

    assert plot_dial(of_task("control", 100.0)) is None
    results = of_task("s_8", 97.0) | of_task("s_96", 51.0)
    (in_space,) = plot_dial(results).axes
    drawn = [line.get_xydata().tolist() for line in in_space.get_lines()]
    assert [[8.0, 97.0], [96.0, 51.0]] in drawn
    assert len(plot_dial(results | of_task("t_2", 51.0)).axes) == 2
    assert "8 pixels apart the C2D without a block has 97.0 %" in head(results)


def test_a_bar_is_for_every_seed():
    at_least = Bar(claim="", arm="a", kind="s", at_least=95)
    assert judge_bar(at_least, [95, 99]) == "met, 2 of 2"
    assert judge_bar(at_least, [94.9, 99]) == "missed, 1 of 2"
    assert judge_bar(Bar(claim="", arm="a", kind="s", at_most=63), [63, 50]) == "met, 2 of 2"
    assert judge_bar(at_least, []) == "not run"


def test_clips_are_as_long_as_the_config_says(tmp_path):
    assert trial("none", 1).config(tmp_path).INPUT.CLIP.FRAMES == FRAMES
