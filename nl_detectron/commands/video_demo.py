"""Videos of any length, drawn frame by frame in constant memory.

A file is read twice for scores, first to compute and then to draw them, so that each frame shows
the window around it and the complete strip. For detections, and from a camera, every frame is read
once.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from ..data.datasets.video_list import VIDEO_SUFFIXES
from ..data.video.info import IMAGE_SUFFIXES, VideoError
from ..data.video.reading import resized
from ..data.video.streaming import Camera, Frame, Scale, VideoStream
from ..data.video.windows import SlidingWindows
from ..data.video.writing import CODECS, VideoWriter
from ..engine.video_predictor import VideoPrediction, VideoPredictor, WindowScores, best_classes
from ..utils import file_io
from ..utils.errors import UserError
from ..visualization.video_scores import COUNT, ScoreOverlay

CAMERA = Path("webcam")
LIVE_WINDOWS = 32  # windows of a camera in the strip

Show = Callable[[np.ndarray], bool]


def list_videos(path: str) -> list[Path]:
    """Return the videos of ``--video-input``: a file, a folder of videos, or one of frames.

    Raises:
        UserError: there are none.
    """
    given = f"--video-input {path}"
    folder = Path(path)
    if not folder.is_dir():
        if not folder.is_file():
            raise UserError(f"{given}: no such file; use --webcam for a camera")
        return [folder]
    try:
        inside = sorted(p for p in folder.iterdir() if p.is_file() and p.name[0] != ".")
    except OSError as error:
        raise UserError(f"{given}: cannot read the folder: {error.strerror}") from error
    videos = [p for p in inside if p.suffix.lower() in VIDEO_SUFFIXES]
    if videos:
        return videos
    if any(p.suffix.lower() in IMAGE_SUFFIXES for p in inside):
        return [folder]
    raise UserError(f"{given}: expected a folder of videos, or of a video's frames, got neither")


def videos_and_targets(
    video_input: str | None, output: str | None
) -> tuple[list[Path], list[Path]]:
    """Return the videos to read, by default the camera, and the files to write, if any."""
    videos = [CAMERA] if video_input is None else list_videos(video_input)
    return videos, file_io.output_files(videos, output, [".mp4"], endings=CODECS)


def check_step(cfg: CfgNode, step: int | None) -> None:
    """Raise UserError for a ``--window-step`` below 1 or above the length of a window."""
    length = cfg.INPUT.CLIP.FRAMES * cfg.INPUT.CLIP.STRIDE
    if step is not None and not 1 <= step <= length:
        raise UserError(
            f"--window-step must be 1 to {length}, the frames of a window (INPUT.CLIP.FRAMES times "
            f"STRIDE), got {step}"
        )


class DrawnVideo(ExitStack):
    """Frames of a video, and a video of the drawn frames; a context manager.

    Args:
        video: file, folder of frames, or `CAMERA`.
        target: file to write; None for none.
        show: takes a drawn frame and returns whether to continue; None for no window.
        scale: function from height and width of the frames to those of the drawn ones.
        title: title of the progress bar.

    Attributes:
        rate: frames a second.
        problem: reason if the video cannot be read to its end, or "".

    Raises:
        VideoError: the video cannot be opened.
    """

    def __init__(
        self,
        video: Path,
        *,
        target: Path | None = None,
        show: Show | None = None,
        scale: Scale | None = None,
        title: str = "",
    ) -> None:
        super().__init__()
        self.is_drawn, self.problem = target is not None or show is not None, ""
        self._target, self._show, self._title = target, show, title
        self._stream = Camera() if video == CAMERA else VideoStream(video, scale=scale)
        if isinstance(self._stream, Camera):
            self.callback(self._stream.close)
        self.rate = self._stream.rate
        self._writer: VideoWriter | None = None
        self._is_stopped = False

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until one is unreadable, or until the window is closed."""
        total = self._stream.expected
        count = 0
        try:
            for frame in tqdm(self._stream, total=total, unit="frame", desc=self._title):
                yield frame
                count += 1
                if self._is_stopped:
                    return
        except VideoError as error:
            self.problem = str(error)
        if count == 0:
            raise VideoError(self.problem or "it has no frame that can be read")

    def add(self, frame: Frame, drawn: np.ndarray) -> None:
        """Write and show a drawn frame, RGB uint8 ``(H, W, 3)``."""
        if self._target:
            height, width = drawn.shape[:2]
            self._writer = self._writer or self.enter_context(
                VideoWriter(self._target, size=(height, width), rate=self.rate)
            )
            self._writer.write(replace(frame, pixels=drawn))
        if self._show and not self._is_stopped:
            self._is_stopped = not self._show(drawn)

    def finish(self) -> None:
        """Write the end of the video."""
        if self._writer:
            self._writer.finish()


def for_each(
    videos: Sequence[Path], targets: Sequence[Path], run: Callable[[Path, Path | None], str]
) -> None:
    """Call `run` with each video and its target, if any; it returns a problem or "".

    Raises:
        UserError: at least one of the videos had a problem; all others are done.
    """
    bad = []
    for video, target in zip_longest(videos, targets):
        try:
            problem = run(video, target)
        except (VideoError, UserError) as error:
            problem = str(error)
        if problem:
            bad.append(f"{video}: {problem}")
    if len(bad) == 1:
        raise UserError(bad[0])
    if bad:
        raise UserError(f"{len(bad)} of {len(videos)} videos failed: {'; '.join(bad[:5])}")


def classify(
    predictor: VideoPredictor,
    video: Path,
    *,
    target: Path | None = None,
    step: int | None = None,
    show: Show | None = None,
) -> tuple[VideoPrediction, float, str]:
    """Classify all windows of a video and draw the scores on its frames.

    Returns:
        Prediction, frames per second, and the reason if the video ends early, or "".

    Raises:
        VideoError: the first frame is unreadable.
        UserError: `target` cannot be written.
    """
    if video == CAMERA:
        windows, source = _classify_camera(predictor, target=target, step=step, show=show)
    else:
        title = f"{video.name}: scores"
        with DrawnVideo(video, scale=predictor.scaled_size, title=title) as source:
            windows = list(predictor.slide(source, step=step))
    scores = predictor.pool(np.stack([window.scores for window in windows]))
    prediction = VideoPrediction(scores=scores, classes=predictor.classes, windows=windows)
    if video != CAMERA and (target or show):
        title = f"{video.name}: drawing"
        with DrawnVideo(video, target=target, show=show, title=title) as drawn:
            _draw_scores(drawn, prediction)
    return prediction, float(source.rate), source.problem


def _draw_scores(video: DrawnVideo, prediction: VideoPrediction) -> None:
    """Draw each frame's window and the strip of all windows on a video."""
    windows = prediction.windows
    count = windows[-1].last_frame + 1
    middles = np.array([(w.first_frame + w.last_frame + 1) / 2 for w in windows])
    table = np.stack([w.scores for w in windows])
    overlay: ScoreOverlay | None = None
    for number, frame in enumerate(islice(video, count)):
        if overlay is None:
            size = frame.pixels.shape[:2]
            overlay = ScoreOverlay(size, prediction.classes, best_classes(prediction.scores, COUNT))
            overlay.set_curves(middles / count, table)
        nearest = int(np.abs(middles - number - 0.5).argmin())
        video.add(frame, overlay.draw(frame.pixels, table[nearest], (number + 0.5) / count))
    video.finish()


def _classify_camera(
    predictor: VideoPredictor, *, target: Path | None, step: int | None, show: Show | None
) -> tuple[list[WindowScores], DrawnVideo]:
    """Classify and draw the frames of the first camera; each shows the last complete window.

    This ends if `show` returns False, at an interrupt, or when the camera stops.
    """
    windows = SlidingWindows.from_config(predictor.cfg, step=step)
    found: list[WindowScores] = []
    with DrawnVideo(CAMERA, target=target, show=show) as camera:
        try:
            for frame in camera:
                size = frame.pixels.shape[:2]
                small = resized(frame.pixels, predictor.scaled_size(*size))
                if window := windows.push(replace(frame, pixels=small)):
                    found += predictor.score_windows([window])
                drawn = frame.pixels
                if found:
                    overlay = _live_overlay(predictor, found[-LIVE_WINDOWS:], size)
                    drawn = overlay.draw(drawn, found[-1].scores, 1.0)
                camera.add(frame, drawn)
        except KeyboardInterrupt:
            pass
        if window := windows.finish():
            found += predictor.score_windows([window])
        camera.finish()
    return found, camera


def _live_overlay(
    predictor: VideoPredictor, windows: Sequence[WindowScores], size: tuple[int, int]
) -> ScoreOverlay:
    table = np.stack([window.scores for window in windows])
    overlay = ScoreOverlay(size, predictor.classes, best_classes(table.mean(0), COUNT))
    overlay.set_curves((1 + np.arange(len(windows))) / len(windows), table)
    return overlay


def as_dict(
    name: str | os.PathLike[str], prediction: VideoPrediction, rate: float
) -> dict[str, Any]:
    """Return a prediction, ready for JSON."""
    last = prediction.windows[-1]
    return {
        "file_name": os.fspath(name),
        "frames": last.last_frame + 1,
        "rate": rate,
        "seconds": _short(last.end),
        "top": [{"class": name, "score": _short(score)} for name, score in prediction.top()],
        "classes": list(prediction.classes),
        "scores": [_short(score) for score in prediction.scores],
        "windows": [
            {
                **asdict(window),
                "start": _short(window.start),
                "end": _short(window.end),
                "scores": [_short(score) for score in window.scores],
            }
            for window in prediction.windows
        ],
    }


def _short(number: float) -> float:
    """Round a number to seven digits, which exceeds the precision of float32 and of videos."""
    return float(f"{number:.7g}")
