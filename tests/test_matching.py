"""Matching in clips: the drawings, and C2D's features, which never see both objects."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from matching import objects, scale_at_random

from experiments.drawing import COLORS
from experiments.plan import Trial
from experiments.video import FAR, KINDS, PLAN, SIDE, TASKS, Task, draw_clips

COUNT = 144  # of clips: every label, kind and pair of colors


def draw(task: Task, *, count: int = COUNT, seed: int = 5):
    return draw_clips(np.random.default_rng(seed), task, count)


def seen(clip: torch.Tensor) -> list[tuple[int, int, int, int, bool]]:
    """Return frame, left, top, color and shape of each object in a clip, by frame."""
    frames = clip.permute(1, 2, 3, 0).numpy()
    return [(t, *one) for t, frame in enumerate(frames) for one in objects(frame, SIDE)]


@pytest.mark.parametrize("task", list(TASKS))
def test_labels_distances_and_times_match_pixels(task):
    clips = draw(TASKS[task])
    for clip, label, kind, places in zip(
        clips.frames, clips.labels, clips.kinds, clips.places, strict=True
    ):
        (t1, x1, y1, c1, cross1), (t2, x2, y2, c2, cross2) = seen(clip)
        assert sorted(places.tolist()) == sorted([[t1, y1, x1], [t2, y2, x2]])
        assert cross1 == cross2
        assert label == (cross1 if task == "control" else c1 == c2)
        assert {"s": t1 == t2, "t": (x1, y1) == (x2, y2), "st": t1 != t2}[KINDS[kind]]
        if "s" in KINDS[kind]:
            assert abs(x1 - x2) - SIDE == TASKS[task].gap
        if "t" in KINDS[kind] and TASKS[task].lag is None:
            assert t1 // 2 != t2 // 2  # the pooling joins frames 0 and 1, 2 and 3, ...
        elif "t" in KINDS[kind]:
            assert abs(t1 - t2) == TASKS[task].lag


def test_kinds_labels_and_color_pairs_are_balanced():
    clips = draw(Task(), count=144)
    for kind in range(len(KINDS)):
        for label in (0, 1):
            chosen = (clips.kinds == kind) & (clips.labels == label)
            assert chosen.sum() == 24
            drawn = map(seen, clips.frames[torch.from_numpy(chosen)])
            pairs = Counter(tuple(sorted((first[3], second[3]))) for first, second in drawn)
            colors = range(len(COLORS))
            every = zip(colors, colors, strict=True) if label else combinations(colors, 2)
            assert pairs == dict.fromkeys(every, 6 if label else 4)


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
    trial = Trial(experiment="video", task="all", arm="none", seed=1)
    model = scale_at_random(build_model(PLAN.cfg(trial, tmp_path)).eval())
    clips = draw(Task(gap=gap), count=48)
    both = _changed(model, clips, 0) & _changed(model, clips, 1)
    in_space = clips.kinds == KINDS.index("s")
    assert both[torch.from_numpy(in_space)].any() == shared
    assert not both[torch.from_numpy(~in_space)].any()
