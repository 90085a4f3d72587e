"""Export to TorchScript and ONNX, checked against the model, and of weights to safetensors.

| part | input | outputs |
|---|---|---|
| backbone | ``image`` (N, 3, H, W), normalized and padded | its maps by name |
| keypoint_head | ``regions`` (R, C, S, S), R = 0 included | ``heatmaps`` (R, K, 4S, 4S), logits |
| detector | ``image`` (3, H, W), pixels as the model takes them | ``pred_boxes``, ``scores``, ... |
| classifier | ``clips`` (N, 3, T, H, W), uint8 in RGB | ``scores`` (N, classes), probabilities |

N, T, H, W and R are free. TorchScript files are traces and return a dict; the outputs of ONNX files
have the same names. A detector takes one resized image. It returns boxes in pixels of that image,
and masks as Detectron2's heads do, relative to their boxes. Resizing the image and
``detectron2.modeling.postprocessing`` are not in the file. A video classifier normalizes its clips
and returns scores for each clip. Reading and scaling clips, and pooling the views of a video
(TEST.VIEW_POOLING), are not in the file.

The file of a video classifier refuses frames whose map is smaller than that of a training crop
(INPUT.CROP): the model pools such a map as a whole, but in a file the pooled window has one size.
With GROUP_FRAMES, both refuse a number of frames that does not divide into groups.

Limits of Detectron2 0.6:

- In ONNX, a detector ends at the keypoints' heatmaps: ``heatmaps_to_keypoints`` resizes each
  region's map to its own box in a loop, which no ONNX exporter supports. Apply that function to
  ``pred_keypoint_heatmaps`` and ``pred_boxes``. TorchScript files have ``pred_keypoints`` too.
- A detector cannot go through ``torch.export``, which torch's current ONNX exporter needs, because
  of `Instances` and branches on the number of boxes. It uses the older, tracing exporter; backbone
  and head use the current one.
- A trace fixes the number of images, so a detector takes one. Scripting
  (``scripting_with_instances``) would free it, but does not support a backbone with added blocks.
- Of other meta-architectures than GeneralizedRCNN with StandardROIHeads, only the backbone is
  exported.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..checkpoint import METADATA
from ..data.catalog import as_json
from ..utils.errors import UserError
from . import detector as detection
from . import video_classifier as video
from .api import SUFFIXES, TOLERANCE, Check, Part

__all__ = [
    "PARTS",
    "SUFFIXES",
    "TOLERANCE",
    "WEIGHTS_FORMAT",
    "Check",
    "Part",
    "export_part",
    "export_weights",
    "parts_of",
]

PARTS = {part.name: part for part in (*detection.PARTS, *video.PARTS)}
WEIGHTS_FORMAT = "safetensors"


def parts_of(model: nn.Module) -> list[str]:
    """Return the names of PARTS that can be exported from `model`."""
    return [name for name, part in PARTS.items() if part.is_in(model)]


def export_part(
    model: nn.Module, *, part: str, file_format: str, path: Path, inputs: Sequence[Tensor] = ()
) -> list[Check]:
    """Write one part of `model`, in evaluation mode on the CPU, to `path`, and check the file.

    Args:
        part: a key of PARTS.
        file_format: a key of SUFFIXES. ONNX files are run in onnxruntime.
        inputs: real inputs for the check: for a detector images (3, H, W), pixels as the model
            takes them; for a video classifier clips (N, 3, T, H, W) of uint8, in addition to
            random ones of three sizes.

    Raises:
        UserError: `model` has no such part, torch cannot export it, or a package is missing.
    """
    if part not in parts_of(model):
        allowed = ", ".join(parts_of(model))
        raise UserError(f"{type(model).__name__} has no {part} to export; it has: {allowed}")
    return PARTS[part].export(model, path, file_format, inputs)


def export_weights(
    model: nn.Module, *, path: Path, metadata: Mapping[str, Any] | None = None
) -> list[Check]:
    """Write the weights of `model` to `path` as safetensors, which ``MODEL.WEIGHTS`` takes.

    The file has the classes of `metadata` as well, see `data.catalog.metadata_of`. Tensors that
    share memory are written once each, so that any reader finds all names.

    Raises:
        UserError: the file cannot be written.
    """
    state = {
        k: v.cpu().clone(memory_format=torch.contiguous_format)
        for k, v in model.state_dict().items()
    }
    try:
        save_file(state, path, {METADATA: as_json(metadata or {})})
    except (OSError, SafetensorError) as error:
        reason = str(error).partition(" at path ")[0]  # the path is that of a temporary file
        raise UserError(f"cannot write {path}: {reason}") from error
    written = load_file(path)
    same = written.keys() == state.keys() and all(written[k].equal(state[k]) for k in state)
    difference = 0.0 if same else float("inf")
    return [Check(part="weights", input="", found=f"{len(state)} tensors", error=difference)]
