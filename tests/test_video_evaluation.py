"""The evaluator of videos: its figures, and that each video counts once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from nl_detectron.evaluation.video_evaluation import VideoEvaluator
from nl_detectron.utils.errors import UserError

VIEWS = 3
RANDOM = np.random.default_rng(0)


def make(folder: Path, labels: Sequence[Sequence[int]], **options) -> VideoEvaluator:
    defaults = {"multi_label": False, "protocol": "3 clips x 1 crop of 8"}
    return VideoEvaluator(
        [{"video_id": f"v{i}", "labels": of_video} for i, of_video in enumerate(labels)],
        name="some_videos",
        num_classes=7,
        output_dir=folder,
        **defaults | options,
    )


def outputs(count: int) -> list[dict[str, torch.Tensor]]:
    views = torch.rand(count, VIEWS, 7).mul(20).round().div(20)
    return [{"scores": v.mean(0), "view_scores": v} for v in views]


def process(evaluator: VideoEvaluator, predictions: list[dict], ids: Sequence[int]) -> None:
    for i in ids:
        evaluator.process([{"video_id": f"v{i}"}], [predictions[i]])


def test_accuracy_of_videos_of_clips_and_of_groups(tmp_path):
    labels = [[int(c)] for c in RANDOM.integers(0, 7, 50)]
    evaluator = make(tmp_path, labels, groups={"even": [0, 2, 4, 6], "none": []})
    predictions = outputs(50)
    evaluator.reset()
    process(evaluator, predictions, [*RANDOM.permutation(50), 7])  # one of them twice
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


@pytest.mark.parametrize("key", ["scores", "view_scores"])
def test_scores_that_are_not_finite_are_an_error(tmp_path, key):
    (prediction,) = outputs(1)
    prediction[key].reshape(-1)[3] = float("nan")
    with pytest.raises(UserError, match="v0"):
        process(make(tmp_path, [[0]]), [prediction], [0])


def test_mean_average_precision_of_videos_and_of_clips(tmp_path):
    truth = RANDOM.random((40, 7)) < 0.4
    truth[0] = True
    truth[:, 5] = False  # the class does not count
    evaluator = make(tmp_path, [np.flatnonzero(row).tolist() for row in truth], multi_label=True)
    predictions = outputs(40)
    evaluator.reset()
    process(evaluator, predictions, RANDOM.permutation(40))
    scores = torch.stack([p["scores"] for p in predictions]).numpy()
    views = torch.cat([p["view_scores"] for p in predictions]).numpy()
    expected = {
        key: 100 * average_precision_score(np.delete(t, 5, 1), np.delete(s, 5, 1))
        for key, t, s in (("mAP", truth, scores), ("clip_mAP", truth.repeat(VIEWS, axis=0), views))
    }
    assert evaluator.evaluate()["video"] == pytest.approx(expected, abs=1e-9)


def test_a_missing_video_is_an_error(tmp_path):
    evaluator = make(tmp_path, [[0]] * 3)
    process(evaluator, outputs(3), [0, 2])
    with pytest.raises(KeyError):
        evaluator.evaluate()
