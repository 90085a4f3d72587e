"""Which frames and which part of them: clips to train on, and the views to test on."""

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
        video = {"file_name": str(path), "video_id": name, "labels": [3], "info": probe(path)}
        found[name] = video
    return found


def decoded(video: dict) -> list[av.VideoFrame]:
    with av.open(video["file_name"]) as container:
        return list(container.decode(video=0))


def scaled(frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
    return frame.reformat(width=width, height=height, format="rgb24").to_ndarray()


# Testing


@pytest.mark.parametrize("name", ["wide", "short", "high"])
def test_views_match_30_view_protocol(videos: dict[str, dict], name: str) -> None:
    """Against a reading of the protocol that decodes every frame, scales it, and cuts."""
    size, length, stride = 48, 8, 5
    views = TestMapper(frames=length, stride=stride, clips=10, crops=3, size=size)(videos[name])
    whole = decoded(videos[name])
    n, h, w = len(whole), whole[0].height, whole[0].width
    scaled_h, scaled_w = round(h * size / min(h, w)), round(w * size / min(h, w))
    frames = np.stack([scaled(frame, scaled_h, scaled_w) for frame in whole])
    expected = []
    for k in range(10):
        clip = frames[[(int(n / 10 * k) + stride * t) % n for t in range(length)]]
        for where in (0, 0.5, 1):
            y, x = int((scaled_h - size) * where), int((scaled_w - size) * where)
            expected.append(clip[:, y : y + size, x : x + size].transpose(3, 0, 1, 2))
    assert torch.equal(views.pop("clips"), torch.from_numpy(np.array(expected)))
    assert views == {key: videos[name][key] for key in ("labels", "video_id", "file_name")}


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
    whole = decoded(video)
    for seed in range(6):
        random = np.random.default_rng(seed)
        start = int(random.integers(0, FRAMES - 12 + 1))
        short = int(random.integers(40, 61))
        h, w = round(90 * short / 58), short
        y, x = int(random.integers(0, h - 32 + 1)), int(random.integers(0, w - 32 + 1))
        frames = np.stack([scaled(frame, h, w) for frame in whole[start : start + 12 : 3]])
        clip = frames[:, y : y + 32, x : x + 32]
        clip = clip[:, :, ::-1] if random.random() < 0.5 else clip
        mapper = TrainMapper(frames=4, stride=3, min_size=(40, 60), crop=(32, 32))
        taken = mapper(video, np.random.default_rng(seed))["clips"][0].numpy()
        assert np.array_equal(taken, clip.transpose(3, 0, 1, 2))


# Labels that hold for a part of the video


def test_the_labels_of_a_clip_follow_the_intervals(videos: dict[str, dict]) -> None:
    """25 frames a second: each frame of a clip has its second, and any of them suffices."""
    draw = np.random.default_rng(3)
    firsts = draw.uniform(0, 3, 12)
    lasts = firsts + draw.choice((0.02, 0.3, 1), 12)
    intervals = list(zip(range(12), firsts, lasts, strict=True))
    video = {**videos["wide"], "labels": list(range(12)), "intervals": intervals}
    mapper = TrainMapper(frames=4, stride=4, min_size=(60,), is_range=False, crop=None, flip=False)
    seen = set()
    for seed in range(40):
        sample = mapper(video, np.random.default_rng(seed))
        frames = sample["clips"][0].permute(1, 2, 3, 0).numpy()
        seconds = [read_number(frame) / 25 for frame in frames]
        expected = [
            label
            for label, first, last in intervals
            if any(first <= second <= last for second in seconds)
        ]
        assert sample["labels"] == expected
        seen.add(tuple(expected))
    assert len(seen) > 5  # the intervals differ enough
    views = TestMapper(frames=4, stride=4, clips=2, crops=1, size=60)(video)
    assert views["labels"] == list(range(12))
