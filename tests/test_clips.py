"""The embedded clips: their making, and the cues that tell their classes."""

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from nl_detectron.data import make_clips
from nl_detectron.data.datasets import builtin as register
from nl_detectron.data.datasets.synthetic import clips
from nl_detectron.data.datasets.synthetic.clips import CLASSES, NUM_FRAMES, SIZE, class_groups
from nl_detectron.data.video.probing import probe
from nl_detectron.data.video.reading import read_frames

RELATIONS = class_groups()["relation"]
STRIDE = 3  # of the quickstart's clips


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clips(
        tmp_path_factory.mktemp("clips"),
        num_train=len(CLASSES) + len(RELATIONS),
        num_val=3,
        progress=False,
    )


def scene(label: int, seed: int) -> clips.Scene:
    return CLASSES[label].scene(np.random.default_rng([label, seed]))


def test_clips_are_registered_in_catalogs(folder, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(clips, "make_clips", lambda root: asked.append(root) or folder)
    monkeypatch.setenv("NL_DETECTRON_CACHE", str(tmp_path))
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", {})
    for _ in range(2):
        register.register_all()
    assert "nl_shapes_val" in DatasetCatalog
    assert asked == []
    assert not list(tmp_path.iterdir())
    videos = DatasetCatalog.get("nl_clips_train")
    assert asked == [tmp_path]
    assert [video["labels"] for video in videos] == [
        [i] for i in (*range(len(CLASSES)), *RELATIONS)
    ]
    metadata = MetadataCatalog.get("nl_clips_val")
    assert metadata.thing_classes == [c.name for c in CLASSES]
    assert sorted(i for of_group in metadata.class_groups.values() for i in of_group) == [
        *range(len(CLASSES))
    ]


def test_files_match_drawn_scenes(folder):
    for label, video in enumerate(sorted((folder / "train").iterdir())[: len(CLASSES)]):
        drawn = CLASSES[label].scene(np.random.default_rng([0, 0, label])).frames()
        read = read_frames(video, range(NUM_FRAMES), probe(video))
        assert np.abs(read.astype(int) - drawn).mean() < 4


@pytest.mark.parametrize("match", [True, False])
def test_colors_are_balanced_over_sides_and_moments(match):
    found = Counter()
    for seed in range(4000):
        moments, colors = clips._signals(np.random.default_rng(seed), match=match)
        assert (colors[0] == colors[1]) == match
        found.update(zip(("left", "right"), moments, colors, strict=True))
    kinds = list(product(("left", "right"), clips._MOMENTS, clips.COLORS))
    assert set(found) == set(kinds)
    assert max(found.values()) < 1.25 * min(found.values())


@pytest.mark.parametrize("start", range(NUM_FRAMES))
def test_no_temporal_pooling_joins_the_two_signals(start):
    """A clip of every third frame, which may run round, shows both, four samples apart or more."""
    taken = (start + STRIDE * np.arange(8)) % NUM_FRAMES
    first, second = (
        [i for i, frame in enumerate(taken) if begin <= frame < end]
        for begin, end in clips._MOMENTS
    )
    assert first
    assert second
    # The windows of pool2: pairs in the official code, threes in the paper.
    windows = [(i, i + 1) for i in range(0, 8, 2)] + [(i - 1, i, i + 1) for i in range(0, 8, 2)]
    for window in windows:
        assert not (set(window) & set(first) and set(window) & set(second))


@pytest.mark.parametrize("label", RELATIONS)
def test_relation_signals_are_separated_in_space_and_time(label):
    frames = scene(label, 1).frames().astype(int)
    middle = slice(26, -26)
    rocket = 3  # frames before a burst
    for t in range(NUM_FRAMES):
        changed = np.abs(frames[t] - frames[NUM_FRAMES - 1]).max(axis=(0, 2)) > 0
        assert not changed[middle].any()
        moment = [begin - rocket <= t < end for begin, end in clips._MOMENTS]
        assert changed.any() <= any(moment)
        if changed.any():
            assert changed[: SIZE // 2].any() != changed[SIZE // 2 :].any()


@pytest.mark.parametrize("label", range(len(CLASSES)))
def test_only_hovering_balloon_is_static(label):
    frames = scene(label, 0).frames().astype(int)
    changes = np.abs(np.diff(frames, axis=0)).sum()
    assert (changes == 0) == (CLASSES[label].name == "balloon hovers")
