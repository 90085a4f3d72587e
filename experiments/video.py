"""Clips with two distant objects of the same color or of two colors.

A match is a product between two places: each color is equally frequent in both classes, first or
second, on the left or on the right, and so is each shape, moment and place. A network whose
features do not see both objects, and which sums over its features, can at best answer one half.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from nl_detectron.analysis.cost import PartCost, analyze_video, build_on_meta
from nl_detectron.modeling import VideoClassifier

from .drawing import COLORS, GRAY, NOISE
from .plan import BLOCKS, CHANNELS, FORMS, ITERATIONS, PAIRWISE, Plan, Trial
from .results import Outcome
from .training import VALIDATION, train

FRAMES, HEIGHT, WIDTH = 8, 16, 120
SIDE = 8
"""Side of an object in pixels."""

KINDS = ("s", "t", "st")
"""Apart in space within a frame, in time at one place, or in both."""

FAR = 96
"""Pixels between the objects, edge to edge. A feature without a block sees 91."""

VALIDATION_CLIPS = 1152
_AT_ONCE = 64
_RGB = np.array(tuple(COLORS.values()))
_CROSS = np.zeros((SIDE, SIDE), dtype=bool)
_CROSS[SIDE // 3 : -(SIDE // 3)] = _CROSS[:, SIDE // 3 : -(SIDE // 3)] = True
_SHAPES = (np.ones_like(_CROSS), _CROSS)


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question about clips.

    Attributes:
        asks: ``match``: do the colors match? ``shape``: are both objects crosses? They share their
            shape.
        kinds: of the clips, equally frequent.
        gap: pixels between objects that are apart in space.
        lag: frames between objects that are apart in time; None for any frames that C2D's pooling
            over pairs of frames does not join.
    """

    asks: str = "match"
    kinds: tuple[str, ...] = KINDS
    gap: int = FAR
    lag: int | None = None


SPACE_DIAL, TIME_DIAL = (8, 32, 56, 80, FAR), (1, 2, 4, 6)
TASKS = {
    "all": Task(),
    "control": Task(asks="shape"),
    **{f"s_{gap}": Task(kinds=("s",), gap=gap) for gap in SPACE_DIAL},
    **{f"t_{lag}": Task(kinds=("t",), lag=lag) for lag in TIME_DIAL},
}
"""All kinds; all kinds with a local question; one distance in space or in time."""


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Clips with their labels.

    Attributes:
        frames: uint8 (N, 3, FRAMES, HEIGHT, WIDTH), RGB.
        labels: (N,), 0 or 1.
        kinds: (N,), indices into KINDS.
        places: (N, 2, 3), frame, y and x of both objects' upper left corners.
    """

    frames: Tensor
    labels: NDArray[np.int64]
    kinds: NDArray[np.int64]
    places: NDArray[np.int64]

    def batch(self) -> list[dict]:
        """Return the input of a `VideoClassifier`."""
        return [
            {"clips": clip[None], "labels": [label]}
            for clip, label in zip(self.frames, self.labels.tolist(), strict=True)
        ]


def draw_clips(rng: np.random.Generator, task: Task, count: int) -> Clips:
    """Return clips; labels, kinds and colors take turns.

    Args:
        rng: source of all random numbers.
        task: what to draw.
        count: a multiple of labels times kinds, for equal parts.
    """
    turns = list(product((0, 1), (KINDS.index(kind) for kind in task.kinds)))
    labels, kinds = np.array([turns[i % len(turns)] for i in range(count)]).reshape(-1, 2).T
    places = _places(rng, task, kinds)
    # Colors take turns as well, from a random start: all pairs are equally frequent.
    turn, colors = np.arange(count) // len(turns), len(_RGB)
    first = (turn + rng.integers(colors)) % colors
    apart = 1 + (turn // colors + rng.integers(colors - 1)) % (colors - 1)
    same, shapes = (rng.integers(2, size=count) for _ in range(2))
    if task.asks == "match":
        same = labels
    else:
        shapes = labels
    pairs = np.stack([first, np.where(same == 1, first, (first + apart) % colors)], axis=1)
    frames = rng.integers(NOISE, size=(count, 3, FRAMES, HEIGHT, WIDTH), dtype=np.uint8)
    frames += rng.integers(*GRAY, size=(count, 1, 1, 1, 1), dtype=np.uint8)
    for clip, shape, pair, at in zip(frames, shapes, pairs, places, strict=True):
        for color, (t, y, x) in zip(pair, at, strict=True):
            window = clip[:, t, y : y + SIDE, x : x + SIDE]
            window[:, _SHAPES[shape]] = _RGB[color][:, None]
    return Clips(frames=torch.from_numpy(frames), labels=labels, kinds=kinds, places=places)


def _places(rng: np.random.Generator, task: Task, kinds: NDArray[np.int64]) -> NDArray[np.int64]:
    count = len(kinds)
    in_space, in_time = (
        np.array([axis in KINDS[kind] for kind in kinds], dtype=bool) for axis in ("s", "t")
    )
    left = rng.integers(WIDTH - 2 * SIDE - task.gap + 1, size=count)
    x = np.stack([left, left + SIDE + task.gap], axis=1)
    x = rng.permuted(x, axis=1)  # which object is on the left
    y = rng.integers(HEIGHT - SIDE + 1, size=(count, 2))
    t = _moments(rng, task.lag, count)
    # Apart in time alone: both where the first is. In space alone: both when the first is.
    x[:, 1] = np.where(in_space, x[:, 1], x[:, 0])
    y[:, 1] = np.where(in_space, y[:, 1], y[:, 0])
    t[:, 1] = np.where(in_time, t[:, 1], t[:, 0])
    return np.stack([t, y, x], axis=2)


def _moments(rng: np.random.Generator, lag: int | None, count: int) -> NDArray[np.int64]:
    """Draw pairs of frames: with lag 1 those that the pooling joins, otherwise others."""
    lags = range(1, FRAMES) if lag is None else (lag,)
    every = product(range(FRAMES), repeat=2)
    allowed = [(a, b) for a, b in every if abs(a - b) in lags and (a // 2 == b // 2) == (lag == 1)]
    return rng.permuted(np.array(allowed)[rng.integers(len(allowed), size=count)], axis=1)


_BLOCK = (BLOCKS, "[[],[-2],[],[]]")
_AXES = "MODEL.RESNETS.NON_LOCAL.AXES"
_BATCH = ("SOLVER.IMS_PER_BATCH", "108")  # three times the config's
_I3D = ("MODEL.VIDEO_RESNET.TEMPORAL", "i3d_3x3x3")

CORE = ("none", "spacetime", "space", "time")
_ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "spacetime": _BLOCK,
    "space": (*_BLOCK, _AXES, "space"),
    "time": (*_BLOCK, _AXES, "time"),
    **{form: (*_BLOCK, PAIRWISE, form) for form in FORMS},
    "res2": (BLOCKS, "[[-2],[],[],[]]"),
}
_SEEDS, _BATCH_SEEDS = range(1, 6), range(11, 16)

PLAN = Plan(
    experiment="video",
    config="matching.yaml",
    arms={
        **_ARMS,
        "wider": (CHANNELS, "9"),  # at least the block's multiply-adds
        "space_longer": (*_ARMS["space"], ITERATIONS, "1200"),
        "2_blocks": (BLOCKS, "[[],[0,2],[],[]]"),
        "4_blocks": (BLOCKS, "[[],[0,1,2,3],[],[]]"),
        "i3d": _I3D,
        "i3d_spacetime": (*_I3D, *_BLOCK),
        **{f"{arm}_batch": (*opts, *_BATCH) for arm, opts in _ARMS.items()},
        **{f"{arm}_batch_300": (*opts, *_BATCH, ITERATIONS, "300") for arm, opts in _ARMS.items()},
    },
    tasks={
        "control": (ITERATIONS, "200"),
        **{f"s_{gap}": (ITERATIONS, "300") for gap in SPACE_DIAL},
        **{f"t_{lag}": (ITERATIONS, "300") for lag in TIME_DIAL},
    },
    questions=(
        ("all", None, [f"{arm}_batch" for arm in CORE], _BATCH_SEEDS),
        ("all", None, ("none", "spacetime", "wider"), _SEEDS),
        ("control", None, CORE, _SEEDS),
        ("s_8", None, ("none", "spacetime"), _SEEDS),
    ),
)


def run_trial(trial: Trial, output: Path) -> Outcome:
    """Train the network of `trial`, save its weights under `output`, and measure it."""
    cfg, task, val = PLAN.cfg(trial, output), TASKS[trial.task], validation_set(trial.task)
    subsets = {trial.task: np.full(len(val.labels), True)}
    if trial.task == "all":
        subsets |= {kind: val.kinds == number for number, kind in enumerate(KINDS)}

    def evaluate(model: VideoClassifier) -> list[dict[str, Any]]:
        parts = val.frames.split(_AT_ONCE)
        logits = torch.cat([model.logits(part.to(model.device)) for part in parts]).cpu()
        return [
            {"kind": kind, **_score(logits[torch.from_numpy(subset)], val.labels[subset])}
            for kind, subset in subsets.items()
        ]

    return train(
        cfg,
        build=build_model,
        draw=lambda rng, count: draw_clips(rng, task, count).batch(),
        evaluate=evaluate,
        cost=cost_of(cfg),
    )


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a network, for one clip."""
    model = cast(VideoClassifier, build_on_meta(cfg))
    return analyze_video(model, frames=FRAMES, height=HEIGHT, width=WIDTH).total


def validation_set(task: str) -> Clips:
    """Return the validation clips of a task, which are the same for all seeds."""
    return draw_clips(np.random.default_rng([VALIDATION]), TASKS[task], VALIDATION_CLIPS)


def _score(logits: Tensor, labels: np.ndarray) -> dict[str, float]:
    """Return the accuracy in % and the mean cross-entropy in nats; 0.693 is chance."""
    truth = torch.from_numpy(labels)
    return {
        "accuracy": 100 * float((logits.argmax(1) == truth).float().mean()),
        "cross_entropy": float(F.cross_entropy(logits, truth)),
    }
