"""What the experiments' plans share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "experiments"
BLOCKS = "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS"
PAIRWISE = "MODEL.RESNETS.NON_LOCAL.PAIRWISE"
FORMS = {
    "gaussian": "Gaussian",
    "dot_product": "dot product",
    "concatenation": "concatenation",
}
"""Values of `PAIRWISE` beside embedded Gaussian, in words."""

EXTRA_SEEDS = (16, 17, 18, 19, 20)
"""Of what five seeds left undecided, of clips and boxes."""

SETTINGS = ("cpu", "gpu")
"""Narrow networks on 2 CPU cores; ResNet-50 of full width, on one GPU."""

FULL_WIDTH = (
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "64", "MODEL.RESNETS.RES2_OUT_CHANNELS", "256"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "64"),
)
"""ResNet-50's own, for a GPU."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One detector trained once."""

    setting: str
    task: str
    distance: int
    arm: str
    seed: int

    def weights(self, output: Path) -> Path:
        """Where it leaves its weights."""
        return output / str(self) / "model_final.pth"

    def config(self, output: Path) -> Any:
        """Return the config of its detector and training."""
        raise NotImplementedError


AnyTrial = TypeVar("AnyTrial", bound=Trial)
Question = tuple[str, Sequence[int], Sequence[str], Sequence[int]]
"""A task, and its distances, arms and seeds."""


def in_order(kind: type[AnyTrial], setting: str, questions: Sequence[Question]) -> list[AnyTrial]:
    """Return the trials of `questions`: all seeds of one, then the next one."""
    return [
        kind(setting=setting, task=task, distance=distance, arm=arm, seed=seed)
        for task, distances, arms, seeds in questions
        for seed in seeds
        for distance in distances
        for arm in arms
    ]
