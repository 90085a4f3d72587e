"""Parameters and multiply-adds of a model, part by part, with and without non-local blocks.

A multiply-add is one product with its addition. Convolutions, linear layers and the non-local
operation count. Norms, activations, sums, pooling, RoIAlign and post-processing do not. The
image is padded as Detectron2 pads it. The heads get a fixed number of regions: `proposals` the
box head, `detections` the mask and keypoint heads. Parameters are those of ``parameters()``,
including frozen stages. Statistics and scales of frozen batch norms are buffers and do not count.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import ResNet
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..layers import NonLocalBlock, nonlocal_block
from ..modeling import VideoClassifier, build_model
from ..utils.errors import UserError
from .attention import record_inputs

# Detectron2's input size for a COCO image of 3:5, in pixels, and the number of regions for its
# heads: MODEL.RPN.POST_NMS_TOPK_TEST and TEST.DETECTIONS_PER_IMAGE.
HEIGHT, WIDTH = 800, 1333
PROPOSALS, DETECTIONS = 1000, 100


@dataclass(frozen=True, kw_only=True)
class BlockCost:
    """A non-local block: its `name` in the model, its form, its input (N, C, *spatial), its cost.

    `convolutions` are the multiply-adds of theta, phi, g and W_z, `operation` those of
    equation 1, in the `order` of multiplication that the block takes (`NonLocalBlock.orders`);
    `papers_order` are both in the order of the paper.
    """

    name: str
    pairwise: str
    order: str
    input_shape: tuple[int, ...]
    parameters: int
    convolutions: int
    operation: int
    papers_order: int

    @property
    def multiply_adds(self) -> int:
        return self.convolutions + self.operation


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """A part of a model: its cost without its non-local blocks, and the blocks."""

    name: str
    parameters_without: int
    multiply_adds_without: int
    blocks: tuple[BlockCost, ...] = ()

    @property
    def parameters(self) -> int:
        return self.parameters_without + sum(block.parameters for block in self.blocks)

    @property
    def multiply_adds(self) -> int:
        return self.multiply_adds_without + sum(block.multiply_adds for block in self.blocks)

    @property
    def papers_order(self) -> int:
        """Return the multiply-adds with every block in the paper's order, as the paper counts."""
        return self.multiply_adds_without + sum(block.papers_order for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """The parts of a model for one clip, or for one image, a clip of one frame."""

    parts: tuple[PartCost, ...]
    height: int
    width: int
    frames: int = 1
    proposals: int = 0
    detections: int = 0

    @property
    def total(self) -> PartCost:
        return total("total", self.parts)


def total(name: str, parts: Sequence[PartCost]) -> PartCost:
    """Return the sum of some parts."""
    return PartCost(
        name=name,
        parameters_without=sum(part.parameters_without for part in parts),
        multiply_adds_without=sum(part.multiply_adds_without for part in parts),
        blocks=tuple(block for part in parts for block in part.blocks),
    )


def increase(with_blocks: int, without: int) -> float:
    """Return the difference in % of `without`; 0 if both are 0."""
    return 100 * (with_blocks - without) / without if without else 0.0


def build_on_meta(cfg: CfgNode | DictConfig) -> nn.Module:
    """Return the model of a YAML or LazyConfig without memory for its weights."""
    with torch.device("meta"):
        if isinstance(cfg, DictConfig):
            return instantiate(cfg.model).eval()
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "meta"
        return build_model(cfg).eval()


def analyze(
    model: GeneralizedRCNN | RetinaNet,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    proposals: int = PROPOSALS,
    detections: int = DETECTIONS,
) -> Analysis:
    """Count an R-CNN or RetinaNet on a ResNet, with or without FPN, for one image.

    Raises:
        UserError: for another architecture, whose parts are unknown.
    """
    _check_architecture(model)
    backbone = model.backbone
    resnet = getattr(backbone, "bottom_up", backbone)
    divisor = max(backbone.size_divisibility, 1)
    padded = [math.ceil(side / divisor) * divisor for side in (height, width)]
    image = model.pixel_mean.new_empty(1, len(model.pixel_mean), *padded)
    counter = _Counter(model)
    counter.count_resnet(resnet, image)
    trunk = total("ResNet", counter.parts)
    features = counter.count("FPN", backbone, image)
    whole = counter.parts.pop()
    if backbone is not resnet:
        counter.parts.append(
            PartCost(
                name="FPN",
                parameters_without=whole.parameters_without - trunk.parameters_without,
                multiply_adds_without=whole.multiply_adds_without - trunk.multiply_adds_without,
            )
        )
    if isinstance(model, RetinaNet):
        counter.count("head", model.head, [features[name] for name in model.head_in_features])
    else:
        rpn, heads = model.proposal_generator, model.roi_heads
        counter.count("RPN", rpn.rpn_head, [features[name] for name in rpn.in_features])
        channels = backbone.output_shape()[heads.box_in_features[0]].channels

        def regions(number: int, pooler: Any) -> Tensor:
            return image.new_empty(number, channels, *pooler.output_size)

        box = nn.Sequential(heads.box_head, heads.box_predictor)
        counter.count("box head", box, regions(proposals, heads.box_pooler))
        for kind in ("mask", "keypoint"):
            if getattr(heads, f"{kind}_on"):
                head = getattr(heads, f"{kind}_head")
                x = regions(detections, getattr(heads, f"{kind}_pooler"))
                counter.count(f"{kind} head", head, x, run=head.layers)
    analysis = Analysis(
        parts=tuple(counter.parts),
        height=height,
        width=width,
        proposals=proposals,
        detections=detections,
    )
    if analysis.total.parameters != parameters(model):
        raise UserError(f"{type(model).__name__} has parameters outside of the known parts")
    return analysis


def analyze_video(model: VideoClassifier, *, frames: int, height: int, width: int) -> Analysis:
    """Count a video network for one clip; a test takes several clips of each video."""
    channels = model.backbone.stem.in_channels
    counter = _Counter(model)
    clip = model.pixel_mean.new_empty(1, channels, frames, height, width)
    x = counter.count_resnet(model.backbone, clip)
    counter.count("classifier", model.classifier, x, run=model.classify)
    return Analysis(parts=tuple(counter.parts), height=height, width=width, frames=frames)


class _Counter:
    """Count `parts` of a model by running them one by one."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {module: name for name, module in model.named_modules()}
        self.parts: list[PartCost] = []

    @torch.no_grad()
    def count(
        self, name: str, part: nn.Module, x: Any, *, run: Callable[[Any], Any] | None = None
    ) -> Any:
        """Append a part and return its output; `run` replaces its ``forward``."""
        blocks = {self.names[m]: m for m in part.modules() if isinstance(m, NonLocalBlock)}
        with record_inputs(blocks) as inputs, ExitStack() as skipped:
            # Blocks become the identity: a formula has their cost, and they do not run on meta.
            for block in blocks.values():
                block.forward = nn.Identity().forward  # type: ignore[assignment, method-assign]
                skipped.callback(delattr, block, "forward")
            with FlopCounterMode(display=False) as counter:
                output = (run or part)(x)
        costs = tuple(block_cost(blocks[n], seen.shape, name=n) for n, seen in inputs.items())
        self.parts.append(
            PartCost(
                name=name,
                parameters_without=parameters(part) - sum(cost.parameters for cost in costs),
                multiply_adds_without=counter.get_total_flops() // 2,
                blocks=costs,
            )
        )
        return output

    def count_resnet(self, resnet: Any, x: Tensor) -> Tensor:
        """Append the stem and the stages, for images or for video."""
        for name in ("stem", *resnet.stage_names):
            if name == "res3" and hasattr(resnet, "pool2"):
                x = resnet.pool2(x)
            x = self.count(name, getattr(resnet, name), x)
        return x


def block_cost(block: NonLocalBlock, input_shape: tuple[int, ...], *, name: str = "") -> BlockCost:
    """Count `block` for an input (N, C, *spatial), in the block's order of multiplication."""
    orders = block.orders(input_shape)
    order = nonlocal_block.cheapest_order(orders)
    convolutions, operation = orders[order]
    return BlockCost(
        name=name,
        pairwise=block.pairwise,
        order=order,
        input_shape=tuple(input_shape),
        parameters=parameters(block),
        convolutions=convolutions,
        operation=operation,
        papers_order=sum(orders[nonlocal_block.POSITIONS]),
    )


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _check_architecture(model: nn.Module) -> None:
    backbone, heads = getattr(model, "backbone", None), getattr(model, "roi_heads", None)
    is_rcnn = (
        isinstance(model, GeneralizedRCNN)
        and isinstance(model.proposal_generator, RPN)
        and isinstance(heads, StandardROIHeads)
        and not isinstance(heads, CascadeROIHeads)
    )
    is_known = is_rcnn or isinstance(model, RetinaNet)
    if not is_known or not isinstance(getattr(backbone, "bottom_up", backbone), ResNet):
        parts = ", ".join(type(part).__name__ for part in (model, backbone, heads))
        raise UserError(
            "expected a RetinaNet or a GeneralizedRCNN with RPN and StandardROIHeads, on a ResNet, "
            f"got {parts}; see MODEL.META_ARCHITECTURE, MODEL.BACKBONE and MODEL.ROI_HEADS"
        )
