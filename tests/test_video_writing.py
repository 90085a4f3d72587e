"""Writing videos with the times and the sound of another one."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from painted import paint, read_number, write_video

from nl_detectron.data.video.streaming import Frame, VideoStream
from nl_detectron.data.video.writing import VideoWriter

SIZE = (48, 64)


def rewrite(source: Path, target: Path) -> list[Fraction]:
    """Write a video's frames and sound to another file; return when its frames are shown."""
    stream = VideoStream(source)
    starts = []
    frames = iter(stream)
    first = next(frames)
    with VideoWriter(
        target, size=SIZE, rate=stream.rate, sound_of=source, origin=stream.origin
    ) as writer:
        for frame in (first, *frames):
            writer.write(frame)
            starts.append(frame.start)
        writer.finish()
        assert writer.lost_sound == ""
    return starts


def read(path: Path) -> tuple[list[int], list[float], list[int]]:
    """Return numbers and times of the frames, and the time stamps of the sound."""
    with av.open(str(path)) as container:
        frames = [(read_number(f.to_ndarray(format="rgb24")), f.time) for f in container.decode(0)]
    with av.open(str(path)) as container:
        sound = [p.dts for p in container.demux(audio=0) if p.dts is not None]
    numbers, times = zip(*frames, strict=True)
    return list(numbers), list(times), sound


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_joined_recording_is_written_whole(tmp_path: Path, name: str) -> None:
    part = write_video(tmp_path / "part.ts", "libx264", 30, audio=True).read_bytes()
    source = tmp_path / "joined.ts"
    source.write_bytes(part * 2)
    starts = rewrite(source, tmp_path / name)
    numbers, times, sound = read(tmp_path / name)
    assert numbers == [*range(30), *range(30)]
    assert times == pytest.approx([i / 25 for i in range(60)], abs=2e-3)
    assert times == pytest.approx([float(start) for start in starts], abs=2e-3)
    assert len(sound) >= 4
    assert min(np.diff(sound)) > 0


def test_frames_closer_than_the_clock_can_tell_are_written(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", size=SIZE, rate=Fraction(25)) as writer:
        for i in range(8):
            start = Fraction(i, 1_000_000)
            writer.write(Frame(pixels=paint(i), start=start, end=start))
        writer.finish()
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(0)]
    assert len(times) == 8
    assert min(np.diff(times)) > 0
