"""Writing videos with the times of another one."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from painted import paint, read_number, write_video

from nl_detectron.data.video.streaming import Frame, VideoStream
from nl_detectron.data.video.writing import VideoWriter


def written(path: Path, frames: Iterable[Frame]) -> list[tuple[int, float]]:
    """Write frames, and return the number and the time of those in the file."""
    with VideoWriter(path, size=(48, 64), rate=Fraction(25)) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(path)) as container:
        return [(read_number(f.to_ndarray(format="rgb24")), f.time) for f in container.decode(0)]


def test_a_joined_recording_is_written_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "joined.ts", "libx264", 30)
    path.write_bytes(path.read_bytes() * 2)
    numbers, times = zip(*written(tmp_path / "out.mp4", VideoStream(path)), strict=True)
    assert list(numbers) == [*range(30), *range(30)]
    assert list(times) == pytest.approx([i / 25 for i in range(60)], abs=2e-3)


def test_frames_closer_than_time_base_are_written(tmp_path: Path) -> None:
    starts = [Fraction(i, 1_000_000) for i in range(8)]
    frames = [Frame(pixels=paint(i), start=start, end=start) for i, start in enumerate(starts)]
    numbers, times = zip(*written(tmp_path / "out.mp4", frames), strict=True)
    assert list(numbers) == list(range(8))
    assert min(np.diff(times)) > 0
