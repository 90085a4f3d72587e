"""Detectron2 modules for detectors this small; importing this file registers them."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn


@ROI_BOX_HEAD_REGISTRY.register()
class LinearBoxHead(nn.Module):
    """Box head without layers: the classifier on a region's features is linear.

    Layers without a norm first learn to answer the mean of all answers, and then nothing else.
    """

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.output_shape = input_shape

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` (N, C, H, W) as (N, C * H * W)."""
        return features.flatten(1)


@PROPOSAL_GENERATOR_REGISTRY.register()
class WholeImage(nn.Module):
    """Proposal generator for images that one person fills."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__()

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return one proposal for each image, and no losses."""
        like = images.tensor
        proposals = []
        for height, width in images.image_sizes:
            whole = torch.tensor([[0.0, 0.0, width, height]], device=like.device)
            logits = like.new_zeros(1)
            proposals.append(
                Instances((height, width), proposal_boxes=Boxes(whole), objectness_logits=logits)
            )
        return proposals, {}
