"""People whose left glove has the color of their hat, and whose right glove has another.

A match is a product between two places: each color is equally frequent in the hat, in both gloves
and at both places. Further keypoints, one for the glove and one for the hat of each color, are
visible if the person has it. They need no comparison, and make the head keep the colors. AP counts
the left and the right glove only.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from nl_detectron.analysis.cost import PartCost, analyze, build_on_meta, total

from .detector import Draw, average_precision, run_detector
from .drawing import COLORS, Scene, background, two_colors
from .plan import ITERATIONS, Plan, Trial
from .results import Outcome

SIZE = 56
"""Height and width of an image, which one person fills: 14 x 14 features of stride 4."""

SIDE = 7
"""Side of a hat and of a glove in pixels."""

KEYPOINTS = (
    *("left glove", "right glove"),
    *(f"{color} {thing}" for thing in ("glove", "hat") for color in COLORS),
)
SIDES = slice(0, 2)
"""The keypoints in `KEYPOINTS` that depend on the match."""

NEAR, FAR = 4, 42
"""Pixels between the hat and the gloves, edge to edge: within the head's receptive field, which
reaches 42 pixels up from a glove, and beyond it."""

DIAL = (NEAR, 16, 28, FAR)

SIGMAS = (0.062,) * len(KEYPOINTS)
"""COCO's constant of a wrist, for all keypoints."""

_BODY = (60, 60, 60)


def draw_person(rng: np.random.Generator, distance: int, *, first_row: bool = False) -> Scene:
    """Return a person in front of noise.

    Args:
        rng: source of all random numbers.
        distance: pixels between the hat's lower and the gloves' upper edge.
        first_row: put the hat at the image's upper edge, not in any row.
    """
    image = background(rng, SIZE, SIZE)
    own, other = two_colors(rng)
    top = 0 if first_row else int(rng.integers(SIZE - 2 * SIDE - distance + 1))
    below = top + SIDE + distance
    hat = (int(rng.integers(SIZE - SIDE + 1)), top)
    half = SIZE // 2
    columns = [int(rng.integers(half - SIDE + 1)), half + int(rng.integers(half - SIDE + 1))]
    gloves = [(x, below) for x in rng.permuted(columns).tolist()]
    for glove in gloves:
        cv2.line(image, _middle(hat), _middle(glove), _BODY)
    keypoints = np.zeros((1, len(KEYPOINTS), 3))
    things = ((hat, own, "hat"), (gloves[0], own, "glove"), (gloves[1], other, "glove"))
    for (x, y), color, thing in things:
        image[y : y + SIDE, x : x + SIDE] = COLORS[color]
        keypoints[0, KEYPOINTS.index(f"{color} {thing}")] = (*_middle((x, y)), 2)
    keypoints[0, SIDES] = [(*_middle(glove), 2) for glove in gloves]
    x, y = hat
    image[y + 2 : y + SIDE - 2, x + 2 : x + SIDE - 2] = 0  # what tells a hat from a glove
    return Scene(
        image=image,
        boxes=np.array([[0.0, 0.0, SIZE, SIZE]]),
        classes=np.zeros(1, dtype=np.int64),
        keypoints=keypoints,
        cue=(x, y, x + SIDE, y + SIDE),
    )


def _middle(corner: tuple[int, int]) -> tuple[int, int]:
    return corner[0] + SIDE // 2, corner[1] + SIDE // 2


_ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "head": ("MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS", "2"),
    # At least the blocks' multiply-adds.
    "wider": ("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", str([35] * 8)),
}

PLAN = Plan(
    experiment="keypoints",
    config="matching_keypoints.yaml",
    arms={
        **_ARMS,
        **{f"{arm}_longer": (*opts, ITERATIONS, "1200") for arm, opts in _ARMS.items()},
    },
    questions=(
        ("match", FAR, ("none_longer", "head_longer", "wider_longer"), range(6, 11)),
        ("match", NEAR, ("none", "head"), range(1, 6)),
    ),
)


def run_trial(trial: Trial, output: Path) -> Outcome:
    """Train the detector of `trial`, save its weights under `output`, and measure it."""
    cfg = PLAN.cfg(trial, output)
    return run_detector(cfg, build=build_model, draw=draw_of(trial), score=score, cost=cost_of(cfg))


def draw_of(trial: Trial) -> Draw:
    return partial(draw_person, distance=trial.distance or 0, first_row=trial.task == "first_row")


def score(found: Sequence[dict], scenes: Sequence[Scene]) -> tuple[float, float]:
    """Return AP and AP50, in %, of the two sides alone."""
    truth = []
    for scene in scenes:
        assert scene.keypoints is not None
        sides = np.zeros_like(scene.keypoints[0])
        # COCO counts from the middle of the first pixel, Detectron2 from its edge.
        sides[SIDES] = scene.keypoints[0, SIDES] - (0.5, 0.5, 0)
        annotation = {"category_id": 0, "bbox": [0, 0, SIZE, SIZE], "area": SIZE**2}
        annotation |= {"keypoints": sides.ravel().tolist(), "num_keypoints": 2}
        truth.append([annotation])
    return average_precision(found, truth, 1, what="keypoints", sigmas=SIGMAS)


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a detector, for one person."""
    cfg = cfg.clone()
    cfg.merge_from_list(["MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "MODEL.RPN.IN_FEATURES", ["stem"]])
    costs = analyze(build_on_meta(cfg), height=SIZE, width=SIZE, proposals=1, detections=1)
    return total("total", [part for part in costs.parts if part.name != "RPN"])
