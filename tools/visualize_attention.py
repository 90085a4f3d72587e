#!/usr/bin/env python
"""Draw where a model's non-local blocks look: heat maps and arrows, as PNGs and one HTML page."""

import argparse
import sys
from pathlib import Path

from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from nl_detectron.arguments import add_confidence_threshold, add_opts, add_traceback
from nl_detectron.errors import UserError, run_script
from nl_detectron.images import read_image
from nl_detectron.inference import Predictor
from nl_detectron.inputs import WHAT, list_images, report_bad
from nl_detectron.visualization import Page, draw_detections, draw_sheet, find_blocks, look


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
Without --query, blocks in the backbone are looked at from the centre of each detection, blocks
in the keypoint head from each keypoint of each person. With it, a block in the keypoint head is
looked at where the pixel lies in a person's box. Written are DIR/<image>.png and
DIR/index.html, which needs no network.

examples:
  visualize_attention.py --config-file output/quickstart/config.yaml --input photo.jpg \\
      --output attention --opts MODEL.WEIGHTS output/quickstart/model_final.pth
  visualize_attention.py --config-file F --input a.jpg b.jpg --output attention \\
      --query 120 80 --query 300 200 --block backbone.bottom_up.res4.nonlocal_after_4""",
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a .yaml config")
    parser.add_argument("--input", required=True, nargs="+", metavar="WHAT", help=WHAT)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--query",
        action="append",
        nargs=2,
        type=int,
        default=[],
        metavar=("X", "Y"),
        help="a pixel to look from, counted from the top left pixel, 0 0; may be repeated",
    )
    parser.add_argument(
        "--block",
        action="append",
        default=[],
        metavar="NAME",
        help="a block's name in the model, may be repeated; default: all; a wrong one lists them",
    )
    add_confidence_threshold(parser)
    parser.add_argument(
        "--max-detections",
        type=int,
        default=5,
        metavar="N",
        help="look from at most N detections of each image (default: %(default)s)",
    )
    parser.add_argument(
        "--arrows",
        type=int,
        default=8,
        metavar="N",
        help="draw arrows to the N strongest positions (default: %(default)s)",
    )
    add_traceback(parser)
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    files = list_images(args.input)
    for name in ("max_detections", "arrows"):
        if getattr(args, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(args, name)}: at least 0")
    for file in files if args.query else []:  # rather now than after an hour of images
        check_queries(args.query, file)
    setup_logger(name="fvcore")
    predictor = Predictor(
        args.config_file, opts=args.opts, confidence_threshold=args.confidence_threshold
    )
    find_blocks(predictor.model, args.block)  # a wrong name, before anything is written

    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    subtitle = f"{args.config_file}, {predictor.cfg.MODEL.WEIGHTS}"
    page = Page(title="Where non-local blocks look", subtitle=subtitle, arrows=args.arrows)
    bad = []
    progress = tqdm(files, unit="image")
    for number, file in enumerate(progress):
        try:
            image = read_image(file)
        except UserError as error:
            bad.append(file)
            progress.write(f"skipped {error}", file=sys.stderr)
            continue
        seen = look(
            predictor,
            image,
            points=[(x + 0.5, y + 0.5) for x, y in args.query],
            blocks=args.block,
            max_detections=args.max_detections,
        )
        if not seen.attentions:
            reason = "no query is in a person's box" if args.query else "nothing was detected"
            progress.write(f"{file}: {reason}, so there is nowhere to look from", file=sys.stderr)
        detections = draw_detections(seen, predictor.metadata)
        sheet = draw_sheet(seen, detections=detections, arrows=args.arrows, title=file.name)
        taken = file.stem in (other.stem for other in files[:number])
        sheet.savefig(output / (f"{file.stem}_{number}.png" if taken else f"{file.stem}.png"))
        page.add(file.name, seen, detections=detections)
    if len(bad) < len(files):
        (output / "index.html").write_text(page.html(), encoding="utf-8")
        print(f"{len(files) - len(bad)} images; page: {output / 'index.html'}")
    report_bad(bad, len(files))


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


if __name__ == "__main__":
    run_script(main)
