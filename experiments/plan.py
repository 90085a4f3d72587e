"""What is compared: tasks, models and seeds, and what was expected before the runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from nl_detectron.config import load_config

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "experiments"
METRIC = {"crates": "bbox", "walkers": "keypoints"}
"""What a task is judged by, as Detectron2 names it."""

FAR = 384
"""The distance, in pixels, at which models are compared."""

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

FULL_WIDTH = (
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", "64", "MODEL.RESNETS.RES2_OUT_CHANNELS", "256"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "64"),
)
"""ResNet-50's own, for a GPU."""

_IN_RES4 = (BLOCKS, "[[],[],[-2],[]]")
_IN_HEAD = ("MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS", "2")

MODELS: dict[str, tuple[str, ...]] = {
    "baseline": (),
    "wider": ("MODEL.RESNETS.WIDTH_PER_GROUP", "17"),
    "res4": _IN_RES4,
    **{form: (*_IN_RES4, PAIRWISE, form) for form in FORMS},
    "res4_bn": (*_IN_RES4, "MODEL.RESNETS.NON_LOCAL.NORM", "BN"),
    "res2": (BLOCKS, "[[-2],[],[],[]]"),
    "res3": (BLOCKS, "[[],[-2],[],[]]"),
    "res5": (BLOCKS, "[[],[],[],[-2]]"),
    "5_blocks": (BLOCKS, "[[],[1,3],[1,3,5],[]]"),
    "head": _IN_HEAD,
    "head_res4": (*_IN_HEAD, *_IN_RES4),
}
"""``KEY VALUE ...`` by the name of an arm; blocks are embedded Gaussian, others say so."""

LABELS = {
    "baseline": "no block",
    "wider": "no block, a wider ResNet",
    "res4": "1 block in res4",
    **{form: f"1 in res4, {words}" for form, words in FORMS.items()},
    "res4_bn": "1 in res4, batch norm after W_z",
    "res2": "1 block in res2",
    "res3": "1 block in res3",
    "res5": "1 block in res5",
    "5_blocks": "5 blocks, in res3 and res4",
    "head": "4 blocks in the head",
    "head_res4": "4 in the head, 1 in res4",
}


_STARTS = {
    "baseline": "baseline",
    "head": "baseline",
    "res4": "res4",
    "head_res4": "res4",
}
"""Which model of crates far from their cue a model of walkers starts from, by arm."""

_PLAN = (  # task, distance, arms, seeds
    ("crates", FAR, ("baseline", "res4", "wider"), 5),
    ("walkers", FAR, ("baseline", "head", "res4", "head_res4"), 5),
    ("crates", FAR, (*FORMS, "res4_bn"), 3),
    ("crates", FAR, ("res2", "res3", "res5", "5_blocks"), 3),
    ("crates", 0, ("baseline", "res4"), 3),
    ("crates", 128, ("baseline", "res4"), 3),
    ("crates", 256, ("baseline", "res4"), 3),
    ("walkers", 0, ("baseline", "head"), 3),
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How large the experiment is: values for every model, and what to call it."""

    name: str
    description: str
    opts: tuple[str, ...] = ()


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting(name="cpu", description="ResNet-50 of a quarter of the width, on 2 CPU cores"),
        Setting(
            name="gpu",
            description="ResNet-50 of full width, 2,000 iterations, on one GPU",
            opts=(
                *FULL_WIDTH,
                "MODEL.FPN.OUT_CHANNELS", "256",
                "SOLVER.MAX_ITER", "2000",
                "SOLVER.STEPS", "(1500,)",
            ),
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One model trained once: what a row of ``runs.csv`` is about."""

    setting: str
    task: str
    distance: int
    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.setting}/{self.task}_d{self.distance}/{self.arm}/seed{self.seed}"

    @property
    def start(self) -> "Trial | None":
        """The trial whose weights it starts from, as far as they fit; None for random ones."""
        if self.task == "crates":
            return None
        return replace(self, task="crates", distance=FAR, arm=_STARTS[self.arm])

    def weights(self, output: Path) -> Path:
        """Where it leaves its weights."""
        return output / str(self) / "model_final.pth"

    def config(self, output: Path):
        """Return the config that trains and evaluates it, with its folder under `output`."""
        name = f"nl_relational_{self.task}_d{self.distance}"
        opts = [
            *SETTINGS[self.setting].opts,
            *self._model(),
            *("DATASETS.TRAIN", f"('{name}_train',)", "DATASETS.TEST", f"('{name}_val',)"),
            *("SEED", str(self.seed), "OUTPUT_DIR", str(output / str(self))),
            *(("MODEL.WEIGHTS", str(self.start.weights(output))) if self.start else ()),
        ]
        return load_config(CONFIGS / f"{self.task}.yaml", opts)

    def _model(self) -> tuple[str, ...]:
        if self.arm == "wider" and self.setting == "gpu":
            return ("MODEL.RESNETS.WIDTH_PER_GROUP", "68")
        return MODELS[self.arm]


def plan(setting: str) -> list[Trial]:
    """Return all trials of a setting, in the order of running.

    A seed is run for all arms before the next one: what there is early is a smaller experiment,
    not half of one.
    """
    trials: list[Trial] = []
    for seed in range(1, 6):
        for task, distance, arms, seeds in _PLAN:
            if seed <= seeds:
                trials += [
                    Trial(setting=setting, task=task, distance=distance, arm=arm, seed=seed)
                    for arm in arms
                ]
    return trials


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
