"""Find problems in datasets of images or videos."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from ..config import is_video, load_any_config
from ..data import check_datasets, register_datasets
from ..data.validation import check_file, check_registered, check_run
from ..data.validation.coco import Expected
from ..data.validation.kinds import KINDS, Report, Severity
from ..data.validation.run import Run
from ..data.validation.videos import (
    VideoSet,
    check_video_run,
    check_videos,
)
from ..utils.arguments import add_opts, add_traceback
from ..utils.errors import UserError, nearest


def parser() -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
Errors stop training or evaluation, or silently lose data; warnings do not. The exit status is 0
without errors, 1 with errors, 2 for a wrong command line. --list shows all kinds of problems.

examples:
  a file and the folder of its images:
    %(prog)s annotations/train.json images/train
  a registered dataset, without decoding its images:
    %(prog)s coco_2017_val --no-images
  a list of videos and the folder that its paths are relative to:
    %(prog)s train.txt videos
  all datasets of a config, checked against the model and each other:
    %(prog)s --config-file quickstart.yaml""",
    )
    new.add_argument(
        "dataset",
        nargs="?",
        metavar="DATASET",
        help="annotation file, list of videos, or a dataset's name",
    )
    new.add_argument(
        "images",
        nargs="?",
        type=Path,
        metavar="IMAGE_DIR",
        help="folder of the file's images or videos",
    )
    new.add_argument("--config-file", metavar="FILE", help="check the datasets of a config instead")
    new.add_argument(
        "--no-images",
        action="store_true",
        help="only check that images and videos exist (seconds), do not decode them",
    )
    new.add_argument(
        "--mask-format",
        choices=("polygon", "bitmask"),
        default="polygon",
        help="INPUT.MASK_FORMAT of the training (default: %(default)s)",
    )
    new.add_argument(
        "--examples",
        type=int,
        default=3,
        metavar="N",
        help="name the first N of each problem (default: %(default)s)",
    )
    new.add_argument("--json", action="store_true", help="print JSON instead of tables")
    new.add_argument("--list", action="store_true", help="list all kinds of problems, and stop")
    add_traceback(new)
    add_opts(new)
    return new


def main() -> int:
    command_line = parser()
    args = command_line.parse_args()
    if args.list:
        print(list_of_checks())
        return 0
    if (args.dataset is None) == (args.config_file is None):
        command_line.error("give an annotation file and its images, a name, or --config-file")
    options = {"decode": not args.no_images, "progress": sys.stderr.isatty() or not args.json}
    if args.config_file is not None:
        reports = check_config(args.config_file, args.opts, options)
    else:
        reports = [check_dataset(args, options)]
    if args.json:
        print(json.dumps([report.as_dict(args.examples) for report in reports], indent=2))
    else:
        print("\n\n".join(report.as_text(args.examples) for report in reports))
    return int(any(report.count(Severity.ERROR) for report in reports))


def check_config(file: str, opts: list[str], options: dict[str, Any]) -> list[Report]:
    cfg = load_any_config(file, opts, device="cpu")
    if isinstance(cfg, CfgNode):
        register_datasets(cfg)
    run = Run.of(cfg)
    check_datasets(run.train + run.test)
    return check_video_run(cfg, **options) if is_video(cfg) else check_run(run, **options)


def check_dataset(args: argparse.Namespace, options: dict[str, Any]) -> Report:
    name, expected = args.dataset, Expected(mask_format=args.mask_format)
    if name in DatasetCatalog:
        check_datasets([name])
        if MetadataCatalog.get(name).get("evaluator_type", "").startswith("video_"):
            return check_videos(VideoSet.registered(name), **options)
        return check_registered(name, expected=expected, **options)
    if not Path(name).exists():
        guess = nearest(name, list(DatasetCatalog), cutoff=0.85)
        raise UserError(f"expected a file or a registered dataset, got '{name}'.{guess}")
    if args.images is None and not args.no_images:
        raise UserError(
            f"expected IMAGE_DIR after '{name}', got nothing; add the folder of its images, or "
            "--no-images to check only the annotations"
        )
    if args.images and not args.images.is_dir():
        raise UserError(f"IMAGE_DIR must be the folder of the images, got '{args.images}'")
    if name.endswith((".txt", ".csv")):
        root = args.images or Path(name).parent
        return check_videos(VideoSet.of_list(Path(name), root), **options)
    return check_file(Path(name), args.images, expected=expected, **options)


def list_of_checks(table_format: str = "simple") -> str:
    """Return the table of all kinds of problems, errors first."""
    rows = [[kind.severity, kind.name, kind.meaning, kind.fix] for kind in KINDS.values()]
    return tabulate(rows, ["", "problem", "meaning", "fix"], tablefmt=table_format)
