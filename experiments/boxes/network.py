"""What the detector of panoramas has that Detectron2's has not, for a width this small."""

from typing import cast

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY, StandardROIHeads
from torch import Tensor, nn

# About 2 / sqrt(fan-in), as INIT_STD for blocks; Detectron2's 0.01 is for 1024 features.
_CLASS_STD = 0.06


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


def build(cfg: CfgNode) -> GeneralizedRCNN:
    """Return the detector of `cfg`, started for its width; from MODEL.WEIGHTS what fits.

    The classifier of the task ``colors`` fits that of ``match``, which has as many classes.
    """
    model = cast(GeneralizedRCNN, build_model(cfg))
    classifier = cast(StandardROIHeads, model.roi_heads).box_predictor.cls_score
    nn.init.normal_(cast(nn.Linear, classifier).weight, std=_CLASS_STD)
    if cfg.MODEL.WEIGHTS:
        own = model.state_dict()
        saved = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"]
        fits = {k: v for k, v in saved.items() if k in own and own[k].shape == v.shape}
        model.load_state_dict(fits, strict=False)
    return model
