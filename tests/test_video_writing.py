"""Writing videos."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from painted import paint

from nl_detectron.data.video.streaming import Frame
from nl_detectron.data.video.writing import VideoWriter


def test_frames_closer_than_time_base_are_written(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", size=(48, 64), rate=Fraction(25)) as writer:
        for i in range(8):
            start = Fraction(i, 1_000_000)
            writer.write(Frame(pixels=paint(i), start=start, end=start))
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [frame.time for frame in container.decode(0)]
    assert len(times) == 8
    assert min(np.diff(times)) > 0
