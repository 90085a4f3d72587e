"""Count a model's parameters and multiply-adds, with and without its non-local blocks."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields

from detectron2.config import CfgNode
from tabulate import tabulate

from ..analysis import cost as analysis
from ..analysis.cost import (
    Analysis,
    PartCost,
    analyze,
    analyze_video,
    build_on_meta,
    increase,
)
from ..config import load_any_config
from ..modeling import VideoClassifier
from ..utils.arguments import add_traceback, at_least


def parser() -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=__doc__,
        epilog=(analysis.__doc__ or "").partition("\n\n")[2]
        + """
examples:
  %(prog)s --config-file COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml
  %(prog)s --config-file Kinetics/i3d_R_50_NL5_8x8.yaml --json
  other blocks, as KEY VALUE:
    %(prog)s --config-file COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml \\
        MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS '[[],[],[0,-2],[]]'""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    new.add_argument(
        "--config-file", required=True, metavar="FILE", help="a .yaml or a LazyConfig .py file"
    )
    new.add_argument(
        "--input-size",
        nargs=2,
        type=at_least(1),
        metavar=("HEIGHT", "WIDTH"),
        help="of the image or clip in pixels (default: "
        f"{analysis.HEIGHT} {analysis.WIDTH}; for a video config INPUT.CROP.SIZE)",
    )
    new.add_argument(
        "--proposals",
        type=at_least(1),
        metavar="N",
        default=analysis.PROPOSALS,
        help="regions for the box head (default: %(default)s)",
    )
    new.add_argument(
        "--detections",
        type=at_least(1),
        metavar="N",
        default=analysis.DETECTIONS,
        help="regions for the mask and keypoint heads (default: %(default)s)",
    )
    new.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_traceback(new)
    new.add_argument("opts", nargs="*", help="KEY VALUE ... (for a .py config: key=value ...)")
    return new


def main() -> None:
    args = parser().parse_args()
    # Nothing is computed, so a config for a GPU can be counted without one.
    cfg = load_any_config(args.config_file, args.opts, device="cpu")
    model = build_on_meta(cfg)
    if isinstance(model, VideoClassifier):
        print_video(cfg, model, args)
        return
    height, width = args.input_size or (analysis.HEIGHT, analysis.WIDTH)
    result = analyze(
        model,
        height=height,
        width=width,
        proposals=args.proposals,
        detections=args.detections,
    )
    print(json.dumps(as_dict(result), indent=2) if args.json else as_text(result))


def print_video(cfg: CfgNode, model: VideoClassifier, args: argparse.Namespace) -> None:
    """Print the cost of a clip, and of all views in the test of a video."""
    clip = count_clip(cfg, model, args.input_size)
    view = count_clip(cfg, model, [cfg.INPUT.MIN_SIZE_TEST] * 2)
    views, cost = cfg.TEST.CLIPS * cfg.TEST.CROPS, view.total.multiply_adds
    if args.json:
        test = {
            "height": view.height,
            "width": view.width,
            "views": views,
            "multiply_adds_of_view": cost,
            "multiply_adds": views * cost,
        }
        print(json.dumps({**as_dict(clip), "test": test}, indent=2))
        return
    print(f"One clip of {clip.frames} frames of {clip.height} x {clip.width} pixels:\n")
    print(as_text(clip))
    if clip.total.blocks:
        papers_order = clip.total.papers_order / 1e9
        print(f"\nWith blocks in the paper's order of multiplication: {papers_order:.2f} G")
    print(
        f"\nA test of one video: {cfg.TEST.CLIPS} clips x {cfg.TEST.CROPS} crops of "
        f"{view.height} x {view.width} pixels, {cost / 1e9:.2f} G x {views} views = "
        f"{views * cost / 1e9:.1f} G"
    )


def count_clip(cfg: CfgNode, model: VideoClassifier, size: Sequence[int] | None = None) -> Analysis:
    """Count a clip of a size in pixels, by default that of the crops in training."""
    test_size = [cfg.INPUT.MIN_SIZE_TEST] * 2
    height, width = size or (cfg.INPUT.CROP.SIZE if cfg.INPUT.CROP.ENABLED else test_size)
    return analyze_video(model, frames=cfg.INPUT.CLIP.FRAMES, height=height, width=width)


def as_dict(result: Analysis) -> dict:
    """Return the content for ``--json``: parameters, multiply-adds, and increases in %."""

    def part(cost: PartCost) -> dict:
        return {
            "name": cost.name,
            "parameters": cost.parameters,
            "parameters_without_blocks": cost.parameters_without,
            "parameters_increase": increase(cost.parameters, cost.parameters_without),
            "multiply_adds": cost.multiply_adds,
            "multiply_adds_without_blocks": cost.multiply_adds_without,
            "multiply_adds_increase": increase(cost.multiply_adds, cost.multiply_adds_without),
        }

    total = result.total
    return {
        "input": {
            field.name: getattr(result, field.name)
            for field in fields(result)
            if field.name != "parts"
        },
        "parts": [part(cost) for cost in result.parts],
        "total": {**part(total), "multiply_adds_in_papers_order": total.papers_order},
        "blocks": [{**asdict(b), "multiply_adds": b.multiply_adds} for b in total.blocks],
    }


def as_text(result: Analysis) -> str:
    """Return the parts and the blocks as tables."""
    parts = [
        [
            part.name,
            f"{part.parameters_without / 1e6:.2f}",
            f"{part.parameters / 1e6:.2f}",
            per_cent(part.parameters, part.parameters_without),
            f"{part.multiply_adds_without / 1e9:.2f}",
            f"{part.multiply_adds / 1e9:.2f}",
            per_cent(part.multiply_adds, part.multiply_adds_without),
        ]
        for part in (*result.parts, result.total)
    ]
    headers = ["part", "parameters, M", "with blocks", "increase"]
    headers += ["multiply-adds, G", "with blocks", "increase"]
    text = tabulate(parts, headers, disable_numparse=True, stralign="right", colalign=["left"])
    blocks = [
        {
            "block": block.name,
            "form": block.pairwise,
            "order": block.order,
            "input": " x ".join(map(str, block.input_shape)),
            "parameters, M": f"{block.parameters / 1e6:.2f}",
            "multiply-adds, G": f"{block.multiply_adds / 1e9:.2f}",
            "convolutions": f"{block.convolutions / 1e9:.2f}",
            "equation 1": f"{block.operation / 1e9:.3f}",
        }
        for block in result.total.blocks
    ]
    if blocks:
        left = ["left"] * 4
        text += "\n\n"
        text += tabulate(blocks, "keys", disable_numparse=True, stralign="right", colalign=left)
    return text


def per_cent(with_blocks: int, without: int) -> str:
    return f"+{increase(with_blocks, without):.2f}%" if with_blocks != without else "="
