"""What is compared on people with hats and gloves: heads, distances and seeds."""

from pathlib import Path

from nl_detectron.config import load_config

from ..plan import CONFIGS, FULL_WIDTH, Trial, in_order
from .people import FAR, NEAR

CONFIG = CONFIGS / "matching_keypoints.yaml"
"""Of all trials."""

_EVERY = "MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS"


def _width(channels: int) -> tuple[str, str]:
    return "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", str([channels] * 8)


_IN_HEAD = (_EVERY, "2")
_LONGER = ("SOLVER.MAX_ITER", "1200")

ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "blocks": _IN_HEAD,
    "wider": (),
    "none_longer": _LONGER,
    "blocks_longer": (*_IN_HEAD, *_LONGER),
    "wider_longer": _LONGER,
}
"""``KEY VALUE ...`` by the name of an arm; how much wider depends on the setting."""

LABELS = {
    "none": "no block",
    "blocks": "4 blocks in the head",
    "wider": "no block, wider",
    "none_longer": "no block, twice the iterations",
    "blocks_longer": "4 blocks in the head, twice the iterations",
    "wider_longer": "no block, wider, twice the iterations",
}

SEEDS = (1, 2, 3, 4, 5)
MORE_SEEDS = (6, 7, 8, 9, 10)
"""Of what was added when one of the first seeds had not left chance."""

DIAL = (NEAR, 16, 28, FAR)
"""Distances, in pixels."""

_PLAN = (  # task, distances, arms, seeds; in the order of running
    ("match", (FAR,), ("none_longer", "blocks_longer"), MORE_SEEDS),
    ("match", (FAR, NEAR), ("none", "blocks", "wider"), SEEDS),
    ("match", (FAR,), ("wider_longer",), MORE_SEEDS),
    ("match", DIAL[1:-1], ("none", "blocks"), SEEDS),
    ("first_row", DIAL[1:-1], ("none_longer", "blocks_longer"), MORE_SEEDS),
)

_SETTINGS = {
    "cpu": (),
    "gpu": (
        *(*FULL_WIDTH, *_width(512)),
        *("MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.INIT_STD", "0.0884"),  # 2 / sqrt(512)
    ),
}
_WIDER = {"cpu": _width(35), "gpu": _width(528)}
"""The head that costs at least what the blocks cost."""


class KeypointTrial(Trial):
    """One detector trained once: of the task ``match``, or of ``first_row``, where the hat is in
    the first row, as it always is far away."""

    def __str__(self) -> str:
        return f"{self.setting}/gloves_{self.task}_d{self.distance}/{self.arm}/seed{self.seed}"

    @property
    def start(self) -> None:
        """These detectors start from random weights."""
        return None

    def config(self, output: Path):
        """Return the config of its detector and training, with its folder under `output`."""
        opts = [
            *_SETTINGS[self.setting],
            *(_WIDER[self.setting] if self.arm.startswith("wider") else ()),
            *ARMS[self.arm],
            *("SEED", str(self.seed), "OUTPUT_DIR", str(output / str(self))),
        ]
        return load_config(CONFIG, opts)


def by_default(trial: KeypointTrial) -> bool:
    """Whether a trial was not run again for longer: near the hat none needs more iterations."""
    return trial.distance == NEAR or trial.arm.endswith("_longer")


def plan(setting: str) -> list[KeypointTrial]:
    """Return all trials of a setting, in the order of running."""
    return in_order(KeypointTrial, setting, _PLAN)
