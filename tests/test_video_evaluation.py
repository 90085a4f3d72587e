"""The evaluator of videos: its figures, that each video counts once, and going on after a cut."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from nl_detectron.evaluation.metrics import average_precision, label_ranks, mean_average_precision
from nl_detectron.evaluation.video_evaluation import VideoEvaluator
from nl_detectron.utils.errors import UserError

VIEWS = 3


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng()


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_average_precision_is_scikit_learns_ties_included(levels, random):
    for _ in range(100):
        count = int(random.integers(1, 60))
        scores = random.integers(0, levels, count) / levels
        positive = random.random(count) < random.random()
        positive[random.integers(count)] = True
        expected = average_precision_score(positive, scores)
        assert average_precision(scores, positive) == pytest.approx(expected, abs=1e-9)


def test_mean_average_precision_leaves_out_classes_without_a_sample(random):
    scores = random.integers(0, 9, (40, 6)) / 9
    labels = random.random((40, 6)) < 0.3
    labels[:, 2] = False
    labels[0] = [True, True, False, True, True, True]
    rest = [0, 1, 3, 4, 5]
    expected = average_precision_score(labels[:, rest], scores[:, rest], average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(expected, abs=1e-9)
    assert np.isnan(mean_average_precision(scores[:0], labels[:0]))


def test_rank_of_the_label(random):
    scores = random.integers(0, 4, (200, 7)).astype(float)
    labels = random.random((200, 7)) < 0.3
    for row, (s, t) in enumerate(zip(scores, labels, strict=True)):
        order = sorted(range(7), key=lambda c: (-s[c], c))
        expected = min((order.index(c) for c in np.flatnonzero(t)), default=7)
        assert label_ranks(scores, labels)[row] == expected
    assert label_ranks(scores, scores == scores.max(axis=1, keepdims=True)).max() == 0


def make(
    folder: Path, labels: Sequence[Sequence[int]], *, classes: int = 7, **options
) -> VideoEvaluator:
    defaults = {"multi_label": False, "protocol": "3 clips x 1 crop of 8", "settings": ""}
    return VideoEvaluator(
        [{"video_id": f"v{i}", "labels": of_video} for i, of_video in enumerate(labels)],
        name="some_videos",
        num_classes=classes,
        num_views=VIEWS,
        output_dir=folder,
        **defaults | options,
    )


def outputs(count: int, classes: int = 7) -> list[dict[str, torch.Tensor]]:
    views = torch.rand(count, VIEWS, classes).mul(20).round().div(20)
    return [{"scores": v.mean(0), "view_scores": v} for v in views]


def process(evaluator: VideoEvaluator, predictions: list[dict], ids: Sequence[int]) -> None:
    for i in ids:
        evaluator.process([{"video_id": f"v{i}"}], [predictions[i]])


def test_accuracy_of_videos_of_clips_and_of_groups(tmp_path, random):
    labels = [[int(c)] for c in random.integers(0, 7, 50)]
    evaluator = make(tmp_path, labels, groups={"even": [0, 2, 4, 6], "none": []})
    predictions = outputs(50)
    evaluator.reset()
    process(evaluator, predictions, random.permutation(50))
    found = evaluator.evaluate()["video"]

    def accuracy(scores: list[torch.Tensor], wanted: list[int], k: int) -> float:
        top = [sorted(range(7), key=lambda c: (-s[c], c))[:k] for s in scores]
        return 100 * np.mean([t in best for t, best in zip(wanted, top, strict=True)])

    truth = [of_video[0] for of_video in labels]
    scores = [p["scores"] for p in predictions]
    views = [view for p in predictions for view in p["view_scores"]]
    even = [i for i, c in enumerate(truth) if c % 2 == 0]
    assert found == pytest.approx(
        {
            "top1": accuracy(scores, truth, 1),
            "top5": accuracy(scores, truth, 5),
            "clip_top1": accuracy(views, np.repeat(truth, VIEWS).tolist(), 1),
            "clip_top5": accuracy(views, np.repeat(truth, VIEWS).tolist(), 5),
            "top1-even": accuracy([scores[i] for i in even], [truth[i] for i in even], 1),
        }
    )
    saved = np.load(tmp_path / "scores_some_videos.npz")
    assert saved["video_id"].tolist() == [f"v{i}" for i in range(50)]
    assert np.array_equal(saved["scores"], torch.stack(scores).numpy())
    assert saved["labels"].argmax(axis=1).tolist() == truth
    assert saved["protocol"] == "3 clips x 1 crop of 8"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("key", ["scores", "view_scores"])
def test_scores_that_are_not_finite_are_an_error(tmp_path, value, multi_label, key):
    evaluator = make(tmp_path, [[0], [1], [2]], multi_label=multi_label)
    predictions = outputs(3)
    predictions[1][key].reshape(-1)[3] = value
    evaluator.reset()
    with pytest.raises(UserError, match="v1"):
        process(evaluator, predictions, range(3))


def test_stored_scores_that_are_not_finite_are_an_error(tmp_path, monkeypatch):
    evaluator = make(tmp_path, [[0], [1], [2]])
    predictions = outputs(3)
    predictions[2]["scores"][0] = float("nan")
    evaluator.reset()
    with monkeypatch.context() as patch:
        patch.setattr(VideoEvaluator, "_check_finite", lambda *_: None)  # as an earlier version
        process(evaluator, predictions, range(3))
    with pytest.raises(UserError, match="v2"):
        evaluator.evaluate()


def test_mean_average_precision_of_videos_and_of_clips(tmp_path, random):
    labels = [np.flatnonzero(random.random(7) < 0.4).tolist() for _ in range(40)]
    labels[0] = list(range(7))
    evaluator = make(tmp_path, labels, multi_label=True)
    predictions = outputs(40)
    evaluator.reset()
    process(evaluator, predictions, random.permutation(40))
    truth = np.zeros((40, 7), bool)
    for i, of_video in enumerate(labels):
        truth[i, of_video] = True
    scores = torch.stack([p["scores"] for p in predictions]).numpy()
    views = torch.cat([p["view_scores"] for p in predictions]).numpy()
    assert evaluator.evaluate()["video"] == pytest.approx(
        {
            "mAP": 100 * average_precision_score(truth, scores),
            "clip_mAP": 100 * average_precision_score(truth.repeat(VIEWS, axis=0), views),
        },
        abs=1e-9,
    )


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 1, 3], "1 of 4 videos were not evaluated; the first is 'v2'"),
        ([0, 1, 2, 3, 1], "1 videos were evaluated more than once; the first is 'v1'"),
    ],
)
def test_each_video_counts_exactly_once(ids, message, tmp_path):
    evaluator = make(tmp_path, [[0]] * 4)
    evaluator.reset()
    process(evaluator, outputs(4), ids)
    with pytest.raises(UserError, match=message):
        evaluator.evaluate()


def test_videos_without_scores_may_be_allowed(tmp_path, caplog):
    evaluator = make(tmp_path, [[0]] * 4, allow_missing=True)
    evaluator.reset()
    process(evaluator, outputs(4), [0, 3])
    assert "top1" in evaluator.evaluate()["video"]
    assert "2 of 4 videos have no scores" in caplog.text


def test_scores_of_another_number_of_views_are_refused(tmp_path):
    evaluator = make(tmp_path, [[0]])
    evaluator.reset()
    only = {"scores": torch.zeros(7), "view_scores": torch.zeros(1, 7)}
    with pytest.raises(ValueError, match=r"\(1, 7\), not \(3, 7\)"):
        evaluator.process([{"video_id": "v0"}], [only])


def test_an_evaluation_that_was_cut_off_goes_on(tmp_path):
    labels = [[i % 7] for i in range(9)]
    predictions, model = outputs(9), nn.Linear(3, 4)
    whole = make(tmp_path / "whole", labels)
    whole.reset()
    process(whole, predictions, range(9))
    expected = whole.evaluate()

    first = make(tmp_path, labels)
    assert first.resume(model) == frozenset()
    first.reset()
    process(first, predictions, [4, 2, 7])
    (path,) = (tmp_path / "unfinished_some_videos").rglob("*.bin")
    with open(path, "ab") as file:  # it was cut off in the middle of a record
        file.write(b"half a record")

    second = make(tmp_path, labels)
    assert second.resume(model) == {"v2", "v4", "v7"}
    second.reset()
    process(second, predictions, [0, 1, 3, 5, 6, 8])
    assert second.evaluate() == expected
    assert not (tmp_path / "unfinished_some_videos").exists()
    assert make(tmp_path, labels).resume(model) == frozenset()


@pytest.mark.parametrize("change", ["weights", "protocol", "settings", "labels", "nothing"])
def test_scores_of_something_else_are_never_taken(change, tmp_path):
    labels = [[i % 7] for i in range(4)]
    model = nn.Linear(3, 4).to(torch.bfloat16)
    first = make(tmp_path, labels)
    first.resume(model)
    process(first, outputs(4), [1])
    if change == "weights":
        with torch.no_grad():
            model.bias[0] += 1
    options = {change: "other"} if change in ("protocol", "settings") else {}
    second = make(tmp_path, [[6], *labels[1:]] if change == "labels" else labels, **options)
    done = {"v1"} if change == "nothing" else set()
    assert second.resume(model) == done
    assert len(list((tmp_path / "unfinished_some_videos").iterdir())) == 1


def test_fewer_processes_take_over_the_files_of_more(tmp_path, monkeypatch):
    labels, predictions, model = [[i % 7] for i in range(6)], outputs(6), nn.Linear(3, 4)
    rank = "nl_detectron.evaluation.video_evaluation.comm.get_rank"
    world = "nl_detectron.evaluation.video_evaluation.comm.get_world_size"
    for i in (2, 1, 0):
        with monkeypatch.context() as patch:
            patch.setattr(rank, lambda i=i: i)
            patch.setattr(world, lambda: 3)
            patch.setattr("nl_detectron.evaluation.video_evaluation.comm.all_gather", lambda x: [x])
            patch.setattr(
                "nl_detectron.evaluation.video_evaluation.comm.is_main_process", lambda: False
            )
            patch.setattr("nl_detectron.evaluation.video_evaluation.comm.synchronize", lambda: None)
            one = make(tmp_path, labels)
            one.resume(model)
            process(one, predictions, [i])
    alone = make(tmp_path, labels)
    assert alone.resume(model) == {"v0", "v1", "v2"}
    alone.reset()
    process(alone, predictions, [3, 4, 5])
    assert set(alone.evaluate()["video"]) == {"top1", "top5", "clip_top1", "clip_top5"}
