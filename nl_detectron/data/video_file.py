"""Writing frames to a video file."""

from pathlib import Path

import numpy as np

from ..utils.errors import UserError


def write(path: Path, frames: np.ndarray, *, rate: int) -> None:
    """Write an H.264 file in MP4; with the same libraries the same frames give the same bytes.

    Args:
        frames: RGB uint8 ``(T, H, W, 3)``; H and W are even.
        rate: frames per second.

    Raises:
        UserError: PyAV is not installed.
        OSError: `path` cannot be written.
    """
    try:
        import av  # an extra: only who makes or reads videos needs it
    except ImportError as error:
        raise UserError(
            "videos are written with PyAV, which is not installed: pip install "
            "'nl_detectron[video]'"
        ) from error
    with av.open(str(path), "w") as container:
        # x264's slower presets read memory that they have not set: their bytes differ at times.
        options = {"preset": "ultrafast", "crf": "20"}
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
