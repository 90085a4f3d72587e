"""Videos of any length with the scores of windows that slide over them drawn on the frames.

A file is read twice in constant memory: for the scores, and to draw them, so that each frame shows
the window around it and the strip is whole from the first frame on. A camera is read once.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from . import files
from .data.video.info import IMAGE_SUFFIXES, VideoError
from .data.video.lists import VIDEO_SUFFIXES
from .data.video.reading import resized
from .data.video.streaming import Camera, Frame, VideoStream
from .data.video.writing import VideoWriter, codec_for
from .errors import UserError
from .video.windows import SlidingWindows
from .video_inference import VideoPrediction, VideoPredictor, WindowScores, best_classes
from .visualization.video_scores import COUNT, ScoreOverlay

LIVE_WINDOWS = 32  # of a camera, that the strip shows

Show = Callable[[np.ndarray], bool]


def list_videos(path: str) -> list[Path]:
    """Return the videos that ``--video-input`` means: a file, a folder of them, or of frames.

    Raises:
        UserError: there is none.
    """
    given = f"--video-input {path}"
    if kind := files.special_file(path):
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


def check_step(cfg: CfgNode, step: int | None) -> None:
    """Raise UserError for a ``--window-step`` that is none, or leaves frames out."""
    length = cfg.INPUT.CLIP.FRAMES * cfg.INPUT.CLIP.STRIDE
    if step is not None and not 1 <= step <= length:
        raise UserError(
            f"--window-step {step}: allowed: 1 to {length}, the frames of a window "
            "(INPUT.CLIP.FRAMES times STRIDE)"
        )


def output_files(videos: Sequence[Path], output: str) -> list[Path]:
    """Return where each drawn video goes, and make sure that it can be written.

    Raises:
        UserError: it cannot, or it is one of `videos`.
    """
    target = Path(output)
    is_file = len(videos) == 1 and target.suffix != "" and not target.is_dir()
    folder = target.parent if is_file else target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}") from error
    if is_file:
        targets = [target]
    else:
        names = [video.resolve().stem for video in videos]
        targets = [
            target / (f"{name}_{i}.mp4" if name in names[:i] else f"{name}.mp4")
            for i, name in enumerate(names)
        ]
    for path in targets:
        codec_for(path)
        if any(path.exists() and path.samefile(video) for video in videos):
            raise UserError(f"--output {output} would overwrite {path}, which is read")
        is_new = not path.exists()
        try:
            path.open("ab").close()
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        if is_new:
            path.unlink()
    return targets


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
    bad: list[str] = []
    with _JsonFile(json_file, is_list=len(videos) > 1) as results:
        for i, video in enumerate(videos):
            try:
                prediction, rate, problem = classify(predictor, video, step=step)
            except VideoError as error:
                bad.append(f"{video}: {error}")
                continue
            if problem:
                bad.append(f"{video}: {problem}")
            results.add(video, prediction, rate)
            target = targets[i] if targets else None
            if target or show:
                draw(video, prediction, target=target, show=show)
            best = ", ".join(f"{100 * score:.0f} % {name}" for name, score in prediction.top(3))
            print(f"{video}: {best}" + (f", drawn in {target}" if target else ""))
    if len(bad) == 1:
        raise UserError(bad[0])
    if bad:
        raise UserError(f"{len(bad)} of {len(videos)} videos cannot be read: {'; '.join(bad[:5])}")


def classify(
    predictor: VideoPredictor, video: Path, *, step: int | None = None
) -> tuple[VideoPrediction, float, str]:
    """Return what the model says of all windows of a video, its rate, and why it breaks off, or "".

    Raises:
        VideoError: not even its first frame can be read.
    """
    stream = VideoStream(video, scale=predictor.scaled_size)
    problems: list[str] = []

    def frames() -> Iterator[Frame]:
        is_first = True
        progress = tqdm(stream, total=stream.expected, unit="frame", desc=f"{video.name}: scores")
        try:
            for frame in progress:
                yield frame
                is_first = False
        except VideoError as error:
            if is_first:
                raise
            problems.append(str(error))

    windows = list(predictor.slide(frames(), step=step))
    if not windows:
        raise VideoError("it has no frame that can be read")
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
                    writer = closing.enter_context(
                        VideoWriter(
                            target,
                            size=size,
                            rate=stream.rate,
                            sound_of=None if video.is_dir() else video,
                            origin=stream.origin,
                        )
                    )
            nearest = int(np.abs(middles - number - 0.5).argmin())
            drawn = overlay.draw(frame.pixels, table[nearest], (number + 0.5) / count)
            if writer:
                writer.write(replace(frame, pixels=drawn))
            progress.update()
            wants_more = show is None or show(drawn)
            if number + 1 == count or not wants_more:
                break
        if writer:
            writer.finish(is_whole=number + 1 == count)
            if writer.lost_sound:
                progress.write(f"{target} has no sound: {writer.lost_sound}", file=sys.stderr)


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
    try:
        camera = Camera()
    except VideoError as error:
        raise UserError(str(error)) from error
    windows = SlidingWindows.from_config(predictor.cfg, step=step)
    found: list[WindowScores] = []
    writer: VideoWriter | None = None
    with _JsonFile(json_file, is_list=False) as results, ExitStack() as closing:
        closing.callback(camera.close)
        try:
            for frame in tqdm(camera, unit="frame"):
                size = frame.pixels.shape[:2]
                small = resized(frame.pixels, predictor.scaled_size(*size))
                if window := windows.push(replace(frame, pixels=small)):
                    found += predictor.score_windows([window])
                if target and writer is None:
                    writer = closing.enter_context(VideoWriter(target, size=size, rate=camera.rate))
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
