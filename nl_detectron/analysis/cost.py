"""Parameters and multiply-adds of a detector, part by part, with and without non-local blocks.

A multiply-add is one product with its addition. Counted are convolutions, linear layers and the
non-local operation; not norms, activations, sums, pooling, RoIAlign and post-processing. The
image is padded as Detectron2 pads it. The heads get a fixed number of regions: `proposals` the
box head, `detections` the mask and keypoint heads. Parameters are those of ``parameters()``, of
frozen stages too; the statistics and scales of a frozen batch norm are buffers and do not count.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import ResNet, build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN, RetinaNet
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.roi_heads import CascadeROIHeads, StandardROIHeads
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..layers import NonLocalBlock, nonlocal_block
from ..utils.errors import UserError

# The size to which Detectron2 enlarges a COCO image of 3:5, in pixels, and how many regions its
# heads get there: MODEL.RPN.POST_NMS_TOPK_TEST and TEST.DETECTIONS_PER_IMAGE.
HEIGHT, WIDTH = 800, 1333
PROPOSALS, DETECTIONS = 1000, 100


@dataclass(frozen=True, kw_only=True)
class BlockCost:
    """A non-local block: its `name` in the model, its form, its input (N, C, H, W), its cost.

    `convolutions` are the multiply-adds of theta, phi, g and W_z, `operation` those of
    equation 1, in the `order` of multiplication that the block takes (`NonLocalBlock.orders`).
    """

    name: str
    pairwise: str
    order: str
    input_shape: tuple[int, ...]
    parameters: int
    convolutions: int
    operation: int

    @property
    def multiply_adds(self) -> int:
        return self.convolutions + self.operation


@dataclass(frozen=True, kw_only=True)
class PartCost:
    """A part of a model: what it costs without its non-local blocks, and the blocks."""

    name: str
    parameters_without: int
    multiply_adds_without: int
    blocks: tuple[BlockCost, ...]

    @property
    def parameters(self) -> int:
        return self.parameters_without + sum(block.parameters for block in self.blocks)

    @property
    def multiply_adds(self) -> int:
        return self.multiply_adds_without + sum(block.multiply_adds for block in self.blocks)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The parts of a model."""

    parts: tuple[PartCost, ...]

    @property
    def total(self) -> PartCost:
        return PartCost(
            name="total",
            parameters_without=sum(part.parameters_without for part in self.parts),
            multiply_adds_without=sum(part.multiply_adds_without for part in self.parts),
            blocks=tuple(block for part in self.parts for block in part.blocks),
        )


@dataclass(frozen=True, kw_only=True)
class Analysis(Costs):
    """The parts of a detector, for one image of `height` x `width` pixels."""

    height: int
    width: int
    proposals: int
    detections: int


def increase(with_blocks: int, without: int) -> float:
    """The difference in per cent of `without`; 0 for nothing at all."""
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
    """Count an R-CNN or RetinaNet on a ResNet, with or without FPN, in a second on the meta device.

    Raises:
        UserError: for another architecture: its parts are not known.
    """
    _check_architecture(model)
    backbone = model.backbone
    resnet = getattr(backbone, "bottom_up", backbone)
    divisor = max(backbone.size_divisibility, 1)
    padded = [math.ceil(side / divisor) * divisor for side in (height, width)]
    image = torch.empty(1, len(model.pixel_mean), *padded, device=model.device)

    def regions(number: int, pooler: Any) -> Tensor:
        channels = backbone.output_shape()[model.roi_heads.box_in_features[0]].channels
        return torch.empty(number, channels, *pooler.output_size, device=model.device)

    names = {module: name for name, module in model.named_modules()}
    costs: list[PartCost] = []
    with torch.no_grad(), bypassed_blocks(model) as inputs:

        def add(name: str, modules: list[nn.Module], multiply_adds: int) -> None:
            inside = {module for part in modules for module in part.modules()}
            blocks = [block for block in inputs if block in inside]
            costs.append(
                PartCost(
                    name=name,
                    parameters_without=parameters(*modules) - parameters(*blocks),
                    multiply_adds_without=multiply_adds,
                    blocks=tuple(block_cost(b, inputs[b], name=names[b]) for b in blocks),
                )
            )

        x = image
        for name in ("stem", *resnet.stage_names):
            module = getattr(resnet, name)
            multiply_adds, x = count(module, x)
            add(name, [module], multiply_adds)
        total, features = count(backbone, image)
        if backbone is not resnet:
            pyramid = [m for name, m in backbone.named_children() if m is not resnet]
            add("FPN", pyramid, total - sum(part.multiply_adds_without for part in costs))
        if isinstance(model, RetinaNet):
            levels = [features[name] for name in model.head_in_features]
            add("head", [model.head], count(model.head, levels)[0])
        else:
            rpn, heads = model.proposal_generator, model.roi_heads
            multiply_adds, _ = count(rpn.rpn_head, [features[name] for name in rpn.in_features])
            add("RPN", [rpn], multiply_adds)
            box = nn.Sequential(heads.box_head, heads.box_predictor)
            add("box head", [box], count(box, regions(proposals, heads.box_pooler))[0])
            if heads.mask_on:
                x = regions(detections, heads.mask_pooler)
                add("mask head", [heads.mask_head], count(heads.mask_head.layers, x)[0])
            if heads.keypoint_on:
                x = regions(detections, heads.keypoint_pooler)
                add("keypoint head", [heads.keypoint_head], count(heads.keypoint_head.layers, x)[0])

    analysis = Analysis(
        height=height, width=width, proposals=proposals, detections=detections, parts=tuple(costs)
    )
    if analysis.total.parameters != parameters(model):
        raise UserError(f"{type(model).__name__} has parameters outside of the known parts")
    return analysis


def block_cost(block: NonLocalBlock, input_shape: tuple[int, ...], *, name: str = "") -> BlockCost:
    """What `block` costs for an input (N, C, *spatial), in the order that it takes."""
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
    )


@contextmanager
def bypassed_blocks(model: nn.Module) -> Iterator[dict[NonLocalBlock, tuple[int, ...]]]:
    """Let every block hand on its input; yields the shapes of the inputs, as they come."""
    inputs: dict[NonLocalBlock, tuple[int, ...]] = {}

    def bypass(block: NonLocalBlock) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            inputs[block] = tuple(x.shape)
            return x

        return forward

    blocks = [module for module in model.modules() if isinstance(module, NonLocalBlock)]
    for block in blocks:
        block.forward = bypass(block)  # type: ignore[assignment, method-assign]
    try:
        yield inputs
    finally:
        for block in blocks:
            del block.forward


def count(run: Callable[..., Any], *inputs: Any) -> tuple[int, Any]:
    with FlopCounterMode(display=False) as counter:
        result = run(*inputs)
    return counter.get_total_flops() // 2, result


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def _check_architecture(model: GeneralizedRCNN | RetinaNet) -> None:
    if not isinstance(model, GeneralizedRCNN | RetinaNet):
        name = type(model).__name__
        raise UserError(f"expected GeneralizedRCNN or RetinaNet, got {name}, which is not counted")
    parts = [("MODEL.BACKBONE", getattr(model.backbone, "bottom_up", model.backbone), ResNet)]
    if isinstance(model, GeneralizedRCNN):
        parts.append(("MODEL.PROPOSAL_GENERATOR", model.proposal_generator, RPN))
        parts.append(("MODEL.ROI_HEADS", model.roi_heads, StandardROIHeads))
    for what, part, known in parts:
        if not isinstance(part, known) or isinstance(part, CascadeROIHeads):
            raise UserError(
                f"{what}: {type(part).__name__} cannot be counted, only {known.__name__}"
            )
