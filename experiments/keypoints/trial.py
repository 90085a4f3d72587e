"""One trial on keypoints."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pycocotools.coco import COCO

from nl_detectron.analysis.cost import PartCost, analyze, build_on_meta, total

from ..detector import Draw, Score, average_precision, coco_truth, run_detector
from ..drawing import Scene
from ..plan import Trial
from ..results import Outcome
from .plan import PLAN
from .task import KEYPOINTS, SIDES, SIZE, draw_person

SIGMAS = (0.062,) * len(KEYPOINTS)
"""COCO's constant of a wrist, for all keypoints."""


def run_trial(trial: Trial, output: Path) -> Outcome:
    """Train the detector of `trial`, save its weights under `output`, and measure it."""
    cfg = PLAN.cfg(trial, output)
    draw, cost = draw_of(trial), cost_of(cfg)
    return run_detector(trial, cfg, output, build=build_model, draw=draw, score=score, cost=cost)


def draw_of(trial: Trial) -> Draw:
    return partial(draw_person, distance=trial.distance or 0, first_row=trial.task == "first_row")


def score(scenes: Sequence[Scene]) -> Score:
    """Return the score of the two sides."""
    truth = truth_of(scenes)
    return partial(average_precision, truth=truth, what="keypoints", sigmas=SIGMAS)


def truth_of(scenes: Sequence[Scene]) -> COCO:
    """Return the ground truth with the two sides alone."""
    annotations = []
    for scene in scenes:
        assert scene.keypoints is not None
        sides = np.zeros_like(scene.keypoints[0])
        # COCO counts from the middle of the first pixel, Detectron2 from its edge.
        sides[SIDES] = scene.keypoints[0, SIDES] - (0.5, 0.5, 0)
        annotation = {"category_id": 0, "bbox": [0, 0, SIZE, SIZE], "area": SIZE**2}
        annotation |= {"keypoints": sides.ravel().tolist(), "num_keypoints": 2}
        annotations.append([annotation])
    return coco_truth(annotations, 1)


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a detector, for one person."""
    cfg = cfg.clone()
    cfg.merge_from_list(["MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "MODEL.RPN.IN_FEATURES", ["stem"]])
    costs = analyze(build_on_meta(cfg), height=SIZE, width=SIZE, proposals=1, detections=1)
    return total("total", [part for part in costs.parts if part.name != "RPN"])
