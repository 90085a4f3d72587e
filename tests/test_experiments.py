"""The experiment: its plan, its records, and what the page says about them."""

import dataclasses
import json
import math
import re
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from detectron2.modeling import build_model

from experiments import run as runner
from experiments.hypotheses import HYPOTHESES, Group
from experiments.plan import FAR, LABELS, MODELS, SETTINGS, Trial, plan
from experiments.registry import EXPERIMENTS
from experiments.report import answer, appendix
from experiments.results import load, save, values
from experiments.statistics import Interval, difference, judge, mean
from experiments.trial import BlockUse, Outcome, cost_of, cue_share
from nl_detectron.layers import NonLocalBlock
from nl_detectron.layers.nonlocal_block import POSITIONS
from nl_detectron.visualization import Attention, Query
from nl_detectron.visualization.geometry import Grid

PANORAMAS = EXPERIMENTS["panoramas"]


def trial(arm: str = "res4", seed: int = 1, task: str = "crates", distance: int = FAR) -> Trial:
    return Trial(setting="cpu", task=task, distance=distance, arm=arm, seed=seed)


def outcome(ap: float, block: str | None = None) -> Outcome:
    use = BlockUse(block=block or "", residual_ratio=0.5, cue_share=0.3, even_share=0.1)
    return Outcome(
        ap=ap,
        ap50=(100 + ap) / 2,
        localization_ap50=99.5,
        parameters=2_000_000,
        multiply_adds=400_000_000,
        seconds=100.0,
        curve={125: ap / 2, 500: ap},
        blocks=[use] if block else [],
    )


def test_every_arm_has_three_seeds_and_the_main_comparisons_five():
    for setting in SETTINGS:
        trials = plan(setting)
        assert len(set(trials)) == len(trials)
        seeds: dict[tuple, set[int]] = {}
        for t in trials:
            seeds.setdefault((t.task, t.distance, t.arm), set()).add(t.seed)
        assert all(len(found) >= 3 for found in seeds.values())
        for task, arms in (("crates", ("baseline", "res4")), ("walkers", ("baseline", "head"))):
            assert all(seeds[task, FAR, arm] == {1, 2, 3, 4, 5} for arm in arms)
        for hypothesis in HYPOTHESES:
            for group in (hypothesis.first, hypothesis.second):
                assert (group.task, group.distance, group.arm) in seeds
        assert {arm for _, _, arm in seeds} == set(MODELS) == set(LABELS)


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_the_wider_network_costs_what_the_block_costs(setting, tmp_path):
    costs = {
        arm: cost_of(dataclasses.replace(trial(arm), setting=setting).config(tmp_path))
        for arm in ("baseline", "res4", "wider")
    }
    # In the paper's order of multiplication, which the arm was sized by.
    (shape,) = (block.input_shape for block in costs["res4"].blocks)
    block = sum(NonLocalBlock(shape[1]).orders(shape)[POSITIONS])
    wider = costs["wider"].multiply_adds - costs["baseline"].multiply_adds
    assert block <= wider <= 1.4 * block


@pytest.mark.parametrize(
    ("arm", "task", "blocks"),
    [("baseline", "crates", 0), ("wider", "crates", 0), ("5_blocks", "crates", 5)]
    + [(arm, "crates", 1) for arm in ("res2", "res3", "res4", "res5", "gaussian", "res4_bn")]
    + [("head", "walkers", 4), ("head_res4", "walkers", 5)],
)
def test_arms_have_the_blocks_of_their_names(arm, task, blocks, tmp_path):
    model = build_model(trial(arm, task=task).config(tmp_path))
    found = [name for name, module in model.named_modules() if isinstance(module, NonLocalBlock)]
    assert len(found) == blocks
    if arm.startswith("res"):
        assert arm[:4] in found[0]


def test_walkers_start_from_the_crates_of_their_backbone(tmp_path):
    assert trial("res4").start is None
    head = trial("head_res4", 2, "walkers", 0)
    assert head.start == trial("res4", 2)
    assert str(head.start.weights(tmp_path)) == head.config(tmp_path).MODEL.WEIGHTS
    assert all(t.start in plan(t.setting) for s in SETTINGS for t in plan(s) if t.start)


def pretend_to_run(monkeypatch) -> list[list[Trial]]:
    """Let trials that are run have an outcome at once; return the list of what ran together."""
    ran = []

    def pretend(run_trial, trials, output, jobs):
        ran.append(trials)
        return [(t, outcome(50.0)) for t in trials]

    monkeypatch.setattr(runner, "_each", pretend)
    return ran


def test_trials_that_others_start_from_run_first_if_their_weights_are_gone(tmp_path, monkeypatch):
    ran = pretend_to_run(monkeypatch)
    save(tmp_path / "results", {trial("res4"): outcome(60.0), trial("baseline"): outcome(25.0)})
    there = trial("baseline").weights(tmp_path)
    there.parent.mkdir(parents=True)
    there.touch()
    wanted = [trial(arm, task="walkers") for arm in ("head", "res4", "head_res4")]
    wanted += [trial("res4"), trial("wider")]
    folder = tmp_path / "results"
    assert runner.run(PANORAMAS, wanted, output=tmp_path, folder=folder, jobs=2) == {}
    assert ran == [[trial("res4")], [*wanted[:3], trial("wider")]]
    assert set(load(tmp_path / "results")) == {*wanted, trial("baseline")}


def test_machines_of_several_sessions_are_all_named(tmp_path, monkeypatch):
    path = tmp_path / runner.MACHINES
    for processor in ("an abacus", "a slide rule", "an abacus"):
        monkeypatch.setattr(runner, "_processor", lambda name=processor: name)
        runner._note_machine(path, "video/cpu")
    (machine,) = json.loads(path.read_text()).values()
    assert machine["processor"] == "an abacus and a slide rule"
    assert " and " not in machine["torch"]


def test_results_are_read_as_they_were_written(tmp_path):
    results = {
        trial(seed=2): outcome(50.25, "res4.nonlocal_after_4"),
        trial("baseline"): outcome(25.5),
    }
    save(tmp_path, results)
    assert load(tmp_path) == results
    assert load(tmp_path / "nothing") == {}
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("expected", "low", "high", "said"),
    [
        ("more", 1, 3, "met"),
        ("more", -1, 8, "undecided"),
        ("more", -1, 3, "contradicted"),
        ("more", -3, -1, "contradicted"),
        ("same", -1, 3, "met"),
        ("same", 1, 3, "met"),
        ("same", -1, 8, "undecided"),
        ("same", 1, 8, "contradicted"),
    ],
)
def test_what_an_interval_says(expected, low, high, said):
    found = Interval(estimate=(low + high) / 2, low=low, high=high)
    assert judge(found, expected=expected, margin=5) == said
    assert judge(None, expected=expected, margin=5) == "not run"


def test_intervals_are_students_and_welchs():
    # Worked by hand: t(0.975, 4) = 2.776445 and the standard error of 1..5 is sqrt(0.5).
    found = mean([1, 2, 3, 4, 5])
    assert found.estimate == 3
    assert found.high - 3 == pytest.approx(2.776445 * math.sqrt(0.5), rel=1e-6)
    # Equal sizes and variances: Welch's degrees of freedom are 2n - 2 = 8; t is 2.306004.
    apart = difference([11, 12, 13, 14, 15], [1, 2, 3, 4, 5])
    assert apart.estimate == 10
    assert apart.high - 10 == pytest.approx(2.306004, rel=1e-6)
    # Of which one has no variance: the degrees of freedom are the other's.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_alike = difference([100] * 5, [1, 2, 3, 4, 5])
    assert one_alike.high - 97 == pytest.approx(2.776445 * math.sqrt(0.5), rel=1e-6)
    alike = difference([100, 100], [90, 90])
    assert (alike.low, alike.estimate, alike.high) == (10, 10, 10)
    with pytest.raises(ValueError, match="2 values"):
        difference([1], [1, 2])


@pytest.mark.parametrize(
    ("expected", "low", "high", "said"),
    [
        ("more", 1, 3, "yes"),
        ("more", -1, 3, "not shown"),
        ("more", -3, -1, "no, the opposite"),
        ("less", -3, -1, "yes"),
        ("same", -1, 3, "not contradicted"),
        ("same", 1, 3, "no"),
    ],
)
def test_answers(expected, low, high, said):
    hypothesis = dataclasses.replace(HYPOTHESES[0], expected=expected)
    assert answer(hypothesis, Interval(estimate=(low + high) / 2, low=low, high=high)) == said


def test_the_appendix_says_what_was_measured_and_what_is_missing(tmp_path):
    results = {}
    for task, arms in (("crates", ("baseline", "res4")), ("walkers", ("baseline", "head"))):
        for distance in (0, FAR):
            for arm in arms:
                for seed in (1, 2, 3):
                    ap = 80.0 if arm != "baseline" or distance == 0 else 25.0
                    block = None if arm == "baseline" else "backbone.bottom_up.res4.nonlocal"
                    results[trial(arm, seed, task, distance)] = outcome(ap + seed, block)
    folder = tmp_path / "experiments"
    save(folder, results)
    machines = {"panoramas/cpu": {"processor": "an abacus"}, "video/cpu": {"processor": "a mill"}}
    text = appendix(load(folder), folder, Path("experiments"), machines)
    assert "AP 82.0 against 27.0, a difference of +55.0" in "\n".join(text.splitlines()[:10])
    text = re.sub(" +", " ", text)
    assert "| crates | 384 | 1 block in res4 | 81, 82, 83 | 82.0 ± 1.0 |" in text
    assert "| 30.0 % | 10.0 % | 3.00 |" in text
    assert "crates at 384, no block, a wider ResNet (5 seeds)" in text  # is missing
    assert "an abacus" in text
    assert "a mill" not in text
    for image in ("examples.jpg", "ap_by_distance.png", "ap_by_iteration.png"):
        assert f"](experiments/{image})" in text
        assert (folder / image).stat().st_size > 10_000
    assert values(results, Group(task="crates", distance=FAR, arm="baseline")) == [26, 27, 28]


def test_share_on_the_cue_counts_the_windows_that_it_overlaps():
    grid = Grid.of_image(
        (4, 8), stride=16, subsample=2, network_size=(64, 128), size=(64, 128)
    )  # 2 x 4 windows of 32 pixels
    weights = np.array([[1.0, 2.0, -3.0, 4.0], [0.0, 0.0, 10.0, 0.0]])
    attention = Attention(
        block="b",
        query=Query(x=1, y=1, label=""),
        grid=grid,
        weights=weights,
        signed=True,
        even=1 / 8,
        padding=0.0,
    )
    # x from 40 to 70 overlaps the second and third column, y from 0 to 20 the first row.
    assert cue_share(attention, [40, 0, 30, 20]) == pytest.approx((5 / 20, 2 / 8))


@pytest.mark.parametrize("name", ["video", "boxes", "keypoints"])
def test_by_default_an_arm_has_five_seeds(name):
    experiment = EXPERIMENTS[name]
    trials = [t for t in experiment.plan("cpu") if experiment.by_default(t)]
    counts = Counter(dataclasses.replace(t, seed=0) for t in trials if t.task != "colors")
    assert set(counts.values()) == {5}
    starts = {t.start for t in trials} - {None}
    assert starts <= set(trials)


def test_the_command_prints_its_plan_and_names_what_does_not_match(tmp_path):
    script = tiny_run.ROOT / "tools" / "run_experiments.py"
    shown = tiny_run.run(script, "--plan", "--only", "cpu/crates_d0/*")
    assert shown.returncode == 0, shown.stderr
    assert "cpu/crates_d0/res4/seed3" in shown.stdout
    assert "walkers" not in shown.stdout
    unasked = tiny_run.run(script, "--plan").stdout
    for kept, replaced in (
        ("signs_match_d192/res2_longer/seed11", "signs_match_d192/res2/seed6"),
        ("signs_match_d192/res2_longer/seed15", "signs_match_d192/res2_longer/seed16"),
        ("signs_match_d192/res4/seed6", "signs_match_d192/res4/seed1"),
        ("clips_matching/gaussian_batch/seed11", "clips_matching/gaussian/seed1"),
        ("clips_control/space/seed1", "clips_matching/space/seed1"),
        ("gloves_match_d4/none/seed1", "gloves_match_d42/none/seed1"),
        ("gloves_first_row_d28/none_longer/seed6", "gloves_match_d28/none/seed1"),
        ("gloves_match_d42/none_longer/seed6", "crates_d0/res4/seed3"),
    ):
        assert f"cpu/{kept}\n" in unasked
        assert f"cpu/{replaced}\n" not in unasked
    wrong = tiny_run.run(script, "--only", "nothing")
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines()[-1].startswith("error: --only 'nothing'")
