"""Draw or measure the attention of a model's non-local blocks on images or videos.

Heat maps and arrows, as PNGs and one HTML page; for a video also as an animation. With --statistics
tables and a figure for each block.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from ..analysis.attention import (
    ClipAttention,
    ImageAttention,
    compute_attention,
    compute_clip_attention,
    find_blocks,
)
from ..analysis.clip import check_point, plan_clip, read_clip
from ..analysis.statistics import AttentionStatistics, Region, detected_regions, given_regions
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
from ..utils.file_io import make_folder, output_files, write_json, write_text
from ..visualization import (
    Page,
    animate,
    draw_instances,
    draw_sheet,
    draw_statistics,
    draw_strip,
)

TITLE = "Where non-local blocks look"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
Images: without --query, blocks in the backbone are looked at from the centre of each detection, or
of the image, blocks in the keypoint head from each keypoint of each person. With it, a block in the
keypoint head is looked at where the pixel lies in a person's box. Written are DIR/<image>.png and
DIR/index.html, in which one clicks anywhere; it needs no network.

Videos (META_ARCHITECTURE VideoClassifier): one clip of each is looked at, INPUT.CLIP.FRAMES frames
that are INPUT.CLIP.STRIDE apart, from the place that speaks most for the class of highest score,
or from --query. Written are DIR/<video>.png, a strip of frames for each block and query, and, for
the first query, DIR/<video>.mp4 and DIR/<video>.gif; and DIR/index.html.

--statistics writes DIR/statistics.csv, DIR/statistics.json and DIR/<block>.pdf instead: how much a
block adds to its input, how evenly, how far and where it looks, and whether it looks elsewhere from
elsewhere. The columns are those of nl_detectron.analysis.statistics. Shares of the weight are by
region: the detections (images), or --regions. That is a JSON file of the regions of each input,
{"a.jpg": [{"label": "person", "boxes": [[x0, y0, x1, y1], ...]}, ...]}, in videos with the number
of the frame before x0; or MODULE:FUNCTION, a function of an input's path that returns such a list.

examples:
  %(prog)s --config-file output/quickstart/config.yaml --input photo.jpg \\
      --output attention --opts MODEL.WEIGHTS output/quickstart/model_final.pth
  %(prog)s --config-file F --input a.jpg b.jpg --output attention \\
      --query 120 80 --query 300 200 --block backbone.bottom_up.res4.nonlocal_after_4
  %(prog)s --config-file output/quickstart-video/config.yaml --input clip.mp4 \\
      --output attention --query 6 86 20 \\
      --opts MODEL.WEIGHTS output/quickstart-video/model_final.pth
  %(prog)s --statistics --config-file output/quickstart/config.yaml --input nl_shapes_val \\
      --samples 50 --output statistics --opts MODEL.WEIGHTS output/quickstart/model_final.pth""",
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
        help="images: look from at most N detections of each image (default: %(default)s; with "
        "--statistics from all)",
    )
    parser.add_argument(
        "--arrows",
        type=int,
        default=8,
        metavar="N",
        help="draw arrows to at most N of the strongest positions, of those above an even share "
        "(default: %(default)s)",
    )
    measuring = parser.add_argument_group("statistics")
    measuring.add_argument("--statistics", action="store_true", help="measure instead of drawing")
    measuring.add_argument(
        "--samples", type=int, metavar="N", help="take the first N inputs (default: all)"
    )
    measuring.add_argument(
        "--regions",
        metavar="WHAT",
        help="a JSON file, or MODULE:FUNCTION (default: the detections)",
    )
    add_traceback(parser)
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    for name, least in (("max_detections", 0), ("arrows", 0), ("samples", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}, got {value}")
    setup_logger(name="fvcore")
    cfg = complete_config(args.config_file, opts=args.opts)
    files = list(list_images(args.input))[: args.samples]
    source = (_Videos if is_video(cfg) else _Images)(args, cfg, files)
    bad: list[Path] = []
    if args.statistics:
        measure(args, source, files, bad)
    else:
        subtitle = f"{args.config_file}, {cfg.MODEL.WEIGHTS}"
        page = Page(title=TITLE, subtitle=subtitle, arrows=args.arrows)
        draw(args, source, files, bad, page)
    report_bad(bad, len(files), what=f"{source.kind}s")


def look(
    source: "_Images | _Videos", files: list[Path], bad: list[Path]
) -> Iterator[tuple[Path, Any]]:
    """Yield each file with its attention, and show progress; add unreadable ones to `bad`."""
    progress = tqdm(files, unit=source.kind)
    for file in progress:
        try:
            seen = source.compute(file)
        except DataError as error:
            bad.append(file)
            progress.write(f"skipped {error}", file=sys.stderr)
            continue
        yield file, seen


def draw(
    args: argparse.Namespace,
    source: "_Images | _Videos",
    files: list[Path],
    bad: list[Path],
    page: Page,
) -> None:
    """Draw each file, and write the page."""
    targets = dict(zip(files, output_files(files, args.output, source.suffixes), strict=True))
    for file, seen in look(source, files, bad):
        source.draw(file, seen, targets[file], page)
    if len(bad) < len(files):
        write_text(Path(args.output, "index.html"), page.html())
        print(f"{len(files) - len(bad)} {source.kind}s; page: {args.output}/index.html")


def measure(
    args: argparse.Namespace, source: "_Images | _Videos", files: list[Path], bad: list[Path]
) -> None:
    """Measure all files, print the table, and write it and a figure for each block."""
    regions = read_regions(args.regions) if args.regions else None
    output, statistics = Path(args.output), AttentionStatistics()
    make_folder(output)
    for file, seen in look(source, files, bad):
        statistics.add(seen.blocks, source.regions(seen, regions and regions(file)))
    rows = statistics.rows()
    if rows:
        columns = dict.fromkeys(name for row in rows for name in row if name != "regions")
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(output / "statistics.csv", text.getvalue())
        write_json(output / "statistics.json", rows)
        for block in statistics.blocks.values():
            draw_statistics(block).savefig(output / f"{block.name}.pdf")
        print(statistics.table())


def read_regions(given: str) -> Callable[[Path], list[dict[str, Any]]]:
    """Return the function that --regions names: of a file's path, its regions.

    Raises:
        UserError: it is neither a function nor a JSON object.
    """
    module, _, name = given.partition(":")
    try:
        if name and not Path(given).exists():
            return getattr(import_module(module), name)
        found = json.loads(Path(given).read_text(encoding="utf-8"))
        return lambda file: found.get(file.name, [])
    except (ImportError, AttributeError, OSError, ValueError) as error:
        raise UserError(
            f"--regions {given}: expected a JSON file or MODULE:FUNCTION; {error}"
        ) from error


class _Images:
    """A detector and what is done with images."""

    kind, suffixes = "image", [".png"]

    def __init__(self, args: argparse.Namespace, cfg: CfgNode, files: list[Path]) -> None:
        self.args = args
        if args.start is not None:
            raise UserError(f"--start {args.start}: an image has no frames")
        check_lengths(args.query, ("X", "Y"), "an image")
        for file in files if args.query else []:  # rather now than after an hour of images
            check_queries(args.query, file)
        threshold, classes = args.confidence_threshold, args.class_names
        self.predictor = Predictor(cfg, confidence_threshold=threshold, classes=classes)
        find_blocks(self.predictor.model, args.block)  # a wrong name, before anything is written

    def compute(self, file: Path) -> ImageAttention:
        try:
            image = read_image(file)
        except UserError as error:
            raise DataError(str(error)) from error
        return compute_attention(
            self.predictor,
            image,
            points=[(x + 0.5, y + 0.5) for x, y in self.args.query],
            blocks=self.args.block,
            max_detections=None if self.args.statistics else self.args.max_detections,
        )

    def draw(self, file: Path, seen: ImageAttention, target: Path, page: Page) -> None:
        arrows = self.args.arrows
        detections = draw_instances(seen.image, seen.instances, self.predictor.metadata)
        draw_sheet(seen, detections=detections, arrows=arrows, title=file.name).savefig(target)
        page.add_image(file.name, seen, detections=detections)

    def regions(self, seen: ImageAttention, given: list[dict[str, Any]] | None) -> list[Region]:
        return detected_regions(seen) if given is None else given_regions(given)


class _Videos:
    """A video classifier and what is done with videos."""

    kind, suffixes = "video", [".png", ".mp4", ".gif"]

    def __init__(self, args: argparse.Namespace, cfg: CfgNode, files: list[Path]) -> None:
        self.args, self.short_side = args, cfg.INPUT.MIN_SIZE_TEST
        check_lengths(args.query, ("FRAME", "X", "Y"), "a video")
        self.model, self.metadata = load_model(cfg, args.class_names)
        find_blocks(self.model, args.block)
        self.clip_keys = {"frames": cfg.INPUT.CLIP.FRAMES, "stride": cfg.INPUT.CLIP.STRIDE}
        for file in files:  # rather now than after an hour of videos
            check_clip(file, args, **self.clip_keys)

    def compute(self, file: Path) -> ClipAttention:
        start = self.args.start
        clip = read_clip(file, **self.clip_keys, short_side=self.short_side, start=start)
        names = self.metadata.thing_classes
        return compute_clip_attention(self.model, clip, blocks=self.args.block, class_names=names)

    def draw(self, file: Path, seen: ClipAttention, target: Path, page: Page) -> None:
        from ..data.video.writing import write_video  # needs PyAV, and images do not

        clip, arrows = seen.clip, self.args.arrows
        queries = [clip.query(frame, x + 0.5, y + 0.5) for frame, x, y in self.args.query]
        first, *others = queries or [seen.evidence]
        attentions = seen.attend(first)
        rest = [attention for query in others for attention in seen.attend(query)]
        draw_strip(seen, [*attentions, *rest], arrows=arrows).savefig(target)
        images = animate(seen, attentions, arrows=arrows)
        for suffix in (".mp4", ".gif"):
            write_video(target.with_suffix(suffix), images, rate=max(1, round(clip.rate)))
        page.add_clip(seen, queries=queries)

    def regions(self, seen: ClipAttention, given: list[dict[str, Any]] | None) -> list[Region]:
        return given_regions(given or [], seen.clip)


def check_lengths(queries: list[list[int]], numbers: tuple[str, ...], kind: str) -> None:
    for query in queries:
        if len(query) != len(numbers):
            given = " ".join(map(str, query))
            raise UserError(f"--query {given}: in {kind} it is {' '.join(numbers)}")


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
