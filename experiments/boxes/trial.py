"""One trial on panoramas with signs."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from pycocotools.coco import COCO

from nl_detectron.analysis import PartCost, analyze, build_on_meta

from ..detector import Score, View, run_detector, validation_rng
from ..evaluation import average_precision, coco_truth
from ..trial import Outcome
from .network import build
from .plan import BoxTrial
from .scenes import CLASSES, HEIGHT, SIDE, WIDTH, Scene, draw_scene

NUM_VAL = 300
"""Panoramas of the validation set, the same for all trials of a task and distance."""

_LOOKED_AT = 60  # of the validation set's panoramas, for the block's use


def run_trial(trial: BoxTrial, output: Path) -> Outcome:
    """Train the detector of `trial`, keep its weights under `output`, and measure it."""
    val = validation_set(trial)
    truth = truth_of(val)

    def score(found: Sequence[dict]) -> Score:
        _, found_at_all = average_precision(truth, found, use_classes=False)
        return Score(*average_precision(truth, found), found_at_all)

    return run_detector(
        trial,
        output,
        build=build,
        draw=lambda rng: draw_scene(rng, trial.task, trial.distance).record(),
        val=[scene.record() for scene in val],
        score=score,
        cost=cost_of(trial.config(output)),
        views=[View(s.image, s.center, s.cue) for s in val[:_LOOKED_AT]],
    )


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a detector, for one panorama."""
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = ""
    proposals = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    return analyze(build_on_meta(cfg), height=HEIGHT, width=WIDTH, proposals=proposals).total


def validation_set(trial: BoxTrial) -> list[Scene]:
    rng = validation_rng()
    return [draw_scene(rng, trial.task, trial.distance) for _ in range(NUM_VAL)]


def truth_of(scenes: Sequence[Scene]) -> COCO:
    """Return what is to be found in COCO's form; an image's id is its place in `scenes`."""
    return coco_truth([list(_annotations(scene)) for scene in scenes], len(CLASSES))


def _annotations(scene: Scene) -> Iterator[dict]:
    boxes, classes = scene.boxes.tolist(), scene.classes.tolist()
    for (x0, y0, x1, y1), category in zip(boxes, classes, strict=True):
        yield {"category_id": category, "bbox": [x0, y0, x1 - x0, y1 - y0], "area": SIDE**2}
