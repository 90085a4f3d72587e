"""Detectors that are compared on boxes."""

from dataclasses import replace

from ..plan import BLOCKS, FORMS, ITERATIONS, PAIRWISE, WIDTH, Plan, Trial
from .task import FAR, NEAR

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
        "wider": (WIDTH, "9"),  # at least the block's multiply-adds
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
