"""A trial of a detector: train on images drawn as needed, evaluate, measure the blocks."""

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

from nl_detectron.analysis.attention import Attention, compute_attention
from nl_detectron.analysis.cost import PartCost
from nl_detectron.engine.predictor import Predictor

from . import modules as _modules  # noqa: F401  registers them
from .blocks import measure_blocks
from .drawing import Box, Scene
from .plan import Trial
from .results import Outcome
from .training import train

VALIDATION_IMAGES = 300
_LOOKED_AT = 60  # validation images on which the blocks are measured
_BATCH = 20
_VALIDATION, _TRAINING = 0, 1  # streams of random numbers

Draw = Callable[[np.random.Generator], Scene]
Score = Callable[[Sequence[dict]], tuple[float, float]]
"""Returns AP and AP50 in per cent of COCO's results."""


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
    scores: Callable[[Sequence[Scene]], tuple[Score, Score]],
    cost: PartCost,
) -> Outcome:
    """Train the detector of `trial`, save its weights under `output`, and measure it.

    Args:
        build: returns the detector of a config.
        draw: returns one image.
        scores: returns, for validation images, the score of the question and a score that does
            not need the cue.
        cost: of the detector.
    """
    seed_all_rng(trial.seed)
    model = build(cfg)
    rng = np.random.default_rng([_TRAINING, trial.seed])
    val = validation_set(draw)
    records, (score, local_score) = [scene.record() for scene in val], scores(val)
    curve, seconds = train(
        cfg,
        model,
        lambda: [draw(rng).record() for _ in range(cfg.SOLVER.IMS_PER_BATCH)],
        lambda: {"AP": score(detect(model, records))[0]},
    )
    found = detect(model, records)
    ap, ap50 = score(found)
    run = {
        "AP": ap,
        "AP50": ap50,
        "seconds": seconds,
        "local_AP50": local_score(found)[1],
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
    }
    predictor = Predictor(cfg, weights=trial.weights(output))
    shares = (
        (attention.block, *cue_share(attention, scene.cue))
        for scene in val[:_LOOKED_AT]
        for attention in compute_attention(predictor, scene.image, points=[scene.point]).attentions
    )
    return Outcome(runs=[run], curves=curve, blocks=measure_blocks(predictor.model, shares))


def cue_share(attention: Attention, cue: Box) -> tuple[float, float]:
    """Return the share of the absolute weight on windows that `cue` overlaps, and the share of
    these windows among all.
    """
    x0, y0, x1, y1 = cue
    columns, rows = attention.grid.x.windows(), attention.grid.y.windows()
    in_x = (columns[:, 0] < x1) & (columns[:, 1] > x0)
    in_y = (rows[:, 0] < y1) & (rows[:, 1] > y0)
    inside = np.outer(in_y, in_x)
    weights = np.abs(attention.weights[0])
    total = weights.sum()
    return float(weights[inside].sum() / total) if total else 0.0, float(inside.mean())


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
        annotations: of each image, without ids; an image's id is its index.
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
    use_classes: bool = True,
    sigmas: Sequence[float] = (),
) -> tuple[float, float]:
    """Return AP and AP50 in per cent.

    Args:
        found: COCO's results.
        what: ``bbox`` or ``keypoints``.
        use_classes: whether the class must be right.
        sigmas: of the keypoints; by default those of COCO's persons.
    """
    if not found:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(list(found)), what)
        evaluation.params.useCats = int(use_classes)
        if sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0]), 100 * float(evaluation.stats[1])
