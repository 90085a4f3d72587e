"""A box head without layers, for detectors this small."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from torch import Tensor, nn


@ROI_BOX_HEAD_REGISTRY.register()
class LinearBoxHead(nn.Module):
    """A region's features as they are: the classifier on them is linear.

    Layers in between without a norm answer the mean of all answers before they have learned
    any, and then learn nothing.
    """

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.output_shape = input_shape

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` (N, C, H, W) as (N, C * H * W)."""
        return features.flatten(1)
