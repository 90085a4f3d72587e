"""Matching in clips: the drawings, and C2D's features, which never see both objects."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from experiments.drawing import COLORS
from experiments.plan import Trial
from experiments.video import FAR, KINDS, PLAN, SIDE, TASKS, Task, draw_clips

COUNT = 144  # of clips: every label, kind and pair of colors


def draw(task: Task, *, count: int = COUNT, seed: int = 5):
    return draw_clips(np.random.default_rng(seed), task, count)


def seen(clip: torch.Tensor) -> list[tuple[int, int, int, int, bool]]:
    """Return frame, top, left, color and shape (cross or not) of each object, from its pixels."""
    found = []
    pixels = clip.permute(1, 2, 3, 0).numpy().astype(int)
    for number, color in enumerate(COLORS.values()):
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
def test_labels_distances_and_times_match_pixels(task):
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


def test_kinds_labels_and_color_pairs_are_balanced():
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
    model = build_model(PLAN.cfg(trial, tmp_path)).eval()
    for parameter in model.backbone.parameters():
        if parameter.dim() == 1:  # the norms' scales, of which some start at zero
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    clips = draw(Task(gap=gap), count=48)
    both = _changed(model, clips, 0) & _changed(model, clips, 1)
    in_space = clips.kinds == KINDS.index("s")
    assert both[torch.from_numpy(in_space)].any() == shared
    assert not both[torch.from_numpy(~in_space)].any()
