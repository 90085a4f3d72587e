"""What is compared on panoramas with signs: networks, distances and seeds."""

from dataclasses import replace
from pathlib import Path

from nl_detectron.config import load_config

from ..plan import BLOCKS, CONFIGS, EXTRA_SEEDS, FORMS, FULL_WIDTH, PAIRWISE, Trial, in_order
from .scenes import FAR, NEAR

CONFIG = CONFIGS / "matching_boxes.yaml"
"""Of all trials."""

_IN_RES4 = (BLOCKS, "[[],[],[-2],[]]")

_ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "res4": _IN_RES4,
    "wider": (),
    **{form: (*_IN_RES4, PAIRWISE, form) for form in FORMS},
    "res2": (BLOCKS, "[[-2],[],[],[]]"),
    "res3": (BLOCKS, "[[],[-2],[],[]]"),
}
_LONGER = {f"{arm}_longer": arm for arm in _ARMS if arm != "wider"}
ARMS = _ARMS | {arm: (*_ARMS[base], "SOLVER.MAX_ITER", "600") for arm, base in _LONGER.items()}
"""``KEY VALUE ...`` by the name of an arm; how much wider depends on the setting. Blocks are
embedded Gaussian, others say so."""

_LABELS = {
    "none": "no block",
    "res4": "1 block in res4",
    "wider": "no block, wider",
    **{form: f"1 in res4, {words}" for form, words in FORMS.items()},
    "res2": "1 block in res2",
    "res3": "1 block in res3",
}
LABELS = _LABELS | {arm: f"{_LABELS[base]}, twice the iterations" for arm, base in _LONGER.items()}

SEEDS = (1, 2, 3, 4, 5)
MORE_SEEDS = (6, 7, 8, 9, 10)
"""Of what was undecided with the first, and of what was added after them."""

LATEST_SEEDS = (11, 12, 13, 14, 15)
"""Of what had not converged with these."""

_REPLACED = (*FORMS, "res2", "res3")
"""Arms that were trained again for longer."""

DIAL = (NEAR, 64, 128, FAR)
"""Distances, in pixels."""

FORMS_AND_PLACES = tuple(_LONGER)
"""Arms that were trained for twice the iterations."""

# Of these, those that five seeds left undecided, and what they are compared with.
_UNDECIDED = tuple(arm for arm in _LONGER if arm not in ("none_longer", "dot_product_longer"))

_PLAN = (  # task, distances, arms, seeds; in the order of running
    ("match", (FAR, NEAR), ("none", "res4"), SEEDS),
    ("match", (FAR,), ("wider",), SEEDS),
    ("match", (FAR, NEAR), ("none", "res4"), MORE_SEEDS),
    ("match", (FAR,), ("wider",), MORE_SEEDS),
    ("among", (FAR, NEAR), ("none", "res4"), MORE_SEEDS),
    ("among", (FAR,), ("wider",), MORE_SEEDS),
    ("match", DIAL[1:-1], ("none", "res4"), MORE_SEEDS),
    ("match", (FAR,), _REPLACED, MORE_SEEDS),
    ("match", (FAR,), FORMS_AND_PLACES, LATEST_SEEDS),
    ("match", (NEAR,), ("none_longer", "res4_longer"), LATEST_SEEDS),
    ("match", (NEAR,), ("none_longer", "res4_longer"), EXTRA_SEEDS),
    ("match", (FAR,), _UNDECIDED, EXTRA_SEEDS),
)

_SETTINGS = {
    "cpu": (),
    "gpu": (*FULL_WIDTH, "MODEL.RESNETS.NON_LOCAL.INIT_STD", "0.0625"),  # 2 / sqrt(1024)
}
_WIDER = {"cpu": "9", "gpu": "68"}
"""WIDTH_PER_GROUP of the arm that costs at least what the block costs."""

_SOLVER = {
    "colors": ("SOLVER.MAX_ITER", "250"),
    # Half of the config's rate, from which what it starts from was lost at first.
    "among": ("SOLVER.BASE_LR", "0.005"),
}
"""What differs from the config, by task."""


class BoxTrial(Trial):
    """One detector trained once: of the task ``among`` from one of ``match``, and that from one of
    ``colors``."""

    def __str__(self) -> str:
        return f"{self.setting}/signs_{self.task}_d{self.distance}/{self.arm}/seed{self.seed}"

    @property
    def start(self) -> "BoxTrial | None":
        """The trial whose weights it starts from, as far as they fit; None for random ones."""
        if self.task == "colors":
            return None
        if self.task == "among":
            return replace(self, task="match")
        arm = "wider" if self.arm == "wider" else "none"
        return replace(self, task="colors", distance=FAR, arm=arm)

    def config(self, output: Path):
        """Return the config of its detector and training, with its folder under `output`."""
        wider = ("MODEL.RESNETS.WIDTH_PER_GROUP", _WIDER[self.setting])
        start = ("MODEL.WEIGHTS", str(self.start.weights(output))) if self.start else ()
        solver = _SOLVER.get(self.task, ())
        opts = [
            *_SETTINGS[self.setting],
            *(wider if self.arm == "wider" else ARMS[self.arm]),
            *(*start, *solver, "SEED", str(self.seed), "OUTPUT_DIR", str(output / str(self))),
        ]
        return load_config(CONFIG, opts)


def by_default(trial: BoxTrial) -> bool:
    """Whether a trial is of an arm that was not trained again, or for which near the sign the
    config's iterations were enough, and of five of its seeds: those that detectors among rings
    start from."""
    again = trial.arm in _REPLACED or (trial.distance == NEAR and trial.arm.endswith("_longer"))
    return not again and trial.seed in (*MORE_SEEDS, *LATEST_SEEDS)


def plan(setting: str) -> list[BoxTrial]:
    """Return all trials of a setting, in the order of running; before them those that they start
    from."""
    asked = in_order(BoxTrial, setting, _PLAN)
    starts = dict.fromkeys(t.start for t in asked if t.start and t.task == "match")
    return [*starts, *asked]
