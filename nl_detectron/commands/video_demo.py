"""The demo on videos of any length, drawn frame by frame.

A file is read twice for scores, first to compute and then to draw them, so that each frame shows
the window around it and the complete strip. For detections, every frame is read once.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.video_visualizer import VideoVisualizer
from tqdm import tqdm

from ..config import is_video
from ..data.datasets.video_list import VIDEO_SUFFIXES
from ..data.inputs import list_images, report_bad
from ..data.video.info import VideoError
from ..data.video.streaming import Camera, Frame, Scale, VideoStream
from ..data.video.writing import CODECS, VideoWriter
from ..engine.predictor import Predictor, to_coco_results
from ..engine.video_predictor import VideoPrediction, VideoPredictor, best_classes
from ..utils.errors import UserError
from ..utils.file_io import output_files
from ..visualization import draw_instances
from ..visualization.detections import enlarge
from ..visualization.video_scores import COUNT, ScoreOverlay
from . import demo

CAMERA = Path("webcam")

Show = Callable[[np.ndarray], bool]


def list_videos(given: str | None, output: str | None) -> tuple[list[Path], list[Path]]:
    """Return the videos of ``--video-input``, by default the camera, and the files to write.

    Raises:
        UserError: there are none, or a file cannot be written.
    """
    if given is None:
        videos = [CAMERA]
    elif os.path.isdir(given):
        # Without videos, it is a folder of a video's frames.
        inside = sorted(Path(given).iterdir())
        videos = [p for p in inside if p.suffix.lower() in VIDEO_SUFFIXES] or [Path(given)]
    else:
        videos = list(list_images([given]))
    return videos, output_files(videos, output, ".mp4", endings=CODECS)


class DrawnVideo(ExitStack):
    """Frames of a video, and a video of the drawn frames; a context manager.

    Args:
        video: file, folder of frames, or `CAMERA`.
        target: file to write; None for none.
        show: takes a drawn frame and returns whether to continue; None for no window.
        scale: function from height and width of a file's frames to those of the yielded ones.
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
        self.problem = ""
        self._target, self._show, self._title = target, show, title
        self._stream = Camera() if video == CAMERA else VideoStream(video, scale=scale)
        self.rate = self._stream.rate
        self._writer: VideoWriter | None = None
        self._is_stopped = False

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until one is unreadable, or until the window is closed."""
        count = 0
        try:
            for frame in tqdm(
                self._stream, total=self._stream.expected, unit="frame", desc=self._title
            ):
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
            self._writer = self._writer or self.enter_context(
                VideoWriter(self._target, size=drawn.shape[:2], rate=self.rate)
            )
            self._writer.write(replace(frame, pixels=drawn))
        if self._show and not self._is_stopped:
            self._is_stopped = not self._show(drawn)


def run_on_videos(cfg: CfgNode, args: argparse.Namespace, show: Show | None) -> None:
    """Detect or classify in the videos of the command line, one after another.

    Args:
        show: takes a drawn frame and returns whether to continue; None for no window.

    Raises:
        UserError: at least one of the videos had a problem; all others are done.
    """
    videos, targets = list_videos(args.video_input, args.output)
    run: Callable[..., tuple[str, str]]
    if is_video(cfg):
        names, at_once = args.class_names, args.batch_size
        run = partial(classify, VideoPredictor(cfg, views_at_once=at_once, classes=names))
    else:
        run = partial(detect, demo.build_predictor(cfg, args))
    bad = []
    # The JSON of a single classified video is an object; detections are a list, as in COCO.
    is_list = not is_video(cfg) or len(videos) > 1
    with demo.json_file(args.json, is_list=is_list) as results:
        for video, target in zip_longest(videos, targets):
            try:
                summary, problem = run(video, target, args, show, results)
                print(f"{video}: {summary}" + (f", drawn in {target}" if target else ""))
            except (VideoError, UserError) as error:
                problem = str(error)
            if problem:
                bad.append(video)
                print(f"{video}: {problem}", file=sys.stderr)
    report_bad(bad, len(videos), kind="videos")


def detect(
    predictor: Predictor,
    path: Path,
    target: Path | None,
    args: argparse.Namespace,
    show: Show | None,
    results: list[dict[str, Any]],
) -> tuple[str, str]:
    """Detect in each frame of a video, and draw the frames for `target` and `show`.

    With ``--json``, the detections are added to `results`.

    Returns:
        A summary, and the reason if the video ends early, or "".

    Raises:
        VideoError: the video cannot be opened, or has no readable frame.
        UserError: `target` cannot be written.
    """
    count, visualizer = 0, VideoVisualizer(predictor.metadata)
    with DrawnVideo(path, target=target, show=show) as video:
        images = ((frame, frame.pixels) for frame in video)
        try:
            for (frame, pixels), instances in demo.predict(predictor, images, args.batch_size):
                if args.json:
                    found = to_coco_results(instances, count, predictor.metadata)
                    results.extend({**result, "file_name": str(path)} for result in found)
                count += 1
                if target or show:
                    drawn = draw_instances(pixels, instances, predictor.metadata, visualizer)
                    video.add(frame, drawn)
        except KeyboardInterrupt:  # the end of a camera's video
            if path != CAMERA:
                raise
    return f"{count} frames", video.problem


def classify(
    predictor: VideoPredictor,
    path: Path,
    target: Path | None,
    args: argparse.Namespace,
    show: Show | None,
    results: list[dict[str, Any]],
) -> tuple[str, str]:
    """Score all windows of a video, add them to `results`, and draw them as `detect` does.

    Returns and errors are also those of `detect`.
    """
    with DrawnVideo(path, scale=predictor.scaled_size, title=f"{path.name}: scores") as source:
        windows = list(predictor.slide(source, step=args.window_step))
    table = np.stack([window.scores for window in windows])
    scores = predictor.pool(table)
    prediction = VideoPrediction(scores=scores, classes=predictor.classes, windows=windows)
    results.append(as_dict(path, prediction, float(source.rate)))
    if target or show:
        count = windows[-1].last_frame + 1
        middles = np.array([(w.first_frame + w.last_frame + 1) / 2 for w in windows])
        overlay: ScoreOverlay | None = None
        title = f"{path.name}: drawing"
        with DrawnVideo(path, target=target, show=show, title=title) as drawn:
            for number, frame in zip(range(count), drawn, strict=False):
                pixels = enlarge(frame.pixels)
                overlay = overlay or ScoreOverlay(
                    pixels.shape[:2],
                    predictor.classes,
                    best_classes(scores, COUNT),
                    times=middles / count,
                    scores=table,
                )
                middle = number + 0.5
                nearest = int(np.abs(middles - middle).argmin())
                drawn.add(frame, overlay.draw(pixels, table[nearest], middle / count))
    best = ", ".join(f"{100 * score:.0f} % {name}" for name, score in prediction.top(3))
    return best, source.problem


def as_dict(
    name: str | os.PathLike[str], prediction: VideoPrediction, rate: float
) -> dict[str, Any]:
    """Return a prediction, ready for JSON."""
    last = prediction.windows[-1]
    return {
        "file_name": os.fspath(name),
        "frames": last.last_frame + 1,
        "rate": rate,
        "seconds": last.end,
        "top": [{"class": name, "score": score} for name, score in prediction.top()],
        "classes": list(prediction.classes),
        "scores": prediction.scores.tolist(),
        "windows": [
            asdict(window) | {"scores": window.scores.tolist()} for window in prediction.windows
        ],
    }
