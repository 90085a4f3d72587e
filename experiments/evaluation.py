"""COCO's average precision of what a detector found."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

_AT_ONCE = 20


@torch.no_grad()
def detect(model: nn.Module, records: Sequence[dict]) -> list[dict]:
    """Return what `model` finds, as COCO's results; an image's id is its place in `records`."""
    model.eval()
    found = []
    for start in range(0, len(records), _AT_ONCE):
        outputs = model(list(records[start : start + _AT_ONCE]))
        for number, output in enumerate(outputs, start):
            found += instances_to_coco_json(output["instances"].to("cpu"), number)
    return found


def coco_truth(annotations: Sequence[Sequence[dict]], num_classes: int) -> COCO:
    """Return what is to be found in COCO's form.

    Args:
        annotations: of each image, without ids; an image's id is its place.
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
    truth: COCO,
    found: Sequence[dict],
    what: str = "bbox",
    *,
    use_classes: bool = True,
    sigmas: Sequence[float] = (),
) -> tuple[float, float]:
    """Return AP and AP50 in per cent.

    Args:
        found: COCO's results.
        what: ``bbox`` or ``keypoints``.
        use_classes: whether things must have their class.
        sigmas: of each keypoint; without any, of COCO's people.
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
