"""Writing videos with the times of another one."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from painted import paint, read_number, write_video

from nl_detectron.data.video.streaming import Frame, VideoStream
from nl_detectron.data.video.writing import VideoWriter

SIZE = (48, 64)


def test_a_joined_recording_is_written_whole(tmp_path: Path) -> None:
    part = write_video(tmp_path / "part.ts", "libx264", 30).read_bytes()
    source, target = tmp_path / "joined.ts", tmp_path / "out.mp4"
    source.write_bytes(part * 2)
    stream = VideoStream(source)
    with VideoWriter(target, size=SIZE, rate=stream.rate) as writer:
        for frame in stream:
            writer.write(frame)
        writer.finish()
    with av.open(str(target)) as container:
        frames = [(read_number(f.to_ndarray(format="rgb24")), f.time) for f in container.decode(0)]
    numbers, times = zip(*frames, strict=True)
    assert list(numbers) == [*range(30), *range(30)]
    assert list(times) == pytest.approx([i / 25 for i in range(60)], abs=2e-3)


def test_frames_closer_than_time_base_are_written(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", size=SIZE, rate=Fraction(25)) as writer:
        for i in range(8):
            start = Fraction(i, 1_000_000)
            writer.write(Frame(pixels=paint(i), start=start, end=start))
        writer.finish()
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(0)]
    assert len(times) == 8
    assert min(np.diff(times)) > 0
