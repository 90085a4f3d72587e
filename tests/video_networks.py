"""Small video networks for tests."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from nl_detectron import model_zoo


def video_cfg(*opts: Any) -> CfgNode:
    """A narrow C2D ResNet-50 with batch norms and 5 classes, for clips of 64 pixels."""
    cfg = model_zoo.get_config("Kinetics/c2d_R_50_32x2.yaml")
    cfg.merge_from_list([
        *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.RESNETS.STEM_OUT_CHANNELS", 8),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
        *("MODEL.VIDEO_CLASSIFIER.NUM_CLASSES", 5, "INPUT.CROP.SIZE", [64, 64]),
        *("INPUT.CLIP.FRAMES", 8, *opts),
    ])  # fmt: skip
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
