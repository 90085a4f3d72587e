"""Draw predictions of a model on images, videos or a webcam."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import tee
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import Instances
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from ..config import is_video
from ..data.detection_utils import read_image
from ..data.inputs import WHAT, ImageId, list_images, number_images, report_bad
from ..engine.predictor import Predictor, complete_config, to_coco_results
from ..utils.arguments import add_confidence_threshold, add_opts, at_least, script_parser
from ..utils.errors import UserError
from ..utils.file_io import check_overwriting, output_files, write_json
from ..visualization import draw_instances

WINDOW = "nl_detectron"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(
        __doc__,
        """examples:
  %(prog)s --config-file output/quickstart/config.yaml --input photos/ more/*.jpg --output drawn \\
      --opts MODEL.WEIGHTS output/quickstart/model_final.pth
  %(prog)s --config-file F --video-input in.mp4 --output out.mp4 --opts MODEL.WEIGHTS W
  %(prog)s --config-file quickstart_video.yaml --video-input clips/ --output drawn \\
      --json scores.json --opts MODEL.WEIGHTS W
  %(prog)s --config-file F --input nl_shapes_val:4 --output drawn --json found.json \\
      --opts MODEL.WEIGHTS W""",
    )
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
        help="a video, a folder of videos or of a video's frames, a dataset's name, or NAME:COUNT",
    )
    source.add_argument(
        "--webcam", action="store_true", help="detect on the first camera; ESC ends it"
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="folder (or, for one input, file) for the drawn images or videos, other than the "
        "input; default: a window",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write predictions in COCO's result format, with category ids of the training "
        "dataset. Image ids come from the dataset, the COCO file of --class-names, a number as "
        "file name, or the order of the images; frames of videos count from 0. Video classifiers: "
        "scores of the whole video and of each window, with times in seconds",
    )
    add_confidence_threshold(parser)
    parser.add_argument(
        "--batch-size",
        type=at_least(1),
        default=1,
        metavar="N",
        help="images, or views of a video, per forward pass (default: %(default)s)",
    )
    videos = parser.add_argument_group("video classifiers")
    videos.add_argument(
        "--window-step",
        type=int,
        metavar="FRAMES",
        help="frames between the starts of windows; default: half a window",
    )
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    """Run the command line of this process."""
    args = parse_arguments()
    show = args.output is None and has_screen()
    if not (show or args.output or args.json):
        raise UserError("expected --output or --json, got neither and no display for a window")
    setup_logger(name="fvcore")
    cfg = complete_config(args.config_file, opts=args.opts)
    check_flags(cfg, args)
    files = list_images(args.input) if args.input else {}
    if args.json:
        read = [*files, args.video_input or "", args.config_file, args.class_names or ""]
        check_overwriting([args.json], read)
        write_json(args.json, [])  # a wrong path fails before the work
    if args.input:
        detect_in_images(cfg, args, files, show)
    else:
        from .video_demo import run_on_videos  # needs PyAV, which images do not

        run_on_videos(cfg, args, show_window if show else None)


def check_flags(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Raise UserError for flags that the model of a config does not take."""
    if is_video(cfg) and args.video_input is None:
        raise UserError(
            f"--input and --webcam are for detectors, but MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE}; use --video-input"
        )
    length = cfg.INPUT.CLIP.FRAMES * cfg.INPUT.CLIP.STRIDE
    if args.window_step is not None and not 1 <= args.window_step <= length:
        raise UserError(
            f"--window-step must be 1 to {length}, the frames of a window (INPUT.CLIP.FRAMES times "
            f"STRIDE), got {args.window_step}"
        )


def has_screen() -> bool:
    """Return True if OpenCV can open a window."""
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return not sys.platform.startswith("linux") or bool(has_display)


@contextmanager
def json_file(path: str | None, *, is_list: bool = True) -> Iterator[list[dict[str, Any]]]:
    """Collect results and write them at the end; only the first one unless `is_list`."""
    results: list[dict[str, Any]] = []
    try:
        yield results
    finally:
        if path:
            write_json(path, results[0] if results and not is_list else results)


def build_predictor(cfg: CfgNode, args: argparse.Namespace) -> Predictor:
    return Predictor(cfg, confidence_threshold=args.confidence_threshold, classes=args.class_names)


def predict(
    predictor: Predictor, images: Iterable[tuple[Any, np.ndarray]], batch_size: int
) -> Iterator[tuple[tuple[Any, np.ndarray], Instances]]:
    """Yield pairs of anything and an image, RGB uint8 ``(H, W, 3)``, with the image's instances."""
    images, inputs = tee(images)
    bgr = (pixels[..., ::-1] for _, pixels in inputs)
    return zip(images, predictor.stream(bgr, batch_size=batch_size), strict=True)


def read_images(files: Iterable[Path], bad: list[Path]) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield the images in RGB; report unreadable ones and add them to `bad`."""
    for file in tqdm(files, unit="image"):
        try:
            yield file, read_image(file, "RGB")
        except UserError as error:
            bad.append(file)
            tqdm.write(f"skipped {error}", file=sys.stderr)


def detect_in_images(
    cfg: CfgNode, args: argparse.Namespace, files: dict[Path, ImageId | None], show: bool
) -> None:
    """Predict, draw and write; raise UserError at the end if a file was unreadable."""
    numbers = number_images(files)
    drawn_files = output_files(list(files), args.output, ".png", endings=IMAGE_ENDINGS)
    targets = dict(zip(files, drawn_files, strict=False))
    predictor = build_predictor(cfg, args)
    bad: list[Path] = []
    instance_count = 0
    with json_file(args.json) as results:
        images = read_images(numbers, bad)
        for (path, pixels), instances in predict(predictor, images, args.batch_size):
            instance_count += len(instances)
            if args.json:  # otherwise they only fill the memory
                found = to_coco_results(instances, numbers[path], predictor.metadata)
                results += [{**result, "file_name": str(path)} for result in found]
            if targets or show:
                drawn = draw_instances(pixels, instances, predictor.metadata)
                target = targets.get(path)
                if target and not cv2.imwrite(str(target), drawn[..., ::-1]):
                    raise UserError(f"cannot write {target}: check disk space and permissions")
                show = show and show_window(drawn, wait=True)
    print(f"{len(numbers) - len(bad)} images, {instance_count} instances", end="")
    print(f", drawn in {args.output}" if args.output else "")
    if instance_count == 0:
        print("no score reaches --confidence-threshold: lower it, or train longer")
    report_bad(bad, len(numbers))


def show_window(image: np.ndarray, *, wait: bool = False) -> bool:
    """Show an image in RGB; return False if the user pressed ESC."""
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
        cv2.imshow(WINDOW, image[..., ::-1])
        return cv2.waitKey(0 if wait else 1) != 27
    except cv2.error as error:
        raise UserError("this OpenCV cannot open a window; use --output") from error
