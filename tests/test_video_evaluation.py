"""The evaluator of videos: its figures, that each video counts once, and going on after a cut."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from nl_detectron.evaluation.metrics import mean_average_precision
from nl_detectron.evaluation.score_file import ScoreFile
from nl_detectron.evaluation.video_evaluation import VideoEvaluator
from nl_detectron.utils.errors import UserError

VIEWS = 3


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng()


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


@pytest.mark.parametrize("key", ["scores", "view_scores"])
def test_scores_that_are_not_finite_are_an_error(tmp_path, key):
    evaluator = make(tmp_path, [[0], [1], [2]])
    predictions = outputs(3)
    predictions[1][key].reshape(-1)[3] = float("nan")
    evaluator.reset()
    with pytest.raises(UserError, match="v1"):
        process(evaluator, predictions, range(3))


def test_mean_average_precision_of_videos_and_of_clips(tmp_path, random):
    truth = random.random((40, 7)) < 0.4
    truth[0] = True
    truth[:, 5] = False  # the class does not count
    evaluator = make(tmp_path, [np.flatnonzero(row).tolist() for row in truth], multi_label=True)
    predictions = outputs(40)
    evaluator.reset()
    process(evaluator, predictions, random.permutation(40))
    scores = torch.stack([p["scores"] for p in predictions]).numpy()
    views = torch.cat([p["view_scores"] for p in predictions]).numpy()
    expected = {
        key: 100 * average_precision_score(np.delete(t, 5, 1), np.delete(s, 5, 1))
        for key, t, s in (("mAP", truth, scores), ("clip_mAP", truth.repeat(VIEWS, axis=0), views))
    }
    assert evaluator.evaluate()["video"] == pytest.approx(expected, abs=1e-9)
    assert np.isnan(mean_average_precision(scores[:0], truth[:0]))


@pytest.mark.parametrize(
    ("ids", "wrong"),
    [([0, 1, 3], "v2"), ([0, 1, 2, 3, 1], "v1")],
)
def test_each_video_counts_exactly_once(ids, wrong, tmp_path):
    evaluator = make(tmp_path, [[0]] * 4)
    evaluator.reset()
    process(evaluator, outputs(4), ids)
    with pytest.raises(UserError, match=f"'{wrong}'"):
        evaluator.evaluate()


def test_videos_without_scores_may_be_allowed(tmp_path, caplog):
    evaluator = make(tmp_path, [[0]] * 4, allow_missing=True)
    evaluator.reset()
    process(evaluator, outputs(4), [0, 3])
    assert "top1" in evaluator.evaluate()["video"]
    assert "2 of 4 videos have no scores" in caplog.text


def test_an_evaluation_that_was_cut_off_goes_on(tmp_path):
    labels = [[i % 7] for i in range(9)]
    predictions, model = outputs(9), nn.Linear(3, 4)
    first, second = make(tmp_path, labels), make(tmp_path, labels)
    assert first.resume(model) == frozenset()
    process(first, predictions, [4, 2, 7])
    (path,) = (tmp_path / "unfinished_some_videos").rglob("*.bin")
    with open(path, "ab") as file:  # it was cut off in the middle of a record
        file.write(b"half a record")
    assert second.resume(model) == {"v2", "v4", "v7"}
    process(second, predictions, [0, 1, 3, 5, 6, 8])
    second.evaluate()
    scores = np.load(tmp_path / "scores_some_videos.npz")["scores"]
    assert np.array_equal(scores, torch.stack([p["scores"] for p in predictions]).numpy())
    assert make(tmp_path, labels).resume(model) == frozenset()


def test_scores_of_all_processes_are_read_by_any_number(tmp_path):
    dtype = np.dtype("<i4")

    def files(world_size: int) -> list[ScoreFile]:
        options = {"identity": "a", "dtype": dtype, "world_size": world_size}
        return [ScoreFile(tmp_path, rank=rank, **options) for rank in range(world_size)]

    for rank, file in enumerate(files(3)):
        file.open()
        file.append(np.array(rank, dtype))
    for world_size in (1, 2, 4):
        read = np.concatenate([file.read() for file in files(world_size)])
        assert sorted(read) == [0, 1, 2]


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
