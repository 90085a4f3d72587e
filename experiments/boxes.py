"""Panoramas with a square and, far from it, a cross of the same color or of another.

A match is a product between two places: each color is equally frequent in both objects, on the left
and on the right, and each answer is equally frequent for each color. The class of a square is its
color and the answer. With two classes, matched or not, a detector first learns that both are
squares, and drops the colors before it can compare them.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from numpy.typing import NDArray
from torch import nn

from nl_detectron.analysis.cost import PartCost, analyze, build_on_meta

from .detector import Draw, average_precision, run_detector
from .drawing import COLORS, Scene, background, two_colors
from .plan import BLOCKS, CHANNELS, FORMS, ITERATIONS, PAIRWISE, Plan, Trial
from .results import Outcome

HEIGHT, WIDTH = 32, 352
SIDE = 24
"""Side of every object in pixels."""

CLASSES = tuple(f"{name}, {answer}" for name in COLORS for answer in ("alone", "matched"))

NEAR, FAR = 8, 192
"""Pixels between the square and the cross, edge to edge: within a region's receptive field, and
beyond it."""

DIAL = (NEAR, 64, 128, FAR)

RINGS = 2
"""Distractors in a panorama of the task ``among``, of any color."""

# About 2 / sqrt(fan-in), as INIT_STD of the blocks; Detectron2's 0.01 is for 1024 features.
_CLASS_STD = 0.06
_SQUARE = np.ones((SIDE, SIDE), dtype=bool)
_CROSS = np.zeros_like(_SQUARE)
_CROSS[SIDE // 3 : -(SIDE // 3)] = _CROSS[:, SIDE // 3 : -(SIDE // 3)] = True
_RING = np.ones_like(_SQUARE)
_RING[SIDE // 4 : -(SIDE // 4), SIDE // 4 : -(SIDE // 4)] = False


def draw_scene(rng: np.random.Generator, task: str, distance: int) -> Scene:
    """Return one panorama.

    Args:
        rng: source of all random numbers.
        task: ``match``: find the square and its class; ``among``: the same among rings; ``colors``:
            find square and cross, with their colors as classes.
        distance: pixels between the square and the cross.
    """
    image = background(rng, HEIGHT, WIDTH)
    matched = int(rng.integers(2))
    color, other = two_colors(rng)
    cross_color = color if matched else other
    left = int(rng.integers(WIDTH - 2 * SIDE - distance + 1))
    columns = rng.permuted([left, left + SIDE + distance]).tolist()
    rows = rng.integers(HEIGHT - SIDE + 1, size=2).tolist()
    square, cross = ((x, y, x + SIDE, y + SIDE) for x, y in zip(columns, rows, strict=True))
    for (x0, y0, x1, y1), mask, name in ((square, _SQUARE, color), (cross, _CROSS, cross_color)):
        image[y0:y1, x0:x1][mask] = COLORS[name]
    if task == "among":
        _draw_rings(rng, image, columns)
    number, cross_number = (list(COLORS).index(name) for name in (color, cross_color))
    if task == "colors":
        boxes, classes = [square, cross], [number, len(COLORS) + cross_number]
    else:
        boxes, classes = [square], [2 * number + matched]
    return Scene(
        image=image,
        boxes=np.array(boxes, dtype=np.float64),
        classes=np.array(classes, dtype=np.int64),
        cue=cross,
    )


def _draw_rings(rng: np.random.Generator, image: NDArray[np.uint8], taken: list[int]) -> None:
    """Draw rings that overlap no object; `taken` has the objects' left sides."""
    for _ in range(RINGS):
        apart = np.abs(np.arange(WIDTH - SIDE + 1)[:, None] - taken).min(1) >= SIDE
        x, y = int(rng.choice(np.flatnonzero(apart))), int(rng.integers(HEIGHT - SIDE + 1))
        color = tuple(COLORS.values())[rng.integers(len(COLORS))]
        image[y : y + SIDE, x : x + SIDE][_RING] = color
        taken = [*taken, x]


_BLOCK = (BLOCKS, "[[],[],[-2],[]]")
_ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "block": _BLOCK,
    **{form: (*_BLOCK, PAIRWISE, form) for form in FORMS},
    "res2": (BLOCKS, "[[-2],[],[],[]]"),
    "res3": (BLOCKS, "[[],[-2],[],[]]"),
}


def _start(trial: Trial) -> Trial | None:
    """Return the trial with the initial weights: the colors come first, rings last."""
    if trial.task == "colors":
        return None
    if trial.task == "among":
        return replace(trial, task="match")
    arm = "wider" if trial.arm == "wider" else "none"
    return replace(trial, task="colors", distance=FAR, arm=arm)


_SEEDS = range(6, 11)

PLAN = Plan(
    experiment="boxes",
    config="matching_boxes.yaml",
    arms={
        **_ARMS,
        "wider": (CHANNELS, "9"),  # at least the block's multiply-adds
        **{f"{arm}_longer": (*opts, ITERATIONS, "600") for arm, opts in _ARMS.items()},
    },
    tasks={
        "colors": (ITERATIONS, "250"),
        # At the config's rate the initial weights were lost at first.
        "among": ("SOLVER.BASE_LR", "0.005"),
    },
    questions=(
        ("colors", FAR, ("none", "wider"), _SEEDS),
        ("match", FAR, ("none", "block", "wider"), _SEEDS),
        ("match", NEAR, ("none", "block"), _SEEDS),
        ("among", FAR, ("none", "block", "wider"), _SEEDS),
    ),
    start=_start,
)


def run_trial(trial: Trial, output: Path) -> Outcome:
    """Train the detector of `trial`, save its weights under `output`, and measure it."""
    cfg = PLAN.cfg(trial, output)
    return run_detector(cfg, build=build, draw=draw_of(trial), score=score, cost=cost_of(cfg))


def draw_of(trial: Trial) -> Draw:
    return partial(draw_scene, task=trial.task, distance=trial.distance or 0)


def build(cfg: CfgNode) -> nn.Module:
    """Build the detector of `cfg` with the weights of MODEL.WEIGHTS that fit.

    The classifier of the task ``colors`` fits that of ``match``: both have 8 classes.
    """
    model = build_model(cfg)
    nn.init.normal_(model.roi_heads.box_predictor.cls_score.weight, std=_CLASS_STD)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def score(found: Sequence[dict], scenes: Sequence[Scene]) -> tuple[float, float]:
    """Return AP and AP50, in %, of boxes with their class."""
    truth = [
        [
            {"category_id": int(c), "bbox": [*box[:2].tolist(), SIDE, SIDE], "area": SIDE**2}
            for box, c in zip(scene.boxes, scene.classes, strict=True)
        ]
        for scene in scenes
    ]
    return average_precision(found, truth, len(CLASSES))


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a detector, for one panorama."""
    proposals = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    return analyze(build_on_meta(cfg), height=HEIGHT, width=WIDTH, proposals=proposals).total
