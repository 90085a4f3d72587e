#!/usr/bin/env python
"""Count a model's parameters and multiply-adds, part by part, with and without non-local blocks."""

import argparse
import json
from dataclasses import asdict, fields
from pathlib import Path

from detectron2.config import CfgNode
from omegaconf import DictConfig
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron import model_zoo
from nl_detectron.analysis import cost as analysis
from nl_detectron.analysis.cost import (
    Analysis,
    BlockCost,
    Costs,
    PartCost,
    analyze,
    build_on_meta,
    increase,
)
from nl_detectron.analysis.video_cost import VideoAnalysis, analyze_video
from nl_detectron.config import load_config, load_lazy_config
from nl_detectron.model_zoo import ENTRIES, Entry
from nl_detectron.model_zoo.model_zoo import TABLE as ZOO_TABLE
from nl_detectron.model_zoo.tables import with_values
from nl_detectron.modeling import VideoClassifier
from nl_detectron.utils.arguments import add_traceback
from nl_detectron.utils.errors import UserError, run_script

TEXT = ("part", "block", "form", "order", "input", "config", "blocks")  # columns of words

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
TABLE = ROOT / "docs" / "complexity.md"
VIDEO_TABLE = ROOT / "docs" / "complexity_video.md"
CONVENTIONS = (analysis.__doc__ or "").partition("\n\n")[2]

# Of these the table of the zoo also shows the parts.
IN_PARTS = (
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_NL_1x.yaml",
    "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_NL_1.44x.yaml",
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_NL_head_backbone_1x.yaml",
)


def parser() -> argparse.ArgumentParser:
    new = argparse.ArgumentParser(
        description=__doc__,
        epilog=CONVENTIONS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = new.add_mutually_exclusive_group(required=True)
    what.add_argument("--config-file", metavar="FILE", help="a .yaml or a LazyConfig .py file")
    what.add_argument(
        "--zoo",
        action="store_true",
        help="instead, all of the model zoo: write the tables docs/complexity*.md and the zoo's "
        "figures",
    )
    new.add_argument(
        "--input-size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="of the image or clip in pixels (default: "
        f"{analysis.HEIGHT} {analysis.WIDTH}; for a video config INPUT.CROP.SIZE)",
    )
    new.add_argument(
        "--proposals",
        type=int,
        metavar="N",
        default=analysis.PROPOSALS,
        help="regions for the box head (default: %(default)s)",
    )
    new.add_argument(
        "--detections",
        type=int,
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
    if min(*(args.input_size or ()), args.proposals, args.detections) < 1:
        raise UserError("--input-size, --proposals and --detections need numbers above 0")
    if args.zoo:
        write_zoo()
        return
    cfg = load(args.config_file, args.opts)
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
    """Print what a clip costs, and what the test of a video does: so many views of it."""
    size = args.input_size or (cfg.INPUT.CROP.SIZE if cfg.INPUT.CROP.ENABLED else None)
    test_size = [cfg.INPUT.MIN_SIZE_TEST] * 2
    height, width = size or test_size
    clip = analyze_video(model, frames=cfg.INPUT.CLIP.FRAMES, height=height, width=width)
    view = analyze_video(
        model, frames=clip.frames, height=test_size[0], width=test_size[1]
    ).total.multiply_adds
    clips, crops = cfg.TEST.CLIPS, cfg.TEST.CROPS
    if args.json:
        test = {
            "height": test_size[0],
            "width": test_size[1],
            "views": clips * crops,
            "multiply_adds_of_view": view,
            "multiply_adds": clips * crops * view,
        }
        print(json.dumps({**as_dict(clip), "test": test}, indent=2))
        return
    print(f"One clip of {clip.frames} frames of {height} x {width} pixels:\n")
    print(as_text(clip))
    if clip.total.blocks:
        print(
            f"\nWith blocks in the paper's order of multiplication: {clip.papers_order / 1e9:.2f} G"
        )
    print(
        f"\nA test of one video: {clips} clips x {crops} crops of {test_size[0]} x {test_size[1]} "
        f"pixels, {view / 1e9:.2f} G x {clips * crops} views = {clips * crops * view / 1e9:.1f} G"
    )


def load(config_file: str, opts: list[str]) -> CfgNode | DictConfig:
    # Nothing is computed, so a config for a GPU can be counted without one.
    if config_file.endswith(".py"):
        return load_lazy_config(config_file, [*opts, "train.device=cpu"])
    return load_config(config_file, [*opts, "MODEL.DEVICE", "cpu"])


def as_dict(result: Analysis | VideoAnalysis) -> dict:
    """What ``--json`` prints: parameters and multiply-adds are numbers, increases per cent."""

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
        "total": part(total),
        "blocks": [{**asdict(b), "multiply_adds": b.multiply_adds} for b in total.blocks],
    }


def as_text(result: Costs, table_format: str = "simple") -> str:
    """The parts and the blocks as tables."""
    parts = [[part.name, *with_and_without(part)] for part in (*result.parts, result.total)]
    headers = ["part", "parameters, M", "with blocks", "increase"]
    headers += ["multiply-adds, G", "with blocks", "increase"]
    text = table(parts, headers, table_format)
    if result.total.blocks:
        blocks = [block_row(block) for block in result.total.blocks]
        headers = ["block", "form", "order", "input", "parameters, M", "multiply-adds, G"]
        headers += ["convolutions", "equation 1"]
        text += "\n\n" + table(blocks, headers, table_format)
    return text


def with_and_without(part: PartCost) -> list[str]:
    return [
        f"{part.parameters_without / 1e6:.2f}",
        f"{part.parameters / 1e6:.2f}",
        per_cent(part.parameters, part.parameters_without),
        f"{part.multiply_adds_without / 1e9:.2f}",
        f"{part.multiply_adds / 1e9:.2f}",
        per_cent(part.multiply_adds, part.multiply_adds_without),
    ]


def block_row(block: BlockCost) -> list[str]:
    return [
        block.name,
        block.pairwise,
        block.order,
        " x ".join(map(str, block.input_shape)),
        f"{block.parameters / 1e6:.2f}",
        f"{block.multiply_adds / 1e9:.2f}",
        f"{block.convolutions / 1e9:.2f}",
        f"{block.operation / 1e9:.3f}",
    ]


def per_cent(with_blocks: int, without: int) -> str:
    return f"+{increase(with_blocks, without):.2f}%" if with_blocks != without else "="


def table(rows: list[list[str]], headers: list[str], table_format: str) -> str:
    align = ["left" if headers[i] in TEXT else "right" for i in range(len(headers))]
    return tabulate(rows, headers, tablefmt=table_format, disable_numparse=True, colalign=align)


def write_zoo() -> None:
    images: dict[str, Analysis] = {}
    clips: dict[str, VideoAnalysis] = {}
    for entry in tqdm(ENTRIES, unit="config"):
        if entry.task == "video":
            clips[entry.config] = clip_of(model_zoo.get_config(entry.config))
        else:
            images[entry.config] = analyze(build_on_meta(model_zoo.get_config(entry.config)))
    TABLE.write_text(zoo_table(images), encoding="utf-8")
    VIDEO_TABLE.write_text(video_table(), encoding="utf-8")
    values = {config: zoo_values(result, 1) for config, result in images.items()}
    values |= {config: zoo_values(result, result.frames) for config, result in clips.items()}
    ZOO_TABLE.write_text(with_values(values), encoding="utf-8")
    print(f"wrote {TABLE}, {VIDEO_TABLE} and {ZOO_TABLE}")
    print("now run python tools/generate_model_zoo.py")


def zoo_values(result: Analysis | VideoAnalysis, frames: int) -> dict[str, object]:
    """Return the columns of the zoo's table."""
    return {
        "input": f"{frames}x{result.height}x{result.width}",
        "parameters": result.total.parameters,
        "multiply_adds": result.total.multiply_adds,
    }


def clip_of(cfg: CfgNode) -> VideoAnalysis:
    """Count a network on the clips that it is trained on."""
    height, width = cfg.INPUT.CROP.SIZE
    return analyze_video(
        build_on_meta(cfg), frames=cfg.INPUT.CLIP.FRAMES, height=height, width=width
    )


def zoo_table(results: dict[str, Analysis]) -> str:
    """Return the text of ``docs/complexity.md``."""
    first = next(iter(results.values()))
    rows = [zoo_row(e, results[e.config]) for e in ENTRIES if e.config in results]
    headers = ["config", "blocks", "parameters, M", "of them blocks", "increase"]
    headers += ["multiply-adds, G", "of them blocks", "increase"]
    sections = [
        "# What the models and their non-local blocks cost",
        "Generated by `python tools/analyze_model.py --zoo`; for one config, of yours too, "
        "`--config-file FILE`.",
        CONVENTIONS.strip(),
        f"Here the image has {first.height} x {first.width} pixels, and there are "
        f"{first.proposals} proposals and {first.detections} detections. The increase is that "
        "over the same model without its blocks.",
        "## All models of the zoo",
        table(rows, headers, "github"),
    ]
    for config in IN_PARTS:
        sections += [f"## {config}", as_text(results[config], "github")]
    return "\n\n".join(sections) + "\n"


def video_table() -> str:
    """Return the text of ``docs/complexity_video.md``."""
    files = [file for folder in ("Kinetics", "Charades") for file in (CONFIGS / folder).glob("*")]
    headers = ["config", "parameters, M", "clip", "multiply-adds, G", "in the paper's order, G"]
    headers += ["test of a video"]
    sections = [
        "# What the video networks cost",
        "Generated by `python tools/analyze_model.py --zoo`; for one config, of yours too, "
        "`--config-file FILE`.",
        CONVENTIONS.partition(" The\nimage")[0].strip(),
        "A block multiplies in the cheapest order; the column after says what the paper's own "
        "order takes, which the paper and the official code count. A test of a video takes "
        "TEST.CLIPS x TEST.CROPS views of its size. The paper gives 34.2 G for C2D ResNet-101, "
        "0.9 G less than counted here: half of what conv1 takes (1.9 G). Its ratios to that "
        "network (Table 2e) are met as it rounds them.",
        table([video_row(file) for file in sorted(files)], headers, "github"),
    ]
    return "\n\n".join(sections) + "\n"


def video_row(file: Path) -> list[str]:
    cfg = load(str(file), [])
    clip, model = clip_of(cfg), build_on_meta(cfg)
    side, views = cfg.INPUT.MIN_SIZE_TEST, cfg.TEST.CLIPS * cfg.TEST.CROPS
    view = analyze_video(model, frames=clip.frames, height=side, width=side).total.multiply_adds
    path = file.relative_to(ROOT)
    return [
        f"[{path.parent.name}/{file.stem}](../{path})",
        f"{clip.total.parameters / 1e6:.1f}",
        f"{clip.frames} x {clip.height} x {clip.width}",
        f"{clip.total.multiply_adds / 1e9:.1f}",
        f"{clip.papers_order / 1e9:.1f}",
        f"{view / 1e9:.1f} G x {views} views",
    ]


def zoo_row(entry: Entry, result: Analysis) -> list[str]:
    total = result.total
    row = [f"[{Path(entry.config).stem}](../configs/{entry.config})", entry.blocks or "none"]
    for with_blocks, without, unit in (
        (total.parameters, total.parameters_without, 1e6),
        (total.multiply_adds, total.multiply_adds_without, 1e9),
    ):
        blocks = with_blocks - without
        row += [f"{with_blocks / unit:.2f}", f"{blocks / unit:.2f}" if blocks else ""]
        row.append(per_cent(with_blocks, without) if blocks else "")
    return row


if __name__ == "__main__":
    run_script(main)
