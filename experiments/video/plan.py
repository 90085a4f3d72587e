"""What is compared on clips: tasks, networks and seeds."""

from dataclasses import dataclass
from pathlib import Path

from nl_detectron.config import load_config

from ..plan import BLOCKS, CONFIGS, EXTRA_SEEDS, FORMS, FULL_WIDTH, PAIRWISE
from .clips import FAR, Task

# Below the baseline's receptive field the gaps of the dial, and one above it.
_GAPS = (8, 32, 56, 80, FAR)
_LAGS = (1, 2, 4, 6)

SPACE_DIAL = {f"s_{gap}": Task(kinds=("s",), gap=gap) for gap in _GAPS}
"""Apart in space alone, by so many pixels."""

TIME_DIAL = {f"t_{lag}": Task(kinds=("t",), lag=lag) for lag in _LAGS}
"""Apart in time alone, by so many frames."""

TASKS = {
    "matching": Task(),
    "control": Task(asks="shape"),
    **SPACE_DIAL,
    **TIME_DIAL,
}

# What takes fewer than the config has: what is local, and what has one kind of clip.
_ITERATIONS = {"control": 200} | dict.fromkeys((*SPACE_DIAL, *TIME_DIAL), 300)

CONFIG = CONFIGS / "matching.yaml"
"""Of all trials."""

_IN_RES3 = (BLOCKS, "[[],[-2],[],[]]")
_AXES = "MODEL.RESNETS.NON_LOCAL.AXES"
_BATCH = ("SOLVER.IMS_PER_BATCH", "108")  # three times the config's
_I3D = ("MODEL.VIDEO_RESNET.TEMPORAL", "i3d_3x3x3")

_ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "spacetime": _IN_RES3,
    "space": (*_IN_RES3, _AXES, "space"),
    "time": (*_IN_RES3, _AXES, "time"),
    "space_longer": (*_IN_RES3, _AXES, "space", "SOLVER.MAX_ITER", "1200"),
    **{form: (*_IN_RES3, PAIRWISE, form) for form in FORMS},
    "wider": (),
    "2_blocks": (BLOCKS, "[[],[0,2],[],[]]"),
    "4_blocks": (BLOCKS, "[[],[0,1,2,3],[],[]]"),
    "res2": (BLOCKS, "[[-2],[],[],[]]"),
    "i3d": _I3D,
    "i3d_spacetime": (*_I3D, *_IN_RES3),
}
CORE = ("none", "spacetime", "space", "time")
_BATCHES = {f"{arm}_batch": arm for arm in (*CORE, "gaussian", "concatenation")}
LARGER_BATCH = {base: arm for arm, base in _BATCHES.items() if base in CORE}
"""`CORE` with the batch with which a block in space solves its clips as well: the networks of the
page's first lines and figures."""

_BATCH_300 = {f"{arm}_batch_300": arm for arm in ("spacetime", *FORMS, "res2")}
ARMS = (
    _ARMS
    | {arm: (*_ARMS[base], *_BATCH) for arm, base in _BATCHES.items()}
    | {arm: (*_ARMS[base], *_BATCH, "SOLVER.MAX_ITER", "300") for arm, base in _BATCH_300.items()}
)
"""``KEY VALUE ...`` by the name of an arm; how much wider depends on the setting. Blocks are
embedded Gaussian, others say so."""

_LABELS = {
    "none": "C2D",
    "spacetime": "C2D, 1 spacetime block",
    "space": "C2D, 1 block in space only",
    "time": "C2D, 1 block in time only",
    "space_longer": "C2D, 1 block in space only, twice the iterations",
    **{form: f"C2D, 1 block, {words}" for form, words in FORMS.items()},
    "wider": "C2D, wider",
    "2_blocks": "C2D, 2 blocks in res3",
    "4_blocks": "C2D, 4 blocks in res3",
    "res2": "C2D, 1 block in res2",
    "i3d": "I3D",
    "i3d_spacetime": "I3D, 1 spacetime block",
}
LABELS = (
    _LABELS
    | {arm: f"{_LABELS[base]}, three times the batch" for arm, base in _BATCHES.items()}
    | {
        arm: f"{_LABELS[base]}, three times the batch, half the iterations"
        for arm, base in _BATCH_300.items()
    }
)

SEEDS = (1, 2, 3, 4, 5)
MORE_SEEDS = (6, 7, 8, 9, 10)
"""Of what was added after the results of the first."""

LATEST_SEEDS = (11, 12, 13, 14, 15)
"""Of what was added after those."""

_REPLACED = (
    *("space", "time", "space_longer", *FORMS, "res2"),
    *("gaussian_batch_300", "concatenation_batch_300"),
)
"""Arms that were trained again on clips of all kinds, with a larger batch or longer."""

_PLAN = (  # tasks, arms, seeds; in the order of running
    (("matching", "control"), CORE, SEEDS),
    (("matching",), ("space_longer",), MORE_SEEDS),
    (("matching",), tuple(_BATCHES), LATEST_SEEDS),
    ((*SPACE_DIAL, *TIME_DIAL), ("none", "spacetime"), SEEDS),
    (("matching",), tuple(FORMS), SEEDS),
    (("matching",), ("wider",), SEEDS),
    (("matching",), ("2_blocks", "4_blocks"), SEEDS),
    (("matching",), ("res2",), SEEDS),
    (("matching",), ("i3d", "i3d_spacetime"), SEEDS),
    (("matching",), tuple(_BATCH_300), LATEST_SEEDS),
    (("matching",), tuple(_BATCH_300), EXTRA_SEEDS),
    (("matching",), ("spacetime_batch", "gaussian_batch", "concatenation_batch"), EXTRA_SEEDS),
    (("matching",), ("none", "space", "wider"), EXTRA_SEEDS),
    (("s_8",), ("none", "spacetime"), EXTRA_SEEDS),
)

_SETTINGS = {
    "cpu": (),
    "gpu": (*FULL_WIDTH, "MODEL.RESNETS.NON_LOCAL.INIT_STD", "0.09"),  # the start for this width
}
_WIDER = {"cpu": "9", "gpu": "71"}
"""WIDTH_PER_GROUP of the arm that costs about what the block costs."""


@dataclass(frozen=True, kw_only=True)
class VideoTrial:
    """One network trained once."""

    setting: str
    task: str
    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.setting}/clips_{self.task}/{self.arm}/seed{self.seed}"

    @property
    def start(self) -> None:
        """Networks of clips start from random weights."""
        return None

    def weights(self, output: Path) -> Path:
        """Where it leaves its weights."""
        return output / str(self) / "model_final.pth"

    def config(self, output: Path):
        """Return the config of its network and training, with its folder under `output`."""
        wider = ("MODEL.RESNETS.WIDTH_PER_GROUP", _WIDER[self.setting])
        iterations = _ITERATIONS.get(self.task)
        opts = [
            *_SETTINGS[self.setting],
            *(wider if self.arm == "wider" else ARMS[self.arm]),
            *(("SOLVER.MAX_ITER", str(iterations)) if iterations else ()),
            *("SEED", str(self.seed), "OUTPUT_DIR", str(output / str(self))),
        ]
        return load_config(CONFIG, opts)


def by_default(trial: VideoTrial) -> bool:
    """Whether a trial is of an arm that was not trained again, and of its first five seeds."""
    replaced = trial.task == "matching" and trial.arm in _REPLACED
    return not replaced and trial.seed not in EXTRA_SEEDS


def plan(setting: str) -> list[VideoTrial]:
    """Return all trials of a setting, in the order of running: all seeds of a question, then the
    next question."""
    return [
        VideoTrial(setting=setting, task=task, arm=arm, seed=seed)
        for tasks, arms, seeds in _PLAN
        for seed in seeds
        for task in tasks
        for arm in arms
    ]
