"""The experiment: its plan, its records, and what the page says about them."""

import dataclasses
import json
import math
import warnings
from collections import Counter

import numpy as np
import pytest
import tiny_run

from experiments import run as runner
from experiments.plan import Trial
from experiments.registry import EXPERIMENTS
from experiments.statistics import Interval, difference, judge, mean
from experiments.trial import BlockUse, Outcome, cue_share
from nl_detectron.visualization import Attention, Query
from nl_detectron.visualization.geometry import Grid


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


def pretend_to_run(monkeypatch) -> list[list[Trial]]:
    """Let trials that are run have an outcome at once; return the list of what ran together."""
    ran = []

    def pretend(run_trial, trials, output, jobs):
        ran.append(trials)
        return [(t, outcome(50.0)) for t in trials]

    monkeypatch.setattr(runner, "_each", pretend)
    return ran


def test_machines_of_several_sessions_are_all_named(tmp_path, monkeypatch):
    path = tmp_path / runner.MACHINES
    for processor in ("an abacus", "a slide rule", "an abacus"):
        monkeypatch.setattr(runner, "_processor", lambda name=processor: name)
        runner._note_machine(path, "video/cpu")
    (machine,) = json.loads(path.read_text()).values()
    assert machine["processor"] == "an abacus and a slide rule"
    assert " and " not in machine["torch"]


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
    shown = tiny_run.run(script, "--plan", "--only", "cpu/signs_match_d8/*")
    assert shown.returncode == 0, shown.stderr
    assert "cpu/signs_match_d8/res4/seed3" in shown.stdout
    assert "clips" not in shown.stdout
    unasked = tiny_run.run(script, "--plan").stdout
    for kept, replaced in (
        ("signs_match_d192/res2_longer/seed11", "signs_match_d192/res2/seed6"),
        ("signs_match_d192/res2_longer/seed15", "signs_match_d192/res2_longer/seed16"),
        ("signs_match_d192/res4/seed6", "signs_match_d192/res4/seed1"),
        ("clips_matching/gaussian_batch/seed11", "clips_matching/gaussian/seed1"),
        ("clips_control/space/seed1", "clips_matching/space/seed1"),
        ("gloves_match_d4/none/seed1", "gloves_match_d42/none/seed1"),
        ("gloves_first_row_d28/none_longer/seed6", "gloves_match_d28/none/seed1"),
        ("gloves_match_d42/none_longer/seed6", "gloves_match_d42/none/seed1"),
    ):
        assert f"cpu/{kept}\n" in unasked
        assert f"cpu/{replaced}\n" not in unasked
    wrong = tiny_run.run(script, "--only", "nothing")
    assert wrong.returncode == 1
    assert wrong.stderr.strip().splitlines()[-1].startswith("error: --only 'nothing'")
