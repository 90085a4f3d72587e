#!/usr/bin/env python
"""Draw what a model finds in images, videos or a webcam, or the classes that it gives videos."""

import nl_detectron  # noqa: F401  (before detectron2: no warnings of its import are shown)

# isort: split
import argparse
import itertools
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.logger import setup_logger
from detectron2.utils.video_visualizer import VideoVisualizer
from tqdm import tqdm

from nl_detectron.arguments import (
    DEFAULT_CONFIDENCE,
    add_confidence_threshold,
    add_opts,
    add_traceback,
)
from nl_detectron.config import load_config
from nl_detectron.errors import UserError, run_script
from nl_detectron.files import make_folder, write_json
from nl_detectron.images import read_image
from nl_detectron.inference import Predictor, to_coco_results
from nl_detectron.inputs import WHAT, list_images, report_bad
from nl_detectron.tasks import is_video
from nl_detectron.visualization import draw_instances

WINDOW = "nl_detectron"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  demo.py --config-file output/quickstart/config.yaml --input photos/ more/*.jpg --output drawn \\
      --opts MODEL.WEIGHTS output/quickstart/model_final.pth
  demo.py --config-file F --video-input in.mp4 --output out.mp4 --opts MODEL.WEIGHTS W
  demo.py --config-file configs/quickstart_video.yaml --video-input clips/ --output drawn \\
      --json scores.json --opts MODEL.WEIGHTS W
  demo.py --config-file F --input nl_shapes_val:4 --output drawn --json found.json \\
      --opts MODEL.WEIGHTS W""",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a .yaml config")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input",
        nargs="+",
        metavar="WHAT",
        help=WHAT,
    )
    source.add_argument(
        "--video-input",
        metavar="FILE",
        help="a video; for a classifier of videos also a folder of them, or of a video's frames",
    )
    source.add_argument("--webcam", action="store_true", help="the first camera; ESC ends it")
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="folder (or, for one input, file) to write drawn images or videos to; default: a "
        "window",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write predictions in COCO's result format; of videos that are classified, the scores "
        "of the whole and of each window, with times in seconds",
    )
    add_confidence_threshold(parser)
    parser.add_argument(
        "--batch-size",
        type=int,
        default=1,
        metavar="N",
        help="images, or views of a video, that go through the network at once (default: "
        "%(default)s)",
    )
    videos = parser.add_argument_group("classifiers of videos")
    videos.add_argument(
        "--window-step",
        type=int,
        metavar="FRAMES",
        help="frames from a window to the next; default: half a window",
    )
    videos.add_argument(
        "--class-names",
        metavar="FILE",
        help="a name a line, or a JSON object of names and numbers; default: those of "
        "DATASETS.TEST, or else numbers",
    )
    add_traceback(parser)
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: at least 1 is needed")
    show = args.output is None
    if show and not has_screen() and (args.json is None or args.webcam):
        raise UserError("there is no display for a window; give --output or --json")
    show = show and has_screen()
    files = list_images(args.input) if args.input else []
    if args.json:
        write_json(args.json, [])  # so that a wrong path shows before the work, not after
    setup_logger(name="fvcore")
    cfg = load_config(args.config_file, args.opts)
    if is_video(cfg):
        run_classifier(cfg, args, show)
        return
    for flag, value in (("window-step", args.window_step), ("class-names", args.class_names)):
        if value is not None:
            raise UserError(
                f"--{flag} is for classifiers of videos, and MODEL.META_ARCHITECTURE is "
                f"'{cfg.MODEL.META_ARCHITECTURE}'"
            )
    predictor = Predictor(cfg, confidence_threshold=args.confidence_threshold)
    if args.input:
        run_images(predictor, files, args, show)
    else:
        run_video(predictor, args, show)


def has_screen() -> bool:
    """Whether OpenCV could open a window here."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def run_images(
    predictor: Predictor, files: list[Path], args: argparse.Namespace, show: bool
) -> None:
    """Predict, draw and write; UserError in the end if any file could not be read."""
    targets = output_files(files, args.output) if args.output else {}
    numbers = image_numbers(files)
    results, bad, instance_count = [], [], 0
    progress = tqdm(total=len(files), unit="image")
    for start in range(0, len(files), args.batch_size):
        chunk = files[start : start + args.batch_size]
        images: list[tuple[Path, np.ndarray]] = []
        for file in chunk:
            try:
                images.append((file, read_image(file)))
            except UserError as error:
                bad.append(file)
                progress.write(f"skipped {error}", file=sys.stderr)
        found = predictor([image for _, image in images], batch_size=args.batch_size)
        for (file, image), instances in zip(images, found, strict=True):
            instance_count += len(instances)
            if args.json:  # else they would only fill the memory
                for result in to_coco_results(instances, numbers[file], predictor.metadata):
                    results.append({**result, "file_name": str(file)})
            if args.output or show:
                drawn = draw(image, instances, predictor.metadata)
                if args.output:
                    write_image(targets[file], drawn)
                if show and not show_window(drawn, wait=True):
                    show = False
        progress.update(len(chunk))
    progress.close()
    if args.json:
        write_json(args.json, results)
    print(f"{len(files) - len(bad)} images, {instance_count} instances", end="")
    print(f", drawn in {args.output}" if args.output else "")
    report_bad(bad, len(files))


def run_video(predictor: Predictor, args: argparse.Namespace, show: bool) -> None:
    """The same for every frame of a video or of the first camera."""
    source = 0 if args.webcam else args.video_input
    if not args.webcam and not Path(source).is_file():
        raise UserError(f"--video-input {source}: no such file")
    video = cv2.VideoCapture(source)
    if not video.isOpened():
        raise UserError("there is no camera" if args.webcam else f"{source} is not a video")
    rate = video.get(cv2.CAP_PROP_FPS)
    rate = rate if math.isfinite(rate) and rate > 0 else 25.0
    count = None if args.webcam else max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) or None
    visualizer = VideoVisualizer(predictor.metadata)
    writer: VideoWriter | None = None
    results, index = [], 0
    progress = tqdm(total=count, unit="frame")
    try:
        frames = read_frames(video)
        while chunk := list(itertools.islice(frames, args.batch_size)):
            for frame, instances in zip(chunk, predictor(chunk), strict=True):
                if args.json:
                    results += to_coco_results(instances, index, predictor.metadata)
                index += 1
                progress.update()
                if not (args.output or show):
                    continue
                drawn = draw(frame, instances, predictor.metadata, visualizer)
                if args.output:
                    writer = writer or VideoWriter(args.output, source, rate, drawn.shape[:2])
                    writer.write(drawn)
                if show and not show_window(drawn, wait=False):
                    return
    finally:
        progress.close()
        video.release()
        if writer:
            writer.close()
        if args.json:
            write_json(args.json, results)
    if index == 0:
        raise UserError(f"{source} has no frame that can be read")
    print(f"{index} frames" + (f", drawn in {writer.path}" if writer else ""))


def run_classifier(cfg: CfgNode, args: argparse.Namespace, show: bool) -> None:
    """Classify windows of videos or of the first camera, and draw the scores."""
    from nl_detectron import video_demo  # needs PyAV, which detection does not
    from nl_detectron.data.video.lists import read_classes
    from nl_detectron.video_inference import VideoPredictor

    if args.input:
        raise UserError(
            f"--input is for images, and MODEL.META_ARCHITECTURE is "
            f"'{cfg.MODEL.META_ARCHITECTURE}': give --video-input"
        )
    if args.confidence_threshold != DEFAULT_CONFIDENCE:
        raise UserError(
            "--confidence-threshold is for detectors, and MODEL.META_ARCHITECTURE is "
            f"'{cfg.MODEL.META_ARCHITECTURE}': leave it out"
        )
    video_demo.check_step(cfg, args.window_step)
    videos = [] if args.webcam else video_demo.list_videos(args.video_input)
    named = videos or [Path("webcam")]
    targets = video_demo.output_files(named, args.output) if args.output else []
    predictor = VideoPredictor(
        cfg,
        views_at_once=args.batch_size,
        classes=read_classes(Path(args.class_names)) if args.class_names else None,
    )
    options = {
        "json_file": args.json,
        "step": args.window_step,
        "show": show_frame if show else None,
    }
    if args.webcam:
        video_demo.draw_camera(predictor, target=targets[0] if targets else None, **options)
    else:
        video_demo.draw_videos(predictor, videos, targets=targets, **options)


def show_frame(frame: np.ndarray) -> bool:
    """Show a frame in RGB; return whether the user wants more."""
    return show_window(frame[..., ::-1], wait=False)


def read_frames(video: cv2.VideoCapture) -> Iterator[np.ndarray]:
    while True:
        there, frame = video.read()
        if not there:
            return
        yield frame


def draw(
    image: np.ndarray,
    instances: Instances,
    metadata: Metadata,
    video: VideoVisualizer | None = None,
) -> np.ndarray:
    """`draw_instances` for OpenCV, whose colours are BGR."""
    drawn = draw_instances(np.ascontiguousarray(image[:, :, ::-1]), instances, metadata, video)
    return np.ascontiguousarray(drawn[:, :, ::-1])


def output_files(files: list[Path], output: str) -> dict[Path, Path]:
    """Return where each drawn image goes; two inputs never share a file."""
    target = Path(output)
    if len(files) == 1 and target.suffix.lower() in (".jpg", ".jpeg", ".png"):
        make_folder(target.parent)
        return {files[0]: target}
    if target.is_file():
        raise UserError(f"--output {output} is a file; for several images give a folder")
    make_folder(target)
    chosen: dict[Path, Path] = {}
    taken: set[str] = set()
    for number, file in enumerate(files):
        suffix = file.suffix if file.suffix.lower() in (".jpg", ".jpeg", ".png") else ".png"
        name = file.stem + suffix
        if name in taken:
            name = f"{file.stem}_{number}{suffix}"
        taken.add(name)
        chosen[file] = target / name
    return chosen


def image_numbers(files: list[Path]) -> dict[Path, int]:
    """COCO's image id is the number in the file's name; files named otherwise are counted."""
    if all(file.stem.isdecimal() for file in files):
        own = {file: int(file.stem) for file in files}
        if len(set(own.values())) == len(own):
            return own
    return {file: number for number, file in enumerate(files)}


def write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise UserError(f"cannot write {path}")


def show_window(image: np.ndarray, *, wait: bool) -> bool:
    """Show `image`; return whether the user wants more (ESC: no)."""
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        cv2.imshow(WINDOW, image)
        return cv2.waitKey(0 if wait else 1) != 27
    except cv2.error as error:
        raise UserError("this OpenCV cannot open a window: give --output") from error


class VideoWriter:
    """Writes frames with the first codec that works here: MPEG-4, else Motion JPEG."""

    def __init__(self, output: str, source: str | int, rate: float, size: tuple[int, int]) -> None:
        path = Path(output)
        if path.is_dir() or not path.suffix:
            path = path / (f"{Path(str(source)).stem}.mp4" if source != 0 else "webcam.mp4")
        make_folder(path.parent)
        height, width = size
        for codec, candidate in (("mp4v", path), ("MJPG", path.with_suffix(".avi"))):
            self.path = candidate
            code = cv2.VideoWriter.fourcc(*codec)
            self._writer = cv2.VideoWriter(str(candidate), code, rate, (width, height))
            if self._writer.isOpened():
                return
        raise UserError(f"cannot write a video to {path}: OpenCV has no codec for it")

    def write(self, frame: np.ndarray) -> None:
        self._writer.write(frame)

    def close(self) -> None:
        self._writer.release()


if __name__ == "__main__":
    run_script(main)
