"""A trial of a detector: train on images drawn as needed, and evaluate."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.utils.env import seed_all_rng
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from nl_detectron.analysis.cost import PartCost

from . import modules as _modules  # noqa: F401  registers them
from .drawing import Scene
from .plan import Trial
from .results import Outcome
from .training import train

VALIDATION_IMAGES = 300
_BATCH = 20
_VALIDATION, _TRAINING = 0, 1  # streams of random numbers

Draw = Callable[[np.random.Generator], Scene]
Score = Callable[[Sequence[dict]], tuple[float, float]]
"""Returns AP and AP50 in % from COCO's results."""


def validation_set(draw: Draw) -> list[Scene]:
    """Return the validation images, which are the same for all seeds."""
    rng = np.random.default_rng([_VALIDATION])
    return [draw(rng) for _ in range(VALIDATION_IMAGES)]


def run_detector(
    trial: Trial,
    cfg: CfgNode,
    output: Path,
    *,
    build: Callable[[CfgNode], GeneralizedRCNN],
    draw: Draw,
    score: Callable[[Sequence[Scene]], Score],
    cost: PartCost,
) -> Outcome:
    """Train the detector of `trial`, save its weights under `output`, and measure it.

    Args:
        build: returns the detector of a config.
        draw: returns one image.
        score: returns the score of validation images.
        cost: returns the cost of the detector.
    """
    seed_all_rng(trial.seed)
    model = build(cfg)
    rng = np.random.default_rng([_TRAINING, trial.seed])
    val = validation_set(draw)
    records, score_of = [scene.record() for scene in val], score(val)
    curve, seconds = train(
        cfg,
        model,
        lambda: [draw(rng).record() for _ in range(cfg.SOLVER.IMS_PER_BATCH)],
        lambda: {"AP": score_of(detect(model, records))[0]},
    )
    ap, ap50 = score_of(detect(model, records))
    run = {
        "AP": ap,
        "AP50": ap50,
        "seconds": seconds,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
    }
    return Outcome(runs=[run], curves=curve)


@torch.no_grad()
def detect(model: nn.Module, records: Sequence[dict]) -> list[dict]:
    """Return the detections in COCO's result format; an image's id is its index."""
    model.eval()
    found = []
    for start in range(0, len(records), _BATCH):
        outputs = model(list(records[start : start + _BATCH]))
        for number, output in enumerate(outputs, start):
            found += instances_to_coco_json(output["instances"].to("cpu"), number)
    return found


def coco_truth(annotations: Sequence[Sequence[dict]], num_classes: int) -> COCO:
    """Return the ground truth in COCO's form.

    Args:
        annotations: annotations of each image, without ids; an image's id is its index.
    """
    every = [one | {"image_id": n} for n, of_image in enumerate(annotations) for one in of_image]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in range(len(annotations))],
        "annotations": [one | {"id": number, "iscrowd": 0} for number, one in enumerate(every, 1)],
        "categories": [{"id": number} for number in range(num_classes)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def average_precision(
    found: Sequence[dict],
    truth: COCO,
    what: str = "bbox",
    *,
    sigmas: Sequence[float] = (),
) -> tuple[float, float]:
    """Return AP and AP50 in %.

    Args:
        found: COCO's results.
        what: ``bbox`` or ``keypoints``.
        sigmas: COCO's constants of the keypoints; by default those of persons.
    """
    if not found:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(list(found)), what)
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0]), 100 * float(evaluation.stats[1])
