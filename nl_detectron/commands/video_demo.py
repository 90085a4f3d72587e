"""Videos of any length with detections, or the scores of sliding windows, drawn on the frames.

Memory is constant. For the scores a file is read twice: to compute them, and to draw them, so that
each frame shows the window around it and the strip is whole from the first frame on. For
detections, and from a camera, every frame is read once.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from tqdm import tqdm

from ..data.datasets.video_list import VIDEO_SUFFIXES
from ..data.video.info import IMAGE_SUFFIXES, VideoError
from ..data.video.reading import resized
from ..data.video.streaming import Camera, Frame, VideoStream
from ..data.video.windows import SlidingWindows
from ..data.video.writing import CODECS, VideoWriter
from ..engine.predictor import Predictor
from ..engine.video_predictor import VideoPrediction, VideoPredictor, WindowScores, best_classes
from ..utils import file_io
from ..utils.errors import UserError
from ..visualization import draw_instances
from ..visualization.video_scores import COUNT, ScoreOverlay

CAMERA = Path("webcam")
LIVE_WINDOWS = 32  # of a camera, that the strip shows

Show = Callable[[np.ndarray], bool]


def list_videos(path: str) -> list[Path]:
    """Return the videos that ``--video-input`` means: a file, a folder of them, or of frames.

    Raises:
        UserError: there is none.
    """
    given = f"--video-input {path}"
    if kind := file_io.special_file(path):
        raise UserError(f"{given}: it is {kind}, not a video; for a camera give --webcam")
    folder = Path(path)
    if not folder.is_dir():
        if not folder.is_file():
            raise UserError(f"{given}: no such file")
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
    raise UserError(f"{given}: the folder has neither videos nor frames of one")


def videos_and_targets(
    video_input: str | None, output: str | None
) -> tuple[list[Path], list[Path]]:
    """Return what to read, by default the camera, and the files to draw it in, if any."""
    videos = [CAMERA] if video_input is None else list_videos(video_input)
    if output is None:
        return videos, []
    return videos, file_io.output_files(videos, output, [".mp4"], endings=CODECS)


def check_step(cfg: CfgNode, step: int | None) -> None:
    """Raise UserError for a ``--window-step`` that is none, or leaves frames out."""
    length = cfg.INPUT.CLIP.FRAMES * cfg.INPUT.CLIP.STRIDE
    if step is not None and not 1 <= step <= length:
        raise UserError(
            f"--window-step {step}: allowed: 1 to {length}, the frames of a window "
            "(INPUT.CLIP.FRAMES times STRIDE)"
        )


def draw_videos(
    predictor: VideoPredictor,
    videos: Sequence[Path],
    *,
    targets: Sequence[Path] = (),
    json_file: str | None = None,
    step: int | None = None,
    show: Show | None = None,
) -> None:
    """Classify videos, draw the scores on them, and write the scores.

    What cannot be read is left out and named in the end; of a video that breaks off, what is
    before that is drawn.

    Args:
        targets: a file for each video; () for none.
        json_file: for an object, or for a folder of videos a list of them.
        step: frames from a window to the next.
        show: takes a drawn frame; returns whether the next one is wanted.

    Raises:
        UserError: one of the videos cannot be read, or not to its end; the others are done.
    """
    with _JsonFile(json_file, is_list=len(videos) > 1) as results:

        def draw_one(video: Path, target: Path | None) -> str:
            prediction, rate, problem = classify(predictor, video, step=step)
            results.add(video, prediction, rate)
            if target or show:
                draw(video, prediction, target=target, show=show)
            best = ", ".join(f"{100 * score:.0f} % {name}" for name, score in prediction.top(3))
            print(f"{video}: {best}" + (f", drawn in {target}" if target else ""))
            return problem

        _each(videos, targets, draw_one)


def detect_in_videos(
    predictor: Predictor,
    videos: Sequence[Path],
    add: Callable[[Path, int, Instances], None],
    *,
    targets: Sequence[Path] = (),
    batch_size: int = 1,
    show: Show | None = None,
) -> None:
    """Draw what a detector finds in each frame of videos.

    Args:
        videos: files or folders of frames; `CAMERA` is the first camera, which ends at an interrupt
            as well.
        add: takes a video, the number of a frame from 0, and what is found in it.
        targets: a file for each video; () for none.
        batch_size: frames that go through the network at once.
        show: takes a drawn frame; returns whether the next one is wanted.

    Raises:
        UserError: one of the videos cannot be read, or not to its end; the others are done.
    """

    def detect(video: Path, target: Path | None) -> str:
        count, wants_more = 0, True
        problems: list[str] = []
        visualizer = VideoVisualizer(predictor.metadata)
        with ExitStack() as closing:
            stream = _opened(video, closing)
            writer: VideoWriter | None = None
            bar = tqdm(_readable(stream, problems), total=stream.expected, unit="frame")
            frames = iter(closing.enter_context(bar))
            try:
                while wants_more and (chunk := list(islice(frames, batch_size))):
                    pixels = [frame.pixels[..., ::-1] for frame in chunk]
                    found = predictor(pixels, batch_size=batch_size)
                    for frame, instances in zip(chunk, found, strict=True):
                        add(video, count, instances)
                        count += 1
                        if not (target or show):
                            continue
                        drawn = draw_instances(
                            frame.pixels, instances, predictor.metadata, visualizer
                        )
                        if target:
                            size = drawn.shape[:2]
                            writer = writer or _writer(target, video, stream, size, closing)
                            writer.write(replace(frame, pixels=drawn))
                        wants_more = wants_more and (show is None or show(drawn))
            except KeyboardInterrupt:
                if video != CAMERA:
                    raise
            if writer:
                _finish(writer, is_whole=wants_more and not problems)
        if count == 0:
            return "".join(problems) or "it has no frame that can be read"
        print(f"{video}: {count} frames" + (f", drawn in {target}" if target else ""))
        return "".join(problems)

    _each(videos, targets, detect)


def _opened(video: Path, closing: ExitStack) -> VideoStream | Camera:
    if video != CAMERA:
        return VideoStream(video)
    camera = Camera()
    closing.callback(camera.close)
    return camera


def _readable(stream: Iterable[Frame], problems: list[str]) -> Iterator[Frame]:
    """Yield the frames until one cannot be read, and put the reason into `problems`."""
    try:
        yield from stream
    except VideoError as error:
        problems.append(str(error))


def _writer(
    target: Path,
    video: Path,
    stream: VideoStream | Camera,
    size: tuple[int, ...],
    closing: ExitStack,
) -> VideoWriter:
    """Open `target` for drawn frames of a video, with its sound."""
    height, width = size
    return closing.enter_context(
        VideoWriter(
            target,
            size=(height, width),
            rate=stream.rate,
            sound_of=video if video.is_file() else None,
            origin=stream.origin,
        )
    )


def _finish(writer: VideoWriter, *, is_whole: bool) -> None:
    writer.finish(is_whole=is_whole)
    if writer.lost_sound:
        tqdm.write(f"{writer.path} has no sound: {writer.lost_sound}", file=sys.stderr)


def _each(
    videos: Sequence[Path], targets: Sequence[Path], run: Callable[[Path, Path | None], str]
) -> None:
    """Call `run` with each video and its file to write; raise UserError for those that fail."""
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
    predictor: VideoPredictor, video: Path, *, step: int | None = None
) -> tuple[VideoPrediction, float, str]:
    """Return what the model says of all windows of a video, its rate, and why it breaks off, or "".

    Raises:
        VideoError: not even its first frame can be read.
    """
    stream = VideoStream(video, scale=predictor.scaled_size)
    problems: list[str] = []
    frames = tqdm(
        _readable(stream, problems),
        total=stream.expected,
        unit="frame",
        desc=f"{video.name}: scores",
    )
    windows = list(predictor.slide(frames, step=step))
    if not windows:
        raise VideoError("".join(problems) or "it has no frame that can be read")
    return _prediction(predictor, windows), float(stream.rate), "".join(problems)


def draw(
    video: Path, prediction: VideoPrediction, *, target: Path | None, show: Show | None = None
) -> None:
    """Draw each frame's window and the strip of all of them on a video.

    Raises:
        UserError: `target` cannot be written.
    """
    windows = prediction.windows
    count = windows[-1].last_frame + 1
    middles = np.array([(w.first_frame + w.last_frame + 1) / 2 for w in windows])
    table = np.stack([w.scores for w in windows])
    overlay: ScoreOverlay | None = None
    stream = VideoStream(video)
    with ExitStack() as closing:
        writer: VideoWriter | None = None
        progress = closing.enter_context(
            tqdm(total=count, unit="frame", desc=f"{video.name}: drawing")
        )
        for number, frame in enumerate(stream):
            if overlay is None:
                size = frame.pixels.shape[:2]
                overlay = ScoreOverlay(
                    size, prediction.classes, best_classes(prediction.scores, COUNT)
                )
                overlay.set_curves(middles / count, table)
                if target:
                    writer = _writer(target, video, stream, size, closing)
            nearest = int(np.abs(middles - number - 0.5).argmin())
            drawn = overlay.draw(frame.pixels, table[nearest], (number + 0.5) / count)
            if writer:
                writer.write(replace(frame, pixels=drawn))
            progress.update()
            wants_more = show is None or show(drawn)
            if number + 1 == count or not wants_more:
                break
        if writer:
            _finish(writer, is_whole=number + 1 == count)


def draw_camera(
    predictor: VideoPredictor,
    *,
    target: Path | None,
    json_file: str | None = None,
    step: int | None = None,
    show: Show | None = None,
) -> None:
    """The same for the first camera: every frame shows the last window that is complete.

    It ends when `show` returns False, at an interrupt, or with the camera.

    Raises:
        UserError: there is no camera.
    """
    windows = SlidingWindows.from_config(predictor.cfg, step=step)
    found: list[WindowScores] = []
    writer: VideoWriter | None = None
    with _JsonFile(json_file, is_list=False) as results, ExitStack() as closing:
        try:
            camera = _opened(CAMERA, closing)
        except VideoError as error:
            raise UserError(str(error)) from error
        try:
            for frame in tqdm(camera, unit="frame"):
                size = frame.pixels.shape[:2]
                small = resized(frame.pixels, predictor.scaled_size(*size))
                if window := windows.push(replace(frame, pixels=small)):
                    found += predictor.score_windows([window])
                if target and writer is None:
                    writer = _writer(target, CAMERA, camera, size, closing)
                drawn = frame.pixels
                if found:
                    drawn = _live_overlay(predictor, found[-LIVE_WINDOWS:], size).draw(
                        drawn, found[-1].scores, 1.0
                    )
                if writer:
                    writer.write(replace(frame, pixels=drawn))
                if show is not None and not show(drawn):
                    break
        except KeyboardInterrupt:
            pass
        if window := windows.finish():
            found += predictor.score_windows([window])
        if writer:
            writer.finish()
        if not found:
            raise UserError("the camera gave no frame")
        results.add("webcam", _prediction(predictor, found), float(camera.rate))
    print(f"{found[-1].last_frame + 1} frames" + (f", drawn in {target}" if target else ""))


def _live_overlay(
    predictor: VideoPredictor, windows: Sequence[WindowScores], size: tuple[int, int]
) -> ScoreOverlay:
    table = np.stack([window.scores for window in windows])
    overlay = ScoreOverlay(size, predictor.classes, best_classes(table.mean(0), COUNT))
    overlay.set_curves((1 + np.arange(len(windows))) / len(windows), table)
    return overlay


def _prediction(predictor: VideoPredictor, windows: Sequence[WindowScores]) -> VideoPrediction:
    scores = predictor.pool(np.stack([window.scores for window in windows]))
    return VideoPrediction(scores=scores, classes=predictor.classes, windows=windows)


class _JsonFile:
    """Predictions as JSON, written window by window; nothing without a path.

    Raises:
        UserError: it cannot be written, which shows before the work.
    """

    def __init__(self, path: str | None, *, is_list: bool) -> None:
        self._path, self._is_list, self._count = path, is_list, 0
        self._file: IO[str] | None = None
        if path is not None:
            try:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (closed on exit)
            except OSError as error:
                raise UserError(f"cannot write {path}: {error.strerror}") from error

    def __enter__(self) -> Self:
        self._write("[" if self._is_list else "")
        return self

    def __exit__(self, *_: object) -> None:
        self._write("]\n" if self._is_list else "\n")
        if self._file is not None:
            self._file.close()

    def add(self, name: str | os.PathLike[str], prediction: VideoPrediction, rate: float) -> None:
        last = prediction.windows[-1]
        top = [{"class": name, "score": _short(score)} for name, score in prediction.top()]
        video: dict[str, Any] = {
            "file_name": os.fspath(name),
            "frames": last.last_frame + 1,
            "rate": rate,
            "seconds": _short(last.end),
            "top": top,
            "classes": list(prediction.classes),
            "scores": [_short(score) for score in prediction.scores],
        }
        self._write(",\n" if self._count else "")
        self._write(json.dumps(video)[:-1] + ', "windows": [')
        for i, window in enumerate(prediction.windows):
            record = asdict(window) | {"scores": [_short(score) for score in window.scores]}
            record |= {"start": _short(window.start), "end": _short(window.end)}
            self._write((",\n" if i else "\n") + json.dumps(record))
        self._write("]}")
        self._count += 1

    def _write(self, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error


def _short(number: float) -> float:
    """Return a number with seven digits, more than its type and the clocks of videos hold."""
    return float(f"{number:.7g}")
