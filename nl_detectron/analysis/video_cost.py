"""Parameters and multiply-adds of a video network, part by part, with and without blocks.

Counted as for detectors, for one clip. A test of one video takes several views; its cost is the
number of views times that of a view.
"""

from dataclasses import dataclass

import torch

from ..layers.nonlocal_block import POSITIONS
from ..modeling import VideoClassifier
from .cost import Costs, PartCost, block_cost, bypassed_blocks, count, parameters


@dataclass(frozen=True, kw_only=True)
class VideoAnalysis(Costs):
    """The parts of a classifier, for one clip of `frames` of `height` x `width` pixels.

    `papers_order` are the multiply-adds of all where every block multiplies in the order of the
    paper, which is what the paper and the official code count.
    """

    frames: int
    height: int
    width: int
    papers_order: int


def analyze_video(model: VideoClassifier, *, frames: int, height: int, width: int) -> VideoAnalysis:
    """Count a video network; takes a second on the meta device."""
    backbone = model.backbone
    names = {module: name for name, module in model.named_modules()}
    x = torch.empty(1, backbone.stem.in_channels, frames, height, width, device=model.device)
    parts = []
    with torch.no_grad(), bypassed_blocks(model) as inputs:
        for name in ("stem", *backbone.stage_names):
            module = getattr(backbone, name)
            if name == "res3":
                x = backbone.pool2(x)
            multiply_adds, x = count(module, x)
            blocks = [block for block in inputs if block in set(module.modules())]
            parts.append(
                PartCost(
                    name=name,
                    parameters_without=parameters(module) - parameters(*blocks),
                    multiply_adds_without=multiply_adds,
                    blocks=tuple(block_cost(b, inputs[b], name=names[b]) for b in blocks),
                )
            )
        multiply_adds, _ = count(model.classify, x)
        parts.append(
            PartCost(
                name="classifier",
                parameters_without=parameters(model.classifier),
                multiply_adds_without=multiply_adds,
                blocks=(),
            )
        )
    in_papers_order = sum(sum(block.orders(shape)[POSITIONS]) for block, shape in inputs.items())
    return VideoAnalysis(
        frames=frames,
        height=height,
        width=width,
        papers_order=sum(part.multiply_adds_without for part in parts) + in_papers_order,
        parts=tuple(parts),
    )
