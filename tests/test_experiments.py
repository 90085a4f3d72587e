"""The experiments: judging, results, the default plan, trials, and the page."""

import math
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import run_experiments
import tiny_run
from detectron2.modeling import build_model

from experiments import boxes, detector, keypoints, plan, report, run, video
from experiments.plan import Trial
from experiments.report import judged, page_text, write_page
from experiments.results import Outcome, add, load
from experiments.run import PLANS
from experiments.statistics import Interval, difference, judge
from nl_detectron.config import load_config
from nl_detectron.layers import NonLocalBlock
from nl_detectron.utils.errors import UserError

DOCS = tiny_run.ROOT / "docs"
RESULTS = {name: load(DOCS / "experiments", name) for name in PLANS}
CLIPS = Trial(experiment="video", task="all", arm="spacetime", seed=1)
BOXES = Trial(experiment="boxes", task="match", distance=192, arm="block", seed=6)
KEYPOINTS = Trial(experiment="keypoints", task="match", distance=42, arm="head_longer", seed=6)


def outcome(ap: float) -> Outcome:
    run = {"AP": ap, "AP50": (100 + ap) / 2, "seconds": 100.5}
    curve = [{"iteration": 100, "AP": ap / 2}, {"iteration": 200, "AP": ap}]
    return Outcome(runs=[run], curves=curve)


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
def test_judge_compares_interval_with_margin(expected, low, high, said):
    found = Interval(estimate=(low + high) / 2, low=low, high=high)
    assert judge(found, expected=expected, margin=5) == said
    assert judge(None, expected=expected, margin=5) == "not run"


def test_difference_gives_welch_interval():
    # Equal sizes and variances: Welch's degrees of freedom are 2n - 2 = 8; t is 2.306004.
    apart = difference([11, 12, 13, 14, 15], [1, 2, 3, 4, 5])
    assert apart.estimate == 10
    assert apart.high - 10 == pytest.approx(2.306004, rel=1e-6)
    # Without variance in one: the other's degrees of freedom; t(0.975, 4) is 2.776445.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_alike = difference([100] * 5, [1, 2, 3, 4, 5])
    assert one_alike.high - 97 == pytest.approx(2.776445 * math.sqrt(0.5), rel=1e-6)
    alike = difference([100, 100], [90, 90])
    assert (alike.low, alike.estimate, alike.high) == (10, 10, 10)
    assert difference([1], [1, 2]) is None


def test_results_round_trip_and_rerun_replaces(tmp_path):
    other = replace(BOXES, arm="none", seed=5)
    add(tmp_path, BOXES, outcome(50.25))
    add(tmp_path, other, outcome(25.5))
    add(tmp_path, BOXES, outcome(75.125))
    found = load(tmp_path, "boxes")
    assert set(found.trials("boxes")) == {BOXES, other}
    assert found.values("AP", **BOXES.key) == [75.125]
    assert found.values("seconds", task="match") == [100.5, 100.5]
    assert len(found.runs) == 2
    assert found.curves.query("seed == 6").AP.tolist() == [37.5625, 75.125]
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv"}


def test_default_plan_runs_main_claims_with_five_seeds():
    trials = [trial for of_one in PLANS.values() for trial in of_one.trials()]
    published = {trial for name in PLANS for trial in RESULTS[name].trials(name)}
    assert set(trials) <= published
    assert all(trial.arm in PLANS[trial.experiment].arms for trial in published)
    assert {PLANS[t.experiment].start(t) for t in trials} <= {None, *trials}
    assert set(Counter(replace(trial, seed=0) for trial in trials).values()) == {5}
    known = {(t.experiment, t.task, t.distance or 0, t.arm) for t in trials}
    for claim in pd.read_csv(report.HERE / "claims.csv").fillna(0).itertuples():
        if claim.table == "main":
            for arm in (claim.first, claim.second):
                assert (claim.experiment, claim.task, claim.distance, arm) in known


@pytest.mark.parametrize(
    ("name", "arm", "blocks"),
    [
        ("video", "none_batch", []),
        ("video", "wider", []),
        ("video", "spacetime", ["spacetime"]),
        ("video", "space_batch", ["space"]),
        ("video", "time_batch", ["time"]),
        ("video", "i3d_spacetime", ["spacetime"]),
        ("video", "4_blocks", ["spacetime"] * 4),
        ("boxes", "wider", []),
        ("boxes", "res2_longer", ["spacetime"]),
        ("keypoints", "wider_longer", []),
        ("keypoints", "head_longer", ["spacetime"] * 4),
    ],
)
def test_arm_blocks_and_schedule_match_name(name, arm, blocks, tmp_path):
    trial = {"video": CLIPS, "boxes": BOXES, "keypoints": KEYPOINTS}[name]
    usual = PLANS[name].cfg(replace(trial, arm="none"), tmp_path).SOLVER
    cfg = PLANS[name].cfg(replace(trial, arm=arm), tmp_path)
    model = build_model(cfg)
    assert [m.axes for m in model.modules() if isinstance(m, NonLocalBlock)] == blocks
    assert usual.IMS_PER_BATCH * (3 if "batch" in arm else 1) == cfg.SOLVER.IMS_PER_BATCH
    assert usual.MAX_ITER * (2 if "longer" in arm else 1) == cfg.SOLVER.MAX_ITER


@pytest.mark.parametrize(
    ("trial", "cost_of"),
    [(CLIPS, video.cost_of), (BOXES, boxes.cost_of), (KEYPOINTS, keypoints.cost_of)],
)
def test_wider_arm_costs_at_least_as_much_as_block(trial, cost_of, tmp_path):
    wider = replace(trial, arm="wider")
    block, other = (
        cost_of(PLANS[t.experiment].cfg(t, tmp_path)).multiply_adds for t in (trial, wider)
    )
    assert block <= other < 1.1 * block


@pytest.fixture
def short(monkeypatch):
    """Let trials be of two iterations on few data."""
    few = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "6"]
    monkeypatch.setattr(plan, "load_config", lambda file, opts: load_config(file, [*opts, *few]))
    monkeypatch.setattr(video, "VALIDATION_CLIPS", 72)
    monkeypatch.setattr(detector, "VALIDATION_IMAGES", 20)


def rows(trial: Trial, output: Path) -> Outcome:
    found = run._RUN[trial.experiment](trial, output)
    return found._replace(runs=[dict(row, seconds=0) for row in found.runs])


def test_a_trial_on_clips_gives_the_same_rows_again(short, tmp_path):
    first, again = (rows(CLIPS, tmp_path) for _ in range(2))
    assert first == again
    assert rows(replace(CLIPS, seed=2), tmp_path).curves != first.curves
    scores = {row["kind"]: row["cross_entropy"] for row in first.runs}
    assert scores.pop("all") == pytest.approx(np.mean(list(scores.values())))
    assert set(scores) == {"s", "t", "st"}


def test_trials_of_detectors_have_a_page(short, tmp_path):
    folder, page = tmp_path / "results", tmp_path / "results.md"
    rows(PLANS["boxes"].start(BOXES), tmp_path)
    for trial in (BOXES, KEYPOINTS):
        add(folder, trial, rows(trial, tmp_path))
    write_page(folder, page)
    assert "not run" in page.read_text()
    drawn = {path.stem for path in folder.glob("*.png")}
    assert {"keypoints_by_distance", "video_examples"} <= drawn


def test_trials_that_others_start_from_run_first(tmp_path):
    among, wider = replace(BOXES, task="among"), replace(BOXES, arm="wider")
    colors = PLANS["boxes"].start(BOXES)
    start = PLANS["boxes"].start(wider)
    wanted = [among, wider]
    for trained, stages in ((start, [[colors], [BOXES], wanted]), (BOXES, [wanted])):
        trained.weights(tmp_path).parent.mkdir(parents=True)
        trained.weights(tmp_path).touch()
        assert run._stages(wanted, tmp_path) == stages


def test_finished_trials_are_skipped_and_failures_reported(tmp_path, monkeypatch):
    ran = []

    def pretend(trials, output, jobs):
        ran.append(trials)
        return [(t, "broken" if t.arm == "wider" else outcome(50.0)) for t in trials]

    monkeypatch.setattr(run, "_each", pretend)
    good = PLANS["boxes"].start(BOXES)
    bad = replace(good, arm="wider")
    for _ in range(2):
        failed = run.run([good, bad], output=tmp_path, folder=tmp_path / "results", jobs=1)
        assert failed == {bad: "broken"}
    assert ran == [[good, bad], [bad]]


def test_the_page_is_the_template_with_the_results():
    text = (DOCS / "experiments.md").read_text(encoding="utf-8")
    assert text == page_text(RESULTS, "experiments")
    claims = (DOCS / "experiments/claims.csv").read_text(encoding="utf-8")
    assert claims == judged(RESULTS).to_csv(index=False)
    assert "not run" not in text
    assert len(text.splitlines()) <= 150


def test_command_selects_trials_by_pattern(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run_experiments.py", "--plan", "--only", "boxes/match_8/*"])
    assert run_experiments.main() == 0
    shown = capsys.readouterr().out
    assert "boxes/match_8/block_longer/seed20" in shown
    assert "video" not in shown
    monkeypatch.setattr("sys.argv", ["run_experiments.py", "--only", "nothing"])
    with pytest.raises(UserError, match="nothing"):
        run_experiments.main()
