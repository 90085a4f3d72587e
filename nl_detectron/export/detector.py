"""Exportable parts of Detectron2's detectors: backbone, keypoint head and whole detector."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling import GeneralizedRCNN, StandardROIHeads
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from ..engine.predictor import network_input
from ..modeling import VideoClassifier
from .api import Check, Outputs, Part, Wrapper, check, write

_REGIONS = (0, 1, 20)


def _has_backbone(model: nn.Module) -> bool:
    return hasattr(model, "backbone") and not isinstance(model, VideoClassifier)


def _has_keypoint_head(model: nn.Module) -> bool:
    heads = getattr(model, "roi_heads", None)
    return hasattr(getattr(heads, "keypoint_head", None), "layers")


def _is_standard_detector(model: nn.Module) -> bool:
    heads = getattr(model, "roi_heads", None)
    return (
        type(model) is GeneralizedRCNN
        and isinstance(heads, StandardROIHeads)
        and hasattr(heads.box_predictor, "test_score_thresh")
    )


def _export_backbone(model: Any, path: Path, file_format: str, _: object) -> list[Check]:
    backbone = _Backbone(model.backbone).eval()
    step = max(model.backbone.size_divisibility, 32)
    channels = len(getattr(model, "pixel_mean", "RGB"))
    shapes = [(n, channels, h * step, w * step) for n, h, w in ((2, 4, 5), (1, 3, 7), (1, 6, 3))]
    inputs = _random(shapes)
    run = write(backbone, inputs[0], path, file_format, name="image", free=(0, 2, 3))
    return [check("backbone", backbone, run, x) for x in inputs]


def _export_keypoint_head(model: Any, path: Path, file_format: str, _: object) -> list[Check]:
    head = _KeypointHead(model.roi_heads.keypoint_head).eval()
    channels = next(head.parameters()).shape[1]  # of the first convolution
    shape = (channels, *model.roi_heads.keypoint_pooler.output_size)
    # Two regions for the trace: it may fix a size of 0 or 1.
    example, *inputs = _random([(n, *shape) for n in (2, *_REGIONS)])
    run = write(head, example, path, file_format, name="regions", free=(0,))
    return [check("keypoint_head", head, run, x) for x in inputs]


def _export_detector(
    model: Any, path: Path, file_format: str, images: Sequence[Tensor]
) -> list[Check]:
    detector = _Detector(_for_onnx(model) if file_format == "onnx" else model).eval()
    run = write(detector, images[0], path, file_format, name="image", free=(1, 2), traced=True)
    return [
        check("detector", detector, run, image, align=_in_order_of, found=_count)
        for image in images
    ]


def _images(cfg: CfgNode, files: Sequence[str] | None) -> list[Tensor]:
    """Return images as the network takes them; by default three of different shapes."""
    if files is None:
        by_shape = {(d["height"], d["width"]): d for d in DatasetCatalog.get("nl_shapes_val")}
        files = [image["file_name"] for image in list(by_shape.values())[:3]]
    return [network_input(cfg, file)["image"] for file in files]


def _random(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _count(detections: Outputs) -> str:
    return f"{len(detections['scores'])} found"


def _in_order_of(expected: Outputs, actual: Outputs) -> Outputs:
    """Sort `actual`'s detections as in `expected`; equal scores may come in any order.

    Each detection is matched to the nearest box of its class. If that is not one to one, the order
    stays.
    """
    if len(expected["scores"]) != len(actual["scores"]) or not len(expected["scores"]):
        return actual
    distance = torch.cdist(expected["pred_boxes"], actual["pred_boxes"], p=1)
    distance[expected["pred_classes"][:, None] != actual["pred_classes"]] = float("inf")
    order = distance.argmin(dim=1)
    if len(order.unique()) < len(order):
        return actual
    return {name: value[order] for name, value in actual.items()}


class _Backbone(Wrapper):
    def forward(self, image: Tensor) -> Outputs:
        return dict(self.module(image))


class _KeypointHead(Wrapper):
    def forward(self, regions: Tensor) -> Outputs:
        return {"heatmaps": self.module.layers(regions)}


class _Detector(Wrapper):
    """A GeneralizedRCNN that takes one image and returns plain tensors."""

    def forward(self, image: Tensor) -> Outputs:
        with torch.no_grad(), patch_builtin_len():
            (found,) = self.module.inference([{"image": image}], do_postprocess=False)
        fields = found.get_fields()
        return {k: v.tensor if isinstance(v, Boxes) else v for k, v in fields.items()}


def _for_onnx(model: Any) -> Any:
    """Return a copy of a GeneralizedRCNN that torch's older ONNX exporter can write."""
    model = copy.deepcopy(model)
    heads = model.roi_heads
    for name, child in list(heads.named_children()):
        if name.endswith("_pooler"):
            setattr(heads, name, _PoolerOfKnownRank(child))
        elif name in ("mask_head", "keypoint_head"):
            child.layers = _with_an_empty_region(child.layers)
    if hasattr(heads, "keypoint_head"):
        heads.keypoint_head = _HeatmapsOnly(heads.keypoint_head)
    return model


class _PoolerOfKnownRank(Wrapper):
    """Detectron2's pooler assigns by index, after which ONNX's exporter has lost the rank."""

    def forward(self, features: list[Tensor], boxes: list[Boxes]) -> Tensor:
        channels = features[0].shape[1]
        return self.module(features, boxes).reshape(-1, channels, *self.module.output_size)


def _with_an_empty_region(layers: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Wrap `layers` of a head: add an empty region to the input, and drop its result.

    The reshapes of blocks and group norms that the older exporter writes fail without any region.
    """
    return lambda regions: layers(F.pad(regions, (0, 0) * 3 + (0, 1)))[:-1]


class _HeatmapsOnly(Wrapper):
    """The keypoint head up to its logits, before Detectron2's loop over regions."""

    def forward(self, regions: Tensor, instances: list[Instances]) -> list[Instances]:
        instances[0].pred_keypoint_heatmaps = self.module.layers(regions)
        return instances


PARTS = (
    Part("backbone", is_in=_has_backbone, export=_export_backbone),
    Part("keypoint_head", is_in=_has_keypoint_head, export=_export_keypoint_head),
    Part("detector", is_in=_is_standard_detector, export=_export_detector, inputs=_images),
)
