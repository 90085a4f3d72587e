#!/usr/bin/env python
"""Find everything that is wrong with data sets of images or videos, before a run does."""

import nl_detectron  # noqa: F401  (before detectron2: no warnings of its import are shown)

# isort: split
import argparse
import json
import sys
from pathlib import Path

from detectron2.data import DatasetCatalog
from tabulate import tabulate

from nl_detectron.arguments import add_opts, add_traceback
from nl_detectron.config import load_config, load_lazy_config
from nl_detectron.data import check_datasets
from nl_detectron.dataset_check import (
    KINDS,
    Expected,
    Report,
    Run,
    check_file,
    check_registered,
    check_run,
)
from nl_detectron.dataset_check.videos import (
    VideoSet,
    check_video_run,
    check_videos,
    is_video_set,
)
from nl_detectron.errors import UserError, run_script
from nl_detectron.tasks import is_video


def parser() -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
Errors stop training or evaluation, or silently lose data; warnings do not. The exit status is 0
without errors, 1 with errors, 2 for a wrong command line. --list says what is looked for.

examples:
  a file and the folder of its images:
    check_dataset.py annotations/train.json images/train
  a data set that is registered, without decoding its images:
    check_dataset.py coco_2017_val --no-images
  a list of videos and the folder that its paths are relative to:
    check_dataset.py train.txt videos
  all data sets of a config, and whether they fit the model and each other:
    check_dataset.py --config-file configs/quickstart.yaml""",
    )
    new.add_argument(
        "dataset",
        nargs="?",
        metavar="DATA SET",
        help="annotation file, list of videos, or a data set's name",
    )
    new.add_argument(
        "images", nargs="?", metavar="IMAGE_DIR", help="folder of the file's images or videos"
    )
    new.add_argument(
        "--config-file", metavar="FILE", help="check the data sets of a config instead"
    )
    new.add_argument(
        "--no-images",
        action="store_true",
        help="do not decode images and videos, only see whether they are there (in seconds)",
    )
    new.add_argument(
        "--mask-format",
        choices=("polygon", "bitmask"),
        default="polygon",
        help="INPUT.MASK_FORMAT of the training to come (default: %(default)s)",
    )
    new.add_argument(
        "--examples",
        type=int,
        default=3,
        metavar="N",
        help="name the first N of each problem (default: %(default)s)",
    )
    new.add_argument("--json", action="store_true", help="print JSON instead of tables")
    new.add_argument("--list", action="store_true", help="list what is looked for, and stop")
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
    if args.examples < 1:
        raise UserError(f"--examples {args.examples}: at least 1")
    reports = check(args)
    if args.json:
        print(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        print("\n\n".join(report.as_text() for report in reports))
    return int(any(report.errors for report in reports))


def check(args: argparse.Namespace) -> list[Report]:
    decode, max_examples = not args.no_images, args.examples
    progress = sys.stderr.isatty() or not args.json
    if args.config_file is not None:
        if args.config_file.endswith(".py"):
            cfg = load_lazy_config(args.config_file, [*args.opts, "train.device=cpu"])
        else:
            cfg = load_config(args.config_file, [*args.opts, "MODEL.DEVICE", "cpu"])
            if is_video(cfg):
                check_datasets(cfg.DATASETS.TRAIN + cfg.DATASETS.TEST)
                return check_video_run(
                    cfg, decode=decode, progress=progress, max_examples=max_examples
                )
        run = Run.of(cfg)
        check_datasets(run.train + run.test)
        return check_run(run, decode=decode, progress=progress, max_examples=max_examples)
    expected = Expected(mask_format=args.mask_format)
    if args.dataset in DatasetCatalog:
        check_datasets([args.dataset])
        if is_video_set(args.dataset):
            return [
                check_videos(
                    VideoSet.registered(args.dataset),
                    decode=decode,
                    progress=progress,
                    max_examples=max_examples,
                )
            ]
        return [
            check_registered(
                args.dataset,
                expected=expected,
                decode=decode,
                progress=progress,
                max_examples=max_examples,
            )
        ]
    if not Path(args.dataset).exists():
        raise UserError(
            f"'{args.dataset}' is neither a file nor a registered data set; registered are "
            f"{', '.join(n for n in DatasetCatalog if n.startswith(('nl_', 'coco_2017')))}, ..."
        )
    if args.images is None and not args.no_images:
        raise UserError(
            "give the folder of the images after the annotation file, or --no-images to check "
            "only the annotations"
        )
    if args.images is not None and not Path(args.images).is_dir():
        raise UserError(f"'{args.images}' is not a folder; IMAGE_DIR is the folder of the images")
    if args.dataset.endswith((".txt", ".csv")):
        return [
            check_videos(
                VideoSet.of_list(
                    Path(args.dataset), Path(args.images or Path(args.dataset).parent)
                ),
                decode=decode,
                progress=progress,
                max_examples=max_examples,
            )
        ]
    return [
        check_file(
            Path(args.dataset),
            None if args.images is None else Path(args.images),
            expected=expected,
            decode=decode,
            progress=progress,
            max_examples=max_examples,
        )
    ]


def list_of_checks(table_format: str = "simple") -> str:
    """Return the table of all kinds of problems, errors first."""
    kinds = sorted(KINDS.values(), key=lambda kind: kind.severity)
    rows = [[kind.severity, kind.name, kind.meaning, kind.fix] for kind in kinds]
    return tabulate(rows, ["", "problem", "what it means", "fix"], tablefmt=table_format)


if __name__ == "__main__":
    run_script(main)
