"""What the detector of people has that Detectron2's has not: the person's box is given."""

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn


@PROPOSAL_GENERATOR_REGISTRY.register()
class WholeImage(nn.Module):
    """Proposes of each image all of it: one person fills it."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__()

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return a proposal of each of `images`, and no losses."""
        return [self._propose(size, images.tensor) for size in images.image_sizes], {}

    def _propose(self, size: tuple[int, int], like: Tensor) -> Instances:
        height, width = size
        whole = torch.tensor([[0.0, 0.0, width, height]], device=like.device)
        return Instances(size, proposal_boxes=Boxes(whole), objectness_logits=like.new_zeros(1))
