"""The detector of panoramas, started for a width this small."""

from typing import cast

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.modeling.roi_heads import StandardROIHeads
from torch import nn

from .. import linear_box_head as _linear_box_head  # noqa: F401  registers it

# About 2 / sqrt(fan-in), as INIT_STD for blocks; Detectron2's 0.01 is for 1024 features.
_CLASS_STD = 0.06


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
