"""Plan of an experiment: its arms, and the trials that run by default."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detectron2.config import CfgNode

from nl_detectron.config import load_config

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "experiments"

BLOCKS = "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS"
PAIRWISE = "MODEL.RESNETS.NON_LOCAL.PAIRWISE"
CHANNELS = "MODEL.RESNETS.WIDTH_PER_GROUP"
ITERATIONS = "SOLVER.MAX_ITER"
FORMS = ("gaussian", "dot_product", "concatenation")
"""Values of `PAIRWISE` other than embedded Gaussian."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One network, trained once.

    Attributes:
        experiment: ``video``, ``boxes`` or ``keypoints``.
        task: what is drawn and asked.
        distance: pixels to the cue; None where the task says it.
        arm: what is trained.
        seed: of the weights and of the data.
    """

    experiment: str
    task: str
    distance: int | None = None
    arm: str
    seed: int

    def __str__(self) -> str:
        task = self.task if self.distance is None else f"{self.task}_{self.distance}"
        return f"{self.experiment}/{task}/{self.arm}/seed{self.seed}"

    @property
    def key(self) -> dict[str, str | int]:
        """Columns that identify the trial in the CSV files."""
        if self.distance is None:
            return {"arm": self.arm, "kind": self.task, "seed": self.seed}
        return {"task": self.task, "distance": self.distance, "arm": self.arm, "seed": self.seed}

    def weights(self, output: Path) -> Path:
        return output / str(self) / "model_final.pth"


Question = tuple[str, int | None, Sequence[str], Sequence[int]]
"""Task, distance, arms and seeds."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Arms and tasks of an experiment.

    Attributes:
        experiment: its name.
        config: file in ``configs/experiments``.
        arms: ``KEY VALUE ...`` by arm.
        tasks: ``KEY VALUE ...`` by task, for tasks with another schedule.
        questions: what runs by default. Further trials are rows of the CSV files.
        start: returns the trial that a trial takes its initial weights from, or None.
    """

    experiment: str
    config: str
    arms: Mapping[str, Sequence[str]]
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    questions: Sequence[Question]
    start: Callable[[Trial], Trial | None] = lambda trial: None

    def trials(self) -> list[Trial]:
        """Return the trials that run by default."""
        return [
            Trial(experiment=self.experiment, task=task, distance=distance, arm=arm, seed=seed)
            for task, distance, arms, seeds in self.questions
            for seed in seeds
            for arm in arms
        ]

    def cfg(self, trial: Trial, output: Path) -> CfgNode:
        """Return the config of `trial`, with its folder under `output`."""
        start = self.start(trial)
        opts = [
            *self.arms[trial.arm],
            *self.tasks.get(trial.task, ()),
            *(("MODEL.WEIGHTS", str(start.weights(output))) if start else ()),
            *("SEED", str(trial.seed), "OUTPUT_DIR", str(output / str(trial))),
        ]
        return load_config(CONFIGS / self.config, opts)
