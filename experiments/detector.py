"""A trial of a detector: train on images drawn as needed, and evaluate.

Importing this file registers Detectron2 modules for detectors this small.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.layers import ShapeSpec
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.modeling.roi_heads import ROI_BOX_HEAD_REGISTRY
from detectron2.structures import Boxes, ImageList, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from nl_detectron.analysis.cost import PartCost

from .drawing import Scene
from .results import Outcome
from .training import VALIDATION, train

VALIDATION_IMAGES = 300
_BATCH = 20

Draw = Callable[[np.random.Generator], Scene]


@ROI_BOX_HEAD_REGISTRY.register()
class LinearBoxHead(nn.Module):
    """Box head without layers: the classifier on a region's features is linear.

    Layers without a norm first learn to answer the mean of all answers, and then nothing else.
    """

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec) -> None:
        super().__init__()
        self.output_shape = input_shape

    def forward(self, features: Tensor) -> Tensor:
        """Return `features` (N, C, H, W) as (N, C * H * W)."""
        return features.flatten(1)


@PROPOSAL_GENERATOR_REGISTRY.register()
class WholeImage(nn.Module):
    """Proposal generator for images that one person fills."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> None:
        super().__init__()

    def forward(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        """Return one proposal for each image, and no losses."""
        like = images.tensor
        proposals = []
        for height, width in images.image_sizes:
            whole = torch.tensor([[0.0, 0.0, width, height]], device=like.device)
            logits = like.new_zeros(1)
            proposals.append(
                Instances((height, width), proposal_boxes=Boxes(whole), objectness_logits=logits)
            )
        return proposals, {}


def validation_set(draw: Draw) -> list[Scene]:
    """Return the validation images, which are the same for all seeds."""
    rng = np.random.default_rng([VALIDATION])
    return [draw(rng) for _ in range(VALIDATION_IMAGES)]


def run_detector(
    cfg: CfgNode,
    *,
    build: Callable[[CfgNode], nn.Module],
    draw: Draw,
    score: Callable[[Sequence[dict], Sequence[Scene]], tuple[float, float]],
    cost: PartCost,
) -> Outcome:
    """Train the detector of `cfg`, save its weights, and measure it.

    Args:
        build: returns the detector of a config.
        draw: returns one image.
        score: returns AP and AP50 of COCO's results on some images.
        cost: the cost of the detector.
    """
    val = validation_set(draw)

    def evaluate(model: nn.Module) -> list[dict[str, float]]:
        found = []
        for start in range(0, len(val), _BATCH):
            outputs = model([scene.record() for scene in val[start : start + _BATCH]])
            for number, output in enumerate(outputs, start):
                found += instances_to_coco_json(output["instances"].to("cpu"), number)
        return [dict(zip(("AP", "AP50"), score(found, val), strict=True))]

    return train(
        cfg,
        build=build,
        draw=lambda rng, count: [draw(rng).record() for _ in range(count)],
        evaluate=evaluate,
        cost=cost,
    )


def average_precision(
    found: Sequence[dict],
    annotations: Sequence[Sequence[dict]],
    num_classes: int,
    *,
    what: str = "bbox",
    sigmas: Sequence[float] = (),
) -> tuple[float, float]:
    """Return AP and AP50 in %.

    Args:
        found: COCO's results; an image's id is its index.
        annotations: annotations of each image in COCO's form, without ids.
        what: ``bbox`` or ``keypoints``.
        sigmas: COCO's constants of the keypoints.
    """
    if not found:
        return 0.0, 0.0
    every = [one | {"image_id": n} for n, of_image in enumerate(annotations) for one in of_image]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": number} for number in range(len(annotations))],
        "annotations": [one | {"id": number, "iscrowd": 0} for number, one in enumerate(every, 1)],
        "categories": [{"id": number} for number in range(num_classes)],
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(list(found)), what)
    evaluation.params.kpt_oks_sigmas = np.array(sigmas)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * float(evaluation.stats[0]), 100 * float(evaluation.stats[1])
