"""One trial: train on panoramas that are drawn as they are needed, evaluate, look at the block."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.utils.env import seed_all_rng
from pycocotools.coco import COCO

from nl_detectron.analysis import PartCost, analyze, build_on_meta
from nl_detectron.inference import Predictor
from nl_detectron.layers import NonLocalBlock
from nl_detectron.visualization import look

from ..evaluation import average_precision
from ..training import train
from ..trial import BlockUse, Outcome, cue_share
from .network import build
from .plan import BoxTrial
from .scenes import CLASSES, HEIGHT, SIDE, WIDTH, Scene, draw_scene

NUM_VAL = 300
"""Panoramas of the validation set, the same for all trials of a task and distance."""

_VALIDATION, _TRAINING = 0, 1  # streams of random numbers
_LOOKED_AT = 60  # of the validation set's panoramas, for the block's use
_AT_ONCE = 20


def run_trial(trial: BoxTrial, output: Path) -> Outcome:
    """Train the detector of `trial`, keep its weights under `output`, and measure it."""
    cfg = trial.config(output)
    seed_all_rng(trial.seed)
    model = build(cfg)
    val = validation_set(trial)
    truth = truth_of(val)
    rng = np.random.default_rng([_TRAINING, trial.seed])

    def draw() -> list[dict]:
        every = range(cfg.SOLVER.IMS_PER_BATCH)
        return [draw_scene(rng, trial.task, trial.distance).record() for _ in every]

    curve, seconds = train(
        cfg, model, draw, lambda: average_precision(truth, detect(model, val))[0]
    )
    weights = trial.weights(output)
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, weights)
    found = detect(model, val)
    ap, ap50 = average_precision(truth, found)
    cost = cost_of(cfg)
    return Outcome(
        ap=ap,
        ap50=ap50,
        localization_ap50=average_precision(truth, found, use_classes=False)[1],
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        seconds=seconds,
        curve=curve,
        blocks=list(_block_uses(cfg, weights, val)),
    )


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a detector, for one panorama."""
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = ""
    proposals = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    return analyze(build_on_meta(cfg), height=HEIGHT, width=WIDTH, proposals=proposals).total


def validation_set(trial: BoxTrial) -> list[Scene]:
    rng = np.random.default_rng([_VALIDATION])
    return [draw_scene(rng, trial.task, trial.distance) for _ in range(NUM_VAL)]


@torch.no_grad()
def detect(model: GeneralizedRCNN, scenes: Sequence[Scene]) -> list[dict]:
    """Return what `model` finds, as COCO's results; an image's id is its place in `scenes`."""
    model.eval()
    found = []
    for start in range(0, len(scenes), _AT_ONCE):
        batch = [scene.record() for scene in scenes[start : start + _AT_ONCE]]
        for number, output in enumerate(model(batch), start):
            found += instances_to_coco_json(output["instances"].to("cpu"), number)
    return found


def truth_of(scenes: Sequence[Scene]) -> COCO:
    """Return what is to be found in COCO's form; an image's id is its place in `scenes`."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in range(len(scenes))],
        "annotations": list(_annotations(scenes)),
        "categories": [{"id": number} for number in range(len(CLASSES))],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _annotations(scenes: Sequence[Scene]) -> Iterator[dict]:
    every = (
        (number, box, category)
        for number, scene in enumerate(scenes)
        for box, category in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True)
    )
    for identity, (image, (x0, y0, x1, y1), category) in enumerate(every, 1):
        box = [x0, y0, x1 - x0, y1 - y0]
        yield {"id": identity, "image_id": image, "category_id": category, "bbox": box} | {
            "area": SIDE**2,
            "iscrowd": 0,
        }


def _block_uses(cfg: CfgNode, weights: Path, val: Sequence[Scene]) -> Iterator[BlockUse]:
    """Look from the square's centre in some panoramas, with each block of the detector."""
    predictor = Predictor(cfg, weights=weights)
    blocks = {n: m for n, m in predictor.model.named_modules() if isinstance(m, NonLocalBlock)}
    ratios: dict[str, list[float]] = {name: [] for name in blocks}
    shares: dict[str, list[tuple[float, float]]] = {name: [] for name in blocks}

    def note(name: str):
        def hook(_, inputs: tuple, output: torch.Tensor) -> None:
            ratios[name].append(float((output - inputs[0]).norm() / inputs[0].norm()))

        return hook

    handles = [block.register_forward_hook(note(name)) for name, block in blocks.items()]
    for scene in val[:_LOOKED_AT] if blocks else ():
        left, top, right, bottom = scene.cue
        cue = (left, top, right - left, bottom - top)
        seen = look(predictor, scene.image, points=[scene.center])
        for attention in seen.attentions:
            shares[attention.block].append(cue_share(attention, cue))
    for handle in handles:
        handle.remove()
    for name in blocks:
        yield BlockUse.mean(name, ratios[name], shares[name])
