"""Draw the attention weights of a model's non-local blocks on images or videos.

Heat maps and arrows, as PNGs and one HTML page; for a video also as an animation.
"""

import argparse
import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from ..analysis.attention import compute_attention, compute_clip_attention, find_blocks
from ..analysis.clip import check_point, plan_clip, read_clip
from ..config import is_video
from ..data.detection_utils import read_image
from ..data.inputs import WHAT, list_images, report_bad
from ..engine.predictor import Predictor, complete_config, load_model
from ..utils.arguments import (
    add_class_names,
    add_confidence_threshold,
    add_opts,
    add_traceback,
)
from ..utils.errors import DataError, UserError
from ..utils.file_io import output_files
from ..visualization import ClipPage, Page, animate, draw_instances, draw_sheet, draw_strip

TITLE = "Where non-local blocks look"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
Images: without --query, blocks in the backbone are looked at from the centre of each detection,
blocks in the keypoint head from each keypoint of each person. With it, a block in the keypoint
head is looked at where the pixel lies in a person's box. Written are DIR/<image>.png and
DIR/index.html, which needs no network.

Videos (META_ARCHITECTURE VideoClassifier): one clip of each is looked at, INPUT.CLIP.FRAMES frames
that are INPUT.CLIP.STRIDE apart, from the place that speaks most for the class of highest score,
or from --query. Written are DIR/<video>.png, a strip of frames for each block and query, and, for
the first query, DIR/<video>.mp4 and DIR/<video>.gif; in DIR/index.html one drags through time and
clicks any place in any frame.

examples:
  %(prog)s --config-file output/quickstart/config.yaml --input photo.jpg \\
      --output attention --opts MODEL.WEIGHTS output/quickstart/model_final.pth
  %(prog)s --config-file F --input a.jpg b.jpg --output attention \\
      --query 120 80 --query 300 200 --block backbone.bottom_up.res4.nonlocal_after_4
  %(prog)s --config-file output/quickstart-video/config.yaml --input clip.mp4 \\
      --output attention --query 6 86 20 \\
      --opts MODEL.WEIGHTS output/quickstart-video/model_final.pth""",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a .yaml config")
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="WHAT", help=f"{WHAT}; or the same of videos"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--query",
        action="append",
        nargs="+",
        type=int,
        default=[],
        metavar="NUMBER",
        help="a pixel to look from: X Y in images, FRAME X Y in videos; pixels are counted from "
        "the top left one, 0 0, and frames from the video's first, 0; may be repeated",
    )
    parser.add_argument(
        "--start",
        type=int,
        metavar="FRAME",
        help="videos: first frame of the clip (default: the clip is in the video's middle)",
    )
    parser.add_argument(
        "--block",
        action="append",
        default=[],
        metavar="NAME",
        help="a block's name in the model, may be repeated; default: all; a wrong one lists them",
    )
    add_class_names(parser)
    add_confidence_threshold(parser)
    parser.add_argument(
        "--max-detections",
        type=int,
        default=5,
        metavar="N",
        help="images: look from at most N detections of each image (default: %(default)s)",
    )
    parser.add_argument(
        "--arrows",
        type=int,
        default=8,
        metavar="N",
        help="draw arrows to at most N of the strongest positions, of those above an even share "
        "(default: %(default)s)",
    )
    add_traceback(parser)
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    for name in ("max_detections", "arrows"):
        if getattr(args, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least 0")
    setup_logger(name="fvcore")
    cfg = complete_config(args.config_file, opts=args.opts)
    files = list(list_images(args.input))
    takes_videos = is_video(cfg)
    numbers = ("FRAME", "X", "Y") if takes_videos else ("X", "Y")
    for query in args.query:
        if len(query) != len(numbers):
            given = " ".join(map(str, query))
            kind = "a video" if takes_videos else "an image"
            raise UserError(f"--query {given}: in {kind} it is {' '.join(numbers)}")
    if takes_videos:
        visualize_videos(args, cfg, files)
    else:
        visualize_images(args, cfg, files)


def visualize_images(args: argparse.Namespace, cfg: CfgNode, files: list[Path]) -> None:
    if args.start is not None:
        raise UserError(f"--start {args.start}: an image has no frames")
    for file in files if args.query else []:  # rather now than after an hour of images
        check_queries(args.query, file)
    predictor = Predictor(
        cfg, confidence_threshold=args.confidence_threshold, classes=args.class_names
    )
    find_blocks(predictor.model, args.block)  # a wrong name, before anything is written

    targets = output_files(files, args.output, [".png"])
    page = Page(title=TITLE, subtitle=subtitle(args, cfg), arrows=args.arrows)
    bad = []
    progress = tqdm(files, unit="image")
    for file, target in zip(progress, targets, strict=True):
        try:
            image = read_image(file)
        except UserError as error:
            bad.append(file)
            progress.write(f"skipped {error}", file=sys.stderr)
            continue
        seen = compute_attention(
            predictor,
            image,
            points=[(x + 0.5, y + 0.5) for x, y in args.query],
            blocks=args.block,
            max_detections=args.max_detections,
        )
        if not seen.attentions:
            reason = "no query is in a person's box" if args.query else "nothing was detected"
            progress.write(
                f"{file}: {reason}, so there is nowhere to look from; give --query, "
                "or a lower --confidence-threshold",
                file=sys.stderr,
            )
        detections = draw_instances(seen.image, seen.instances, predictor.metadata)
        sheet = draw_sheet(seen, detections=detections, arrows=args.arrows, title=file.name)
        sheet.savefig(target)
        page.add(file.name, seen, detections=detections)
    finish(page, args.output, files, bad, what="images")


def visualize_videos(args: argparse.Namespace, cfg: CfgNode, files: list[Path]) -> None:
    from ..data.video.writing import write_video  # needs PyAV, and images do not

    model, metadata = load_model(cfg, args.class_names)
    find_blocks(model, args.block)
    clip_keys = {"frames": cfg.INPUT.CLIP.FRAMES, "stride": cfg.INPUT.CLIP.STRIDE}
    for file in files:  # rather now than after an hour of videos
        check_clip(file, args, **clip_keys)
    targets = output_files(files, args.output, [".png", ".mp4", ".gif"])
    page = ClipPage(title=TITLE, subtitle=subtitle(args, cfg), arrows=args.arrows)
    bad = []
    progress = tqdm(files, unit="video")
    for file, target in zip(progress, targets, strict=True):
        try:
            clip = read_clip(
                file, **clip_keys, short_side=cfg.INPUT.MIN_SIZE_TEST, start=args.start
            )
        except DataError as error:
            bad.append(file)
            progress.write(f"skipped {error}", file=sys.stderr)
            continue
        queries = [clip.query(frame, x + 0.5, y + 0.5) for frame, x, y in args.query]
        names = metadata.thing_classes
        seen = compute_clip_attention(model, clip, blocks=args.block, class_names=names)
        first, *others = queries or [seen.evidence]
        attentions = seen.attend(first)
        rest = [attention for query in others for attention in seen.attend(query)]
        strip = draw_strip(seen, [*attentions, *rest], arrows=args.arrows)
        strip.savefig(target)
        images = animate(seen, attentions, arrows=args.arrows)
        for suffix in (".mp4", ".gif"):
            write_video(target.with_suffix(suffix), images, rate=max(1, round(clip.rate)))
        page.add(seen, query=first)
    finish(page, args.output, files, bad, what="videos")


def finish(
    page: Page | ClipPage, output: str, files: list[Path], bad: list[Path], *, what: str
) -> None:
    """Write the page; raise UserError if there are bad files."""
    if len(bad) < len(files):
        file = Path(output, "index.html")
        file.write_text(page.html(), encoding="utf-8")
        print(f"{len(files) - len(bad)} {what}; page: {file}")
    report_bad(bad, len(files), what=what)


def subtitle(args: argparse.Namespace, cfg: CfgNode) -> str:
    return f"{args.config_file}, {cfg.MODEL.WEIGHTS}"


def check_queries(queries: list[list[int]], file: Path) -> None:
    try:
        height, width = read_image(file).shape[:2]
    except UserError:
        return  # it will be skipped, with a word
    for x, y in queries:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"--query {x} {y} is outside {file}, which has {width} x {height} pixels"
            )


def check_clip(file: Path, args: argparse.Namespace, *, frames: int, stride: int) -> None:
    try:
        info, numbers = plan_clip(file, frames=frames, stride=stride, start=args.start)
    except DataError:
        return  # it will be skipped, with a word
    for number, x, y in args.query:
        check_point(file, (info.height, info.width), numbers, (number, x + 0.5, y + 0.5))
