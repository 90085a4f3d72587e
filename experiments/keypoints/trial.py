"""One trial on people with hats and gloves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pycocotools.coco import COCO

from nl_detectron.analysis import Costs, PartCost, analyze, build_on_meta

from .. import linear_box_head as _linear_box_head  # noqa: F401  registers it
from ..detector import Score, View, run_detector, validation_rng
from ..evaluation import average_precision, coco_truth
from ..trial import Outcome
from . import network as _whole_image  # noqa: F401  registers it
from .people import KEYPOINTS, SIDES, SIZE, Person, draw_person
from .plan import KeypointTrial

NUM_VAL = 300
"""People of the validation set, the same for all trials of a distance."""

SIGMAS = (0.062,) * len(KEYPOINTS)
"""COCO's constant of a wrist, for all keypoints."""

_LOOKED_AT = 60  # of the validation set's people, for the blocks' use


def run_trial(trial: KeypointTrial, output: Path) -> Outcome:
    """Train the detector of `trial`, keep its weights under `output`, and measure it."""
    val = validation_set(trial)
    by_match = truth_of(val, SIDES)
    by_color = truth_of(val, slice(SIDES.stop, None))

    def score(found: Sequence[dict]) -> Score:
        _, of_colors = average_precision(by_color, found, "keypoints", sigmas=SIGMAS)
        return Score(*average_precision(by_match, found, "keypoints", sigmas=SIGMAS), of_colors)

    return run_detector(
        trial,
        output,
        build=build_model,
        draw=lambda rng: _draw(rng, trial).record(),
        val=[person.record() for person in val],
        score=score,
        cost=cost_of(trial.config(output)),
        views=[View(p.image, p.left_glove, p.hat) for p in val[:_LOOKED_AT]],
    )


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a detector, for one person."""
    cfg = cfg.clone()
    cfg.merge_from_list(["MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "MODEL.RPN.IN_FEATURES", ["stem"]])
    costs = analyze(build_on_meta(cfg), height=SIZE, width=SIZE, proposals=1, detections=1)
    return Costs(parts=tuple(part for part in costs.parts if part.name != "RPN")).total


def validation_set(trial: KeypointTrial) -> list[Person]:
    rng = validation_rng()
    return [_draw(rng, trial) for _ in range(NUM_VAL)]


def _draw(rng: np.random.Generator, trial: KeypointTrial) -> Person:
    return draw_person(rng, trial.distance, first_row=trial.task == "first_row")


def truth_of(people: Sequence[Person], which: slice) -> COCO:
    """Return what is to be found in COCO's form, with `which` of `KEYPOINTS` alone; an image's id
    is its place in `people`."""
    return coco_truth([[_annotation(person.keypoints, which)] for person in people], 1)


def _annotation(keypoints: np.ndarray, which: slice) -> dict:
    # COCO counts from the middle of the first pixel, Detectron2 from its edge.
    points = keypoints - (0.5, 0.5, 0)
    seen = np.zeros_like(points)
    seen[which] = points[which]
    visible = seen[:, 2] > 0
    return {
        "category_id": 0,
        "bbox": [0, 0, SIZE, SIZE],
        "area": SIZE**2,
        "keypoints": (seen * visible[:, None]).ravel().tolist(),
        "num_keypoints": int(visible.sum()),
    }
