#!/usr/bin/env python
"""Measure on nl_clips how much of a signal's attention goes to its partner.

In the classes told by a relation two signals answer each other, at opposite sides and a second
apart. From each of the two, in the middle of the time that it is seen, the table has, in per cent,
for each block and class: the share of the weight on the windows that cover the centres of the
partner's parts (partner), on these and the windows next to them (around), and on the same of the
signal itself (itself); beside each an even share, and how often the largest weight is there.
"""

import argparse
from collections import defaultdict

import numpy as np
from detectron2.utils.logger import setup_logger
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron.analysis.attention import compute_clip_attention
from nl_detectron.analysis.clip import read_clip
from nl_detectron.config import is_video
from nl_detectron.data.datasets.synthetic import clips
from nl_detectron.data.inputs import list_images
from nl_detectron.engine.predictor import complete_config, load_model
from nl_detectron.utils.arguments import add_opts, add_traceback
from nl_detectron.utils.errors import UserError, run_script
from nl_detectron.utils.file_io import write_json
from nl_detectron.visualization.partners import PartnerShare, Share, partner_shares


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
    if args.json:
        write_json(args.json, [])  # so that a wrong path shows before the work, not after
    setup_logger(name="fvcore")
    cfg = complete_config(args.config_file, opts=args.opts)
    if not is_video(cfg):
        raise UserError(
            f"MODEL.META_ARCHITECTURE is '{cfg.MODEL.META_ARCHITECTURE}', a model of images"
        )
    model, _ = load_model(cfg)
    files = list(list_images([f"nl_clips_{args.split}"]))[: args.count]
    found: dict[tuple[str, str, str], list[PartnerShare]] = defaultdict(list)
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
        seen = compute_clip_attention(model, clip)
        for share in partner_shares(seen, clips.signals(scene)):
            found[share.block, clip_class.name, share.side].append(share)
    if not found:
        raise UserError("no video is told by a relation with both signals in its clip")
    rows = [
        {"block": block, "class": name, "from": side, "points": len(shares), **_figures(shares)}
        for (block, name, side), shares in sorted(found.items())
    ]
    print(tabulate(rows, headers="keys", floatfmt=".1f"))
    if args.json:
        write_json(args.json, rows)


def _figures(shares: list[PartnerShare]) -> dict[str, float]:
    places = {
        "partner": [one.partner for one in shares],
        "around": [one.around_partner for one in shares],
        "itself": [one.around_itself for one in shares],
    }
    return {
        name: figure
        for place, given in places.items()
        for name, figure in (
            (place, _percent(given, "share")),
            (f"{place}, even", _percent(given, "even")),
            (f"{place}, strongest", _percent(given, "is_strongest")),
        )
    }


def _percent(shares: list[Share], key: str) -> float:
    return 100 * float(np.mean([getattr(share, key) for share in shares]))


if __name__ == "__main__":
    run_script(main)
