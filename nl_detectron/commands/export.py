"""Export a model to TorchScript or ONNX, or its weights to safetensors, and check each file."""

import argparse
import logging
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.logger import setup_logger
from tabulate import tabulate
from torch import nn

from .. import export
from ..data.catalog import categories_of
from ..engine.predictor import complete_config, load_model
from ..utils.arguments import add_opts, script_parser
from ..utils.file_io import check_overwriting, make_folder, write_json

logger = logging.getLogger(__name__)


def parse_arguments() -> argparse.Namespace:
    parser = script_parser(
        __doc__,
        f"""
This writes DIR/backbone, DIR/keypoint_head and DIR/detector, or for a video config DIR/classifier,
as .ts or .onnx. It then loads each file, ONNX in onnxruntime, and compares it with the model: the
backbone on three sizes, the head on 0, 1 and 20 regions, the detector on images, the classifier on
random clips of three sizes and on --input. A table lists the comparisons. The exit status is 0 only
if all agree to {export.TOLERANCE:g} of the largest value.
DIR/classes.json has names and ids of the classes, as COCO's categories. --format safetensors writes
only DIR/model.safetensors, with the exact weights and the classes. MODEL.WEIGHTS reads it without
running code.

inputs and outputs, with any H, W, N, T and R:
  backbone       image (N, 3, H, W), normalized and padded -> its maps by name
  keypoint_head  regions (R, C, S, S) -> heatmaps (R, keypoints, 4S, 4S), logits
  detector       image (3, H, W), resized, values 0 to 255 -> pred_boxes (R, 4) in its pixels,
                 scores, pred_classes, pred_masks (R, 1, 28, 28) inside the boxes, ...
  classifier     clips (N, 3, T, H, W), uint8 in RGB, scaled -> scores (N, classes), probabilities
                 of each clip; with INPUT.CROP, frames must be as large as the crop or larger; with
                 GROUP_FRAMES, T must be a number of whole groups

limits of Detectron2's code:
  - a detector takes one image at a time, because a trace fixes the number
  - a detector in ONNX ends at pred_keypoint_heatmaps; pred_keypoints need a loop over regions that
    no ONNX exporter supports (use detectron2.structures.heatmaps_to_keypoints)
  - detectors other than GeneralizedRCNN with StandardROIHeads: backbone only

examples:
  %(prog)s --config-file output/quickstart/config.yaml --format onnx --output exported \\
      --opts MODEL.WEIGHTS output/quickstart/model_final.pth
  %(prog)s --config-file F --format torchscript --output DIR --part keypoint_head
  %(prog)s --config-file F --format safetensors --output DIR
  %(prog)s --config-file output/quickstart-video/config.yaml --format onnx \\
      --output exported --input clip.mp4 \\
      --opts MODEL.WEIGHTS output/quickstart-video/model_final.pth""",
    )
    parser.add_argument(
        "--format",
        required=True,
        choices=[*export.SUFFIXES, export.WEIGHTS_FORMAT],
        help="kind of files to write",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    parser.add_argument(
        "--part",
        action="append",
        choices=export.PARTS,
        help="part to export, may be repeated; default: all parts of the model",
    )
    parser.add_argument(
        "--input",
        nargs="+",
        metavar="FILE",
        help="images for the check of the detector (default: three of the embedded dataset), or "
        "videos for the check of the classifier (default: random pixels)",
    )
    add_opts(parser)
    arguments = parser.parse_args()
    if arguments.format == export.WEIGHTS_FORMAT and arguments.part:
        parser.error("safetensors hold the weights of the whole model: remove --part")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    for name in ("fvcore", "nl_detectron"):
        setup_logger(name=name)
    cfg = complete_config(arguments.config_file, device="cpu", opts=arguments.opts)
    model, metadata = load_model(cfg, arguments.class_names)
    folder = Path(arguments.output)
    make_folder(folder)
    is_weights = arguments.format == export.WEIGHTS_FORMAT
    path = folder / ("model.safetensors" if is_weights else "classes.json")
    check_overwriting([path], [cfg.MODEL.WEIGHTS, arguments.class_names or ""])
    if is_weights:
        checks = export.export_weights(model, path=path, metadata=metadata.as_dict())
    else:
        checks = _export_parts(model, cfg, arguments, folder)
        write_json(path, {"categories": categories_of(metadata.as_dict())})
    headers = ["part", "input", "", "difference", ""]
    rows = [(c.part, c.input, c.found, c.error, "ok" if c.passed else "DIFFERS") for c in checks]
    print(tabulate(rows, headers, floatfmt=("", "", "", ".1e", "")))
    print(f"wrote {folder}")
    return 0 if all(check.passed for check in checks) else 1


def _export_parts(
    model: nn.Module, cfg: CfgNode, arguments: argparse.Namespace, folder: Path
) -> list[export.Check]:
    parts = arguments.part or export.parts_of(model)
    checks = []
    for number, part in enumerate(parts, 1):
        logger.info("[%d/%d] %s", number, len(parts), part)
        load = export.PARTS[part].inputs
        checks += export.export_part(
            model,
            part=part,
            file_format=arguments.format,
            path=folder / (part + export.SUFFIXES[arguments.format]),
            inputs=load(cfg, arguments.input) if load else (),
        )
    return checks
