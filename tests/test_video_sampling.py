"""Which frames and which part of them: clips to train on, and the views to test on."""

import random as python_random
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from painted import read_number, write_video

from nl_detectron.data.video import sampling
from nl_detectron.data.video.mapper import TestMapper, TrainMapper
from nl_detectron.data.video.probing import probe

FRAMES = 90


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Dicts of a long wide, a short wide and a high video."""
    folder = tmp_path_factory.mktemp("videos")
    sizes = {"wide": (FRAMES, (100, 60)), "short": (7, (100, 60)), "high": (FRAMES, (58, 90))}
    found = {}
    for name, (count, size) in sizes.items():
        path = write_video(folder / f"{name}.mp4", "libx264", count, size=size, options={"g": "20"})
        found[name] = {
            "file_name": str(path),
            "video_id": name,
            "labels": [3],
            "info": probe(path),
        }
    return found


def numbers(clip: torch.Tensor) -> list[int]:
    """Return the numbers painted in the frames of a whole-frame clip ``(3, T, H, W)``."""
    return [read_number(frame) for frame in clip.permute(1, 2, 3, 0).numpy()]


# Testing


@pytest.mark.parametrize("name", ["wide", "short", "high"])
def test_views_match_30_view_protocol(videos: dict[str, dict], name: str) -> None:
    """Against a reading of the protocol that decodes every frame, scales it, and cuts."""
    size, length, stride = 48, 8, 5
    views = TestMapper(frames=length, stride=stride, clips=10, crops=3, size=size)(videos[name])
    with av.open(videos[name]["file_name"]) as container:
        whole = list(container.decode(video=0))
    h, w = whole[0].height, whole[0].width
    scaled_h, scaled_w = round(h * size / min(h, w)), round(w * size / min(h, w))
    scaled = [
        frame.reformat(width=scaled_w, height=scaled_h, format="rgb24").to_ndarray()
        for frame in whole
    ]
    view, n = 0, len(whole)
    for k in range(10):
        clip = np.stack([scaled[(int(n / 10 * k) + stride * t) % n] for t in range(length)])
        for where in (0, 0.5, 1):
            y, x = int((scaled_h - size) * where), int((scaled_w - size) * where)
            expected = clip[:, y : y + size, x : x + size].transpose(3, 0, 1, 2)
            assert np.array_equal(views["clips"][view].numpy(), expected), (k, where)
            view += 1
    assert views["clips"].shape == (30, 3, length, size, size)
    assert views["clips"].dtype == torch.uint8
    assert (views["labels"], views["video_id"]) == ([3], name)
    assert views["file_name"] == videos[name]["file_name"]


@pytest.mark.parametrize(
    ("crops", "offsets"), [(1, [20]), (2, [0, 41]), (3, [0, 20, 41]), (4, [0, 13, 27, 41])]
)
def test_crops_are_spread_along_the_longer_side(crops: int, offsets: list[int]) -> None:
    wide = sampling.even_crops(50, 91, crops)
    assert wide == [(slice(0, 50), slice(x, x + 50)) for x in offsets]
    high = sampling.even_crops(91, 50, crops)
    assert high == [(slice(y, y + 50), slice(0, 50)) for y in offsets]


# Training


def test_short_video_is_looped() -> None:
    random = np.random.default_rng(4)
    for count in (1, 5, 63, 64):
        clip = sampling.random_clip(count, frames=32, stride=2, random=random)
        assert clip.tolist() == [2 * t % count for t in range(32)]


def test_training_clip_follows_random_draws(videos: dict[str, dict]) -> None:
    """The same draws again, in the same order, on frames decoded one after the other."""
    video = videos["high"]
    with av.open(video["file_name"]) as container:
        whole = list(container.decode(video=0))
    for seed in range(6):
        random = np.random.default_rng(seed)
        start = int(random.integers(0, FRAMES - 12 + 1))
        short = int(random.integers(40, 61))
        h, w = round(90 * short / 58), short
        y, x = int(random.integers(0, h - 32 + 1)), int(random.integers(0, w - 32 + 1))
        mirrored = random.random() < 0.5
        frames = [
            whole[start + 3 * t].reformat(width=w, height=h, format="rgb24").to_ndarray()
            for t in range(4)
        ]
        clip = np.stack(frames)[:, y : y + 32, x : x + 32]
        clip = clip[:, :, ::-1] if mirrored else clip
        mapper = TrainMapper(frames=4, stride=3, min_size=(40, 60), crop=(32, 32))
        taken = mapper(video, np.random.default_rng(seed))["clips"][0].numpy()
        assert np.array_equal(taken, clip.transpose(3, 0, 1, 2))


# Labels that hold for a part of the video


def test_the_labels_of_a_clip_follow_the_intervals(videos: dict[str, dict], tmp_path: Path) -> None:
    """25 frames a second: each frame of a clip has its second, and any of them suffices."""
    draw = python_random.Random(3)
    intervals = []
    for label in range(12):
        first = draw.uniform(0, 3)
        intervals.append((label, first, first + draw.choice((0.02, 0.3, 1))))
    video = {**videos["wide"], "labels": list(range(12)), "intervals": intervals}
    mapper = TrainMapper(frames=4, stride=4, min_size=(60,), is_range=False, crop=None, flip=False)
    seen = set()
    for seed in range(40):
        sample = mapper(video, np.random.default_rng(seed))
        seconds = [number / 25 for number in numbers(sample["clips"][0])]
        expected = [
            label
            for label, first, last in intervals
            if any(first <= second <= last for second in seconds)
        ]
        assert sample["labels"] == expected
        seen.add(tuple(expected))
    assert len(seen) > 5
    views = TestMapper(frames=4, stride=4, clips=2, crops=1, size=60)(video)
    assert views["labels"] == list(range(12))
