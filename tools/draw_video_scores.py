#!/usr/bin/env python
"""Draw the videos of a dataset with the scores of an evaluation, from inference/."""

import nl_detectron  # noqa: F401  (before detectron2: no warnings of its import are shown)

# isort: split
import argparse
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from nl_detectron.data.video.reading import read_frames
from nl_detectron.utils.arguments import add_traceback
from nl_detectron.utils.errors import UserError, run_script
from nl_detectron.visualization.contact_sheet import draw_contact_sheet

FRAMES = 8


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""
example:
  draw_video_scores.py --dataset nl_clips_val --output sheet.png \\
      --scores output/quickstart-video/inference/scores_nl_clips_val.npz""",
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="a registered dataset")
    parser.add_argument("--scores", required=True, metavar="FILE", help="scores_NAME.npz")
    parser.add_argument("--output", required=True, metavar="FILE", help=".png, .jpg or .pdf")
    parser.add_argument("--count", type=int, default=10, help="videos (default: %(default)s)")
    add_traceback(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.dataset not in DatasetCatalog:
        raise UserError(f"--dataset {arguments.dataset} is not registered")
    try:
        saved = np.load(arguments.scores)
        scores = dict(zip(saved["video_id"].tolist(), saved["scores"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read --scores {arguments.scores}: {error}") from error
    videos = [v for v in DatasetCatalog.get(arguments.dataset) if v["video_id"] in scores]
    chosen = videos[: arguments.count]
    if not chosen:
        raise UserError(f"--scores {arguments.scores} has no video of {arguments.dataset}")
    rows = []
    for video in chosen:
        indices = np.linspace(0, video["info"].num_frames - 1, FRAMES).round().astype(int)
        frames = read_frames(video["file_name"], indices, video["info"])
        rows.append((frames, scores[video["video_id"]], video["labels"]))
    figure = draw_contact_sheet(rows, MetadataCatalog.get(arguments.dataset).thing_classes)
    Path(arguments.output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=110)
    print(f"{arguments.output}: {len(rows)} videos")


if __name__ == "__main__":
    run_script(main)
