"""Draw or measure the attention of a model's non-local blocks on images or videos.

The result is heat maps and arrows as PNGs and one HTML page. With --statistics it is tables, and a
figure for each block.
"""

import argparse
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
from ..analysis.clip import read_clip
from ..analysis.statistics import AttentionStatistics, Region, detected_regions, given_regions
from ..config import is_video
from ..data.detection_utils import read_image
from ..data.inputs import WHAT, list_images, report_bad
from ..engine.predictor import Predictor, complete_config, load_model
from ..model_zoo.tables import as_csv
from ..utils.arguments import add_confidence_threshold, add_opts, at_least, script_parser
from ..utils.errors import DataError, UserError
from ..utils.file_io import make_folder, output_files, write_json, write_text
from ..visualization import (
    Page,
    draw_instances,
    draw_sheet,
    draw_statistics,
    draw_strip,
)

TITLE = "Attention of non-local blocks"


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(
        __doc__,
        """
Images: the default queries are the center of each detection, or of the image, for blocks in the
backbone, and each keypoint of each person for blocks in the keypoint head. A --query counts in the
keypoint head for each person whose box contains it. The files are DIR/<image>.png and
DIR/index.html, which computes the attention of any clicked pixel without a network connection.

Videos (META_ARCHITECTURE VideoClassifier): one clip per video, with INPUT.CLIP.FRAMES frames at
distances of INPUT.CLIP.STRIDE. The default query is the place with the most evidence for the class
of highest score. The files are DIR/<video>.png, a strip of frames for each block and query, and
DIR/index.html.

--statistics writes DIR/statistics.csv, DIR/statistics.json and DIR/<block>.pdf instead. They have
a block's residual ratio, ||z - x|| / ||x||, the entropy and reach of its attention, and the
difference between queries. nl_detectron.analysis.statistics defines the columns. Shares of the
weight are by region: the detections (images), or --regions. That is a JSON file with the regions of
each input, {"a.jpg": [{"label": "person", "boxes": [[x0, y0, x1, y1], ...]}, ...]}, in videos with
the frame's number before x0; or MODULE:FUNCTION, which returns such a list for an input's path.

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
        help="pixel of the query: X Y in images, FRAME X Y in videos, counted from 0 at the top "
        "left and at the video's first frame; may be repeated",
    )
    parser.add_argument(
        "--start",
        type=int,
        metavar="FRAME",
        help="videos: first frame of the clip (default: that of a clip in the video's middle)",
    )
    parser.add_argument(
        "--block",
        action="append",
        default=[],
        metavar="NAME",
        help="a block's name in the model, may be repeated; default: all. The error for an unknown "
        "name lists them",
    )
    add_confidence_threshold(parser)
    parser.add_argument(
        "--max-detections",
        type=at_least(0),
        default=5,
        metavar="N",
        help="images: use at most N detections of each image (default: %(default)s; with "
        "--statistics all)",
    )
    parser.add_argument(
        "--arrows",
        type=at_least(0),
        default=8,
        metavar="N",
        help="draw arrows to at most N of the strongest positions above an even share, which is "
        "1 / number of keys (default: %(default)s)",
    )
    measuring = parser.add_argument_group("statistics")
    measuring.add_argument("--statistics", action="store_true", help="measure instead of drawing")
    measuring.add_argument(
        "--samples", type=at_least(1), metavar="N", help="take the first N inputs (default: all)"
    )
    measuring.add_argument(
        "--regions",
        metavar="WHAT",
        help="a JSON file, or MODULE:FUNCTION (default: the detections)",
    )
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    setup_logger(name="fvcore")
    cfg = complete_config(args.config_file, opts=args.opts)
    files = list(list_images(args.input))[: args.samples]
    numbers = ("FRAME", "X", "Y") if is_video(cfg) else ("X", "Y")
    if any(len(query) != len(numbers) for query in args.query):
        raise UserError(f"--query must be {' '.join(numbers)} with this config, got {args.query}")
    source = (_Videos if is_video(cfg) else _Images)(args, cfg)
    bad: list[Path] = []
    if args.statistics:
        measure(args, source, files, bad)
    else:
        subtitle = f"{args.config_file}, {cfg.MODEL.WEIGHTS}"
        page = Page(title=TITLE, subtitle=subtitle, arrows=args.arrows)
        draw(args, source, files, bad, page)
    report_bad(bad, len(files), kind=f"{source.kind}s")


def compute_all(
    source: "_Images | _Videos", files: list[Path], bad: list[Path]
) -> Iterator[tuple[Path, Any]]:
    """Yield each file with its attention under a progress bar; add unreadable files to `bad`."""
    for file in tqdm(files, unit=source.kind):
        try:
            seen = source.compute(file)
        except DataError as error:
            bad.append(file)
            tqdm.write(f"skipped {error}", file=sys.stderr)
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
    targets = dict(zip(files, output_files(files, args.output, ".png"), strict=True))
    for file, seen in compute_all(source, files, bad):
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
    for file, seen in compute_all(source, files, bad):
        statistics.add(seen.blocks, source.regions(seen, regions and regions(file)))
    rows = statistics.rows()
    if rows:
        columns = dict.fromkeys(name for row in rows for name in row if name != "regions")
        table = as_csv([{name: row.get(name) for name in columns} for row in rows])
        write_text(output / "statistics.csv", table)
        write_json(output / "statistics.json", rows)
        for block in statistics.blocks.values():
            draw_statistics(block).savefig(output / f"{block.name}.pdf")
        print(statistics.table())
    if missing := [name for name in source.blocks if name not in statistics.blocks]:
        print(
            f"not measured, since no detection reaches a score of {args.confidence_threshold} "
            f"(--confidence-threshold): {', '.join(missing)}"
        )


def read_regions(given: str) -> Callable[[Path], list[dict[str, Any]]]:
    """Return the function from a file's path to its regions that --regions names.

    Raises:
        UserError: `given` is neither a function nor a JSON file.
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
    """A detector, and the computation and drawing of its attention in images."""

    kind = "image"

    def __init__(self, args: argparse.Namespace, cfg: CfgNode) -> None:
        self.args = args
        self.predictor = Predictor(
            cfg, confidence_threshold=args.confidence_threshold, classes=args.class_names
        )
        # A wrong name fails before any output.
        self.blocks = find_blocks(self.predictor.model, args.block)

    def compute(self, file: Path) -> ImageAttention:
        return compute_attention(
            self.predictor,
            read_image(file),
            points=[(x + 0.5, y + 0.5) for x, y in self.args.query],
            blocks=self.args.block,
            max_detections=None if self.args.statistics else self.args.max_detections,
        )

    def draw(self, file: Path, seen: ImageAttention, target: Path, page: Page) -> None:
        detections = draw_instances(seen.image, seen.instances, self.predictor.metadata)
        sheet = draw_sheet(seen, detections=detections, arrows=self.args.arrows, title=file.name)
        sheet.savefig(target)
        page.add_image(file.name, seen, detections=detections)

    def regions(self, seen: ImageAttention, given: list[dict[str, Any]] | None) -> list[Region]:
        return detected_regions(seen) if given is None else given_regions(given)


class _Videos:
    """A video classifier, and the computation and drawing of its attention in videos."""

    kind = "video"

    def __init__(self, args: argparse.Namespace, cfg: CfgNode) -> None:
        self.args, self.cfg = args, cfg
        self.model, self.metadata = load_model(cfg, args.class_names)
        self.blocks = find_blocks(self.model, args.block)

    def compute(self, file: Path) -> ClipAttention:
        clip = read_clip(
            file,
            frames=self.cfg.INPUT.CLIP.FRAMES,
            stride=self.cfg.INPUT.CLIP.STRIDE,
            short_side=self.cfg.INPUT.MIN_SIZE_TEST,
            start=self.args.start,
        )
        return compute_clip_attention(
            self.model, clip, blocks=self.args.block, class_names=self.metadata.thing_classes
        )

    def draw(self, file: Path, seen: ClipAttention, target: Path, page: Page) -> None:
        queries = [seen.clip.query(frame, x + 0.5, y + 0.5) for frame, x, y in self.args.query]
        attentions = [a for query in queries or [seen.evidence] for a in seen.attend(query)]
        draw_strip(seen, attentions, arrows=self.args.arrows).savefig(target)
        page.add_clip(seen, queries=queries)

    def regions(self, seen: ClipAttention, given: list[dict[str, Any]] | None) -> list[Region]:
        return given_regions(given or [], seen.clip)
