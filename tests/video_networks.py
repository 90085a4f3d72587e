"""Small video networks for tests."""

from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import nn

import nl_detectron


def video_cfg(*opts: Any) -> CfgNode:
    """A narrow C2D ResNet-50 with batch norms and 5 classes, for clips of 64 pixels."""
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "VideoClassifier"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.PIXEL_MEAN = [114.75] * 3
    cfg.MODEL.PIXEL_STD = [57.375] * 3
    cfg.MODEL.BACKBONE.NAME = "build_nonlocal_video_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES = 5
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [64, 64]
    cfg.INPUT.CLIP.FRAMES = 8
    cfg.merge_from_list(list(opts))
    return cfg


def build(cfg: CfgNode) -> Any:
    with torch.device(cfg.MODEL.DEVICE):
        return build_model(cfg)


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and statistics for every part, so that each has an effect, and keep values
    of the order of 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            continue
        random = torch.randn(value.shape, generator=generator)
        if value.dim() > 1:
            random *= value[0].numel() ** -0.5
        elif name.endswith("running_var") or "norm.weight" in name:
            random = 0.5 + 0.25 * random.abs()
        else:
            random *= 0.1
        value.copy_(random)
    return model


def clip(*, views: int = 1, frames: int = 8, size: tuple[int, int] = (64, 64)) -> torch.Tensor:
    return torch.randint(0, 256, (views, 3, frames, *size), dtype=torch.uint8)
