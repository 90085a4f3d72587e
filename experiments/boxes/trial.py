"""One trial on boxes."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import GeneralizedRCNN
from pycocotools.coco import COCO
from torch import nn

from nl_detectron.analysis.cost import PartCost, analyze, build_on_meta

from ..detector import Draw, Score, average_precision, coco_truth, run_detector
from ..drawing import Scene
from ..plan import Trial
from ..results import Outcome
from .plan import PLAN
from .task import CLASSES, HEIGHT, SIDE, WIDTH, draw_scene

# About 2 / sqrt(fan-in), as INIT_STD of the blocks; Detectron2's 0.01 is for 1024 features.
_CLASS_STD = 0.06


def run_trial(trial: Trial, output: Path) -> Outcome:
    """Train the detector of `trial`, save its weights under `output`, and measure it."""
    cfg = PLAN.cfg(trial, output)
    draw = draw_of(trial)
    return run_detector(trial, cfg, output, build=build, draw=draw, score=score, cost=cost_of(cfg))


def draw_of(trial: Trial) -> Draw:
    return partial(draw_scene, task=trial.task, distance=trial.distance or 0)


def build(cfg: CfgNode) -> GeneralizedRCNN:
    """Build the detector of `cfg` with the weights of MODEL.WEIGHTS that fit.

    The classifier of the task ``colors`` fits that of ``match``: both have 8 classes.
    """
    model = build_model(cfg)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=_CLASS_STD)
    if cfg.MODEL.WEIGHTS:
        own = model.state_dict()
        saved = torch.load(cfg.MODEL.WEIGHTS, weights_only=True)["model"]
        fits = {k: v for k, v in saved.items() if k in own and own[k].shape == v.shape}
        model.load_state_dict(fits, strict=False)
    return cast(GeneralizedRCNN, model)


def score(scenes: Sequence[Scene]) -> Score:
    """Return the score of boxes with their class."""
    return partial(average_precision, truth=truth_of(scenes))


def truth_of(scenes: Sequence[Scene]) -> COCO:
    annotations = [
        [
            {"category_id": int(c), "bbox": [*box[:2].tolist(), SIDE, SIDE], "area": SIDE**2}
            for box, c in zip(scene.boxes, scene.classes, strict=True)
        ]
        for scene in scenes
    ]
    return coco_truth(annotations, len(CLASSES))


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a detector, for one panorama."""
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = ""
    proposals = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    return analyze(build_on_meta(cfg), height=HEIGHT, width=WIDTH, proposals=proposals).total
