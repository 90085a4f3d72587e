"""Whole models and video networks with and without blocks."""

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from nl_detectron import model_zoo

from .measure import alternate, in_own_process, peak, ratio, seconds


@dataclass(frozen=True, kw_only=True)
class Twins:
    """A part of a model with blocks and the same part without: two configs of the zoo.

    `part` returns the part of a model; `inputs` makes its inputs on a device.
    """

    name: str
    with_blocks: str
    without: str
    part: Callable[[Any], nn.Module]
    inputs: Callable[..., Any]

    def build(self, blocks: bool, device: str) -> nn.Module:
        """Build the part; the twins have the same weights, and blocks start as the identity."""
        model = build_random(self.without, device)
        if blocks:
            weights, model = model.state_dict(), build_random(self.with_blocks, device)
            model.load_state_dict(weights, strict=False)
        return self.part(model)


def build_random(config: str, device: str) -> nn.Module:
    cfg = model_zoo.get_config(config)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    torch.manual_seed(0)
    return build_model(cfg)


def image_batch(device: str) -> list[dict]:
    """Return an image of 800 x 1333 pixels with five objects, in a data loader's form."""
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 800, 1333), generator=random, dtype=torch.uint8)
    corners = torch.rand(5, 2, generator=random) * torch.tensor([900.0, 400.0])
    boxes = torch.cat([corners, corners + 300], dim=1)
    objects = Instances((800, 1333), gt_boxes=Boxes(boxes), gt_classes=torch.arange(5))
    objects.gt_masks = BitMasks(torch.ones(5, 800, 1333, dtype=torch.bool))
    return [{"image": image, "instances": objects, "height": 800, "width": 1333}]


MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_{}1x.yaml"
KEYPOINT_RCNN = "COCO-Keypoints/keypoint_rcnn_R_50_FPN_{}1x.yaml"
TWINS = (
    Twins(
        name="R50-FPN backbone, 800x1344, 1 block",
        with_blocks=MASK_RCNN.format("NL_"),
        without=MASK_RCNN.format(""),
        part=lambda model: model.backbone,
        inputs=lambda device: torch.rand(1, 3, 800, 1344, device=device),
    ),
    *(
        Twins(
            name=f"keypoint head, {regions} regions, 4 blocks",
            with_blocks=KEYPOINT_RCNN.format("NL_head_"),
            without=KEYPOINT_RCNN.format(""),
            part=lambda model: nn.Sequential(*model.roi_heads.keypoint_head),  # without losses
            inputs=lambda device, n=regions: torch.rand(
                n, 256, 14, 14, device=device, requires_grad=True
            ),
        )
        for regions in (20, 100)
    ),
    Twins(
        name="Mask R-CNN R50-FPN, complete, 1 block",
        with_blocks=MASK_RCNN.format("NL_"),
        without=MASK_RCNN.format(""),
        part=lambda model: model,
        inputs=image_batch,
    ),
    *(
        Twins(
            name=f"I3D R50, a clip of {frames} frames, 5 blocks",
            with_blocks=f"Kinetics/i3d_R_50_NL5_{clip}.yaml",
            without=f"Kinetics/i3d_R_50_{clip}.yaml",
            part=lambda model: model.backbone,
            inputs=lambda device, n=frames: torch.rand(1, 3, n, 224, 224, device=device),
        )
        for frames, clip in ((32, "32x2"), (128, "128x1"))
    ),
)


def run_model(model: nn.Module, inputs: Any, training: bool, dtype: torch.dtype) -> None:
    """Run an inference, or a training step: forward, backward, update by SGD."""
    model.train(training)
    device = next(model.parameters()).device.type
    half = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    with torch.set_grad_enabled(training), half, EventStorage():
        result = model(inputs)
    if not training:
        return
    results = result.values() if isinstance(result, dict) else [result]
    sum(value.float().mean() for value in results).backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    torch.optim.SGD(parameters, lr=0.0, momentum=0.9).step()
    model.zero_grad()


def time_model(
    twins: Twins, blocks: bool, training: bool, device: str, dtype: torch.dtype
) -> Callable[[], float]:
    """Return a function that measures the seconds of one run of a model."""
    inputs, model = twins.inputs(device), twins.build(blocks, device)
    return lambda: seconds(lambda: run_model(model, inputs, training, dtype), device)


def model_memory(
    number: int, blocks: bool, training: bool, device: str, dtype: torch.dtype
) -> int | None:
    """Measure peak bytes beyond the model and its input; see `peak`."""
    torch.set_num_threads(1)
    twins = TWINS[number]
    inputs, model = twins.inputs(device), twins.build(blocks, device)
    return peak(lambda: run_model(model, inputs, training, dtype), device)


def model_table(rounds: int, device: str, dtype: torch.dtype) -> str:
    rows = []
    for number, twins in enumerate(tqdm(TWINS, desc=f"models, {device} {dtype}", file=sys.stderr)):
        for training in (False, True):
            steps = {
                "without": time_model(twins, False, training, device, dtype),
                "with": time_model(twins, True, training, device, dtype),
            }
            times = alternate(steps, rounds)
            more = ratio(times, "with", "without")
            peaks = [
                in_own_process(model_memory, number, blocks, training, device, dtype)
                for blocks in (False, True)
            ]
            memory = ["not measured" if p is None else f"{p / 1e6:.0f}" for p in peaks]
            rows.append([
                twins.name, "training step" if training else "inference",
                *(f"{statistics.median(found):.3f}" for found in times.values()),
                f"{100 * (more - 1):+.1f} %", *memory,
            ])  # fmt: skip
    return "### Whole models, with and without blocks\n\n" + tabulate(
        rows,
        ["model", "", "without, s", "with, s", "time", "peak without, MB", "peak with, MB"],
        tablefmt="github", disable_numparse=True,
    )  # fmt: skip
