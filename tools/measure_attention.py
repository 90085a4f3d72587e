#!/usr/bin/env python
"""Measure on nl_clips how much of a signal's attention goes to its partner.

In the classes told by a relation two signals answer each other, at opposite sides and seconds
apart. From each of the two, the share of its weight on the positions that cover the other one is
compared with an even share, for each block and class.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from detectron2.utils.logger import setup_logger
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron.arguments import add_opts, add_traceback
from nl_detectron.data import clips
from nl_detectron.errors import UserError, run_script
from nl_detectron.inference import complete_config, load_model
from nl_detectron.inputs import list_images
from nl_detectron.visualization import PartnerShare, look_at_clip, partner_shares, read_clip


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a .yaml config")
    parser.add_argument("--split", choices=clips.SPLITS, default="val", help="default: val")
    parser.add_argument("--count", type=int, metavar="N", help="the first N videos; default: all")
    parser.add_argument("--json", metavar="FILE", help="also write the rows here")
    add_traceback(parser)
    add_opts(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.count is not None and args.count < 1:
        raise UserError(f"--count {args.count}: at least 1")
    setup_logger(name="fvcore")
    cfg = complete_config(args.config_file, opts=args.opts)
    model = load_model(cfg)
    files = list_images([f"nl_clips_{args.split}"])[: args.count]
    found: dict[tuple[str, str], list[PartnerShare]] = defaultdict(list)
    for index, file in enumerate(tqdm(files, unit="video")):
        label, scene = clips.make_scene(args.split, index)
        clip_class = clips.CLASSES[label]
        if clip_class.told_by != "relation":
            continue
        clip = read_clip(
            file,
            frames=cfg.INPUT.CLIP.FRAMES,
            stride=cfg.INPUT.CLIP.STRIDE,
            short_side=cfg.INPUT.MIN_SIZE_TEST,
        )
        look = look_at_clip(model, clip)
        for share in partner_shares(look, clips.signals(scene)):
            found[share.block, clip_class.name].append(share)
    if not found:
        raise UserError("no video is told by a relation with both signals in its clip")
    rows = [_row(block, name, shares) for (block, name), shares in sorted(found.items())]
    print(tabulate(rows, headers="keys", floatfmt=".2f"))
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _row(block: str, name: str, shares: list[PartnerShare]) -> dict[str, str | int | float]:
    share, even = (
        100 * float(np.mean([getattr(one, key) for one in shares])) for key in ("share", "even")
    )
    return {
        "block": block,
        "class": name,
        "points": len(shares),
        "share %": share,
        "even %": even,
        "times": share / even,
        "strongest on partner %": 100 * float(np.mean([one.is_strongest for one in shares])),
    }


if __name__ == "__main__":
    run_script(main)
