"""Draw what a model finds in images, videos or a webcam, or the classes that it gives videos."""

import argparse
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from ..config import load_config
from ..data.catalog import read_coco
from ..data.detection_utils import read_image
from ..data.inputs import WHAT, ImageId, list_images, number_images, report_bad
from ..engine.predictor import Predictor, to_coco_results
from ..tasks import is_video
from ..utils.arguments import (
    DEFAULT_CONFIDENCE,
    add_class_names,
    add_confidence_threshold,
    add_opts,
    add_traceback,
)
from ..utils.errors import UserError
from ..utils.file_io import check_overwriting, output_files, write_json
from ..visualization import draw_instances

WINDOW = "nl_detectron"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


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
        help="a video, a folder of videos, or a folder of a video's frames",
    )
    source.add_argument("--webcam", action="store_true", help="the first camera; ESC ends it")
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="folder (or, for one input, file) to write drawn images or videos to, never one that "
        "is read; default: a window",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write predictions in COCO's result format, with category ids of the data set that "
        "was trained on, and image ids of the data set or the COCO file of --class-names; other "
        "images have the number that is their name, or are counted; frames of videos count from 0. "
        "Of videos that are classified: the scores of the whole and of each window, with times in "
        "seconds",
    )
    add_class_names(parser)
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
    files = list_images(args.input) if args.input else {}
    if args.json:
        read = [*files, args.video_input or "", args.config_file, args.class_names or ""]
        check_overwriting([args.json], read)
        write_json(args.json, [])  # so that a wrong path shows before the work, not after
    setup_logger(name="fvcore")
    cfg = load_config(args.config_file, args.opts)
    if is_video(cfg):
        run_classifier(cfg, args, show)
        return
    if args.window_step is not None:
        raise UserError(
            "--window-step is for classifiers of videos, and MODEL.META_ARCHITECTURE is "
            f"'{cfg.MODEL.META_ARCHITECTURE}'"
        )
    if args.input:
        targets = (
            output_files(list(files), args.output, [".png"], endings=IMAGE_ENDINGS)
            if args.output
            else []
        )
        drawn = dict(zip(files, targets, strict=False))
        numbers = number_images(files, read_coco(args.class_names) if args.class_names else None)
        run_images(build_predictor(cfg, args), numbers, drawn, args, show)
    else:
        run_videos(cfg, args, show)


def build_predictor(cfg: CfgNode, args: argparse.Namespace) -> Predictor:
    return Predictor(cfg, confidence_threshold=args.confidence_threshold, classes=args.class_names)


def has_screen() -> bool:
    """Whether OpenCV could open a window here."""
    if sys.platform.startswith("linux"):
        return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return True


def run_images(
    predictor: Predictor,
    numbers: dict[Path, ImageId],
    targets: dict[Path, Path],
    args: argparse.Namespace,
    show: bool,
) -> None:
    """Predict, draw and write; UserError in the end if any file could not be read."""
    files, metadata = list(numbers), result_metadata(predictor, args.input)
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
                for result in to_coco_results(instances, numbers[file], metadata):
                    results.append({**result, "file_name": str(file)})
            if targets or show:
                drawn = draw_instances(image[..., ::-1], instances, predictor.metadata)
                if targets:
                    write_image(targets[file], drawn)
                show = show and show_window(drawn, wait=True)
        progress.update(len(chunk))
    progress.close()
    if args.json:
        write_json(args.json, results)
    print(f"{len(files) - len(bad)} images, {instance_count} instances", end="")
    print(f", drawn in {args.output}" if args.output else "")
    report_bad(bad, len(files))


def result_metadata(predictor: Predictor, inputs: list[str]) -> Metadata:
    """Return the metadata of the first data set among `inputs` that has the model's classes."""
    for name in (item.partition(":")[0] for item in inputs):
        if name in DatasetCatalog:
            metadata = MetadataCatalog.get(name)
            if metadata.get("thing_classes") == predictor.metadata.thing_classes:
                return metadata
    return predictor.metadata


def run_videos(cfg: CfgNode, args: argparse.Namespace, show: bool) -> None:
    """Detect in each frame of videos or of the first camera."""
    from ..commands import video_demo  # needs PyAV, which images do not

    videos, targets = video_demo.videos_and_targets(args.video_input, args.output)
    predictor = build_predictor(cfg, args)
    results = []

    def add(video: Path, number: int, instances: Instances) -> None:
        for result in to_coco_results(instances, number, predictor.metadata) if args.json else ():
            results.append({**result, "file_name": str(video)})

    try:
        video_demo.detect_in_videos(
            predictor,
            videos,
            add,
            targets=targets,
            batch_size=args.batch_size,
            show=show_window if show else None,
        )
    finally:
        if args.json:
            write_json(args.json, results)


def run_classifier(cfg: CfgNode, args: argparse.Namespace, show: bool) -> None:
    """Classify windows of videos or of the first camera, and draw the scores."""
    from ..commands import video_demo  # needs PyAV, which detection does not
    from ..engine.video_predictor import VideoPredictor

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
    videos, targets = video_demo.videos_and_targets(args.video_input, args.output)
    predictor = VideoPredictor(cfg, views_at_once=args.batch_size, classes=args.class_names)
    options = {
        "json_file": args.json,
        "step": args.window_step,
        "show": show_window if show else None,
    }
    if args.webcam:
        video_demo.draw_camera(predictor, target=targets[0] if targets else None, **options)
    else:
        video_demo.draw_videos(predictor, videos, targets=targets, **options)


def write_image(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise UserError(f"cannot write {path}")


def show_window(image: np.ndarray, *, wait: bool = False) -> bool:
    """Show an image in RGB; return whether the user wants more (ESC: no)."""
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        cv2.imshow(WINDOW, image[..., ::-1])
        return cv2.waitKey(0 if wait else 1) != 27
    except cv2.error as error:
        raise UserError("this OpenCV cannot open a window: give --output") from error
