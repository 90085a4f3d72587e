"""What a row of the paper's tables asks for: its recipe, its command and what it will cost."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from nl_detectron.config import load_config
from nl_detectron.engine import Trainer
from nl_detectron.errors import ConfigError, UserError
from nl_detectron.model_zoo import Entry, find_entry, get_config_file
from nl_detectron.model_zoo.video_entries import VIDEO

from .state import FINAL_MODEL, State, read_state

REFERENCE_GPUS = 8  # the batch, rate and schedule of every config are meant for so many


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A published training speed: of an iteration of `samples` images or clips on `gpus` GPUs
    together.

    Attributes:
        config: whose speed it is; None for that of the baseline of the row in question.
    """

    seconds: float
    samples: int = 16
    gpus: int = 8
    source: str = "Detectron2's MODEL_ZOO, V100, without blocks"
    config: str | None = None

    @property
    def gpu_seconds_per_sample(self) -> float:
        return self.seconds * self.gpus / self.samples


# Of the baselines. The time of an iteration does not depend on how many there are, so that of 3x
# stands for 1x and s1x where only 3x was published.
SPEEDS = {
    "Mask R-CNN R50-FPN": Speed(seconds=0.261),
    "Mask R-CNN R101-FPN": Speed(seconds=0.340),
    "Mask R-CNN X152-32x8d-FPN": Speed(
        seconds=1.188, samples=8, source="Detectron's MODEL_ZOO, P100, without blocks"
    ),
    "Keypoint R-CNN R50-FPN": Speed(seconds=0.315),
    "Keypoint R-CNN R101-FPN": Speed(seconds=0.390),
}

# Of videos nothing but this was published, the longest that it can have taken: 300,000 iterations
# in "less than 3 days".
VIDEO_SPEED = Speed(
    seconds=3 * 86_400 / 300_000,
    samples=32,
    gpus=4,
    source="README of the official code, GTX 1080, I3D R50 8x8, at most",
    config="Kinetics/i3d_R_50_8x8.yaml",
)


def speed_of(entry: Entry) -> Speed | None:
    """Return the published speed from which a row's is estimated, if there is one."""
    return VIDEO_SPEED if entry.task == VIDEO else SPEEDS.get(entry.model)


@dataclass(frozen=True, kw_only=True)
class Machines:
    """Where a run takes place: ``train_net.py``'s flags of the same names."""

    num_gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"

    @property
    def world_size(self) -> int:
        return self.num_gpus * self.num_machines

    def check(self) -> None:
        """Raise `UserError` for what ``train_net.py`` would refuse for every row."""
        if self.num_gpus < 1 or not 0 <= self.machine_rank < self.num_machines:
            raise UserError(
                f"--num-gpus {self.num_gpus} --num-machines {self.num_machines} --machine-rank "
                f"{self.machine_rank}: there must be at least one process, and ranks start at 0"
            )
        if self.num_machines > 1 and self.dist_url == "auto":
            raise UserError("several machines need --dist-url tcp://<first machine>:<port>")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A schedule as it will run.

    Attributes:
        samples: images or clips of one update, over all GPUs and accumulated batches.
        accumulate_steps: batches of which an update consists.
        learning_rate: after the warm-up.
        iterations: updates in all.
        drops: iterations at which the rate is divided by ten.
        warmup: iterations of warm-up.
    """

    samples: int
    accumulate_steps: int
    learning_rate: float
    iterations: int
    drops: tuple[int, ...]
    warmup: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """What ``train_net.py`` does in a folder of its own.

    Attributes:
        entry: of the model zoo.
        folder: of the run.
        command: what starts it, and goes on with it.
        settings: what else than the config decides the result; see `check_folders`.
        datasets: names of those that the run reads.
        start: the final model of another run, which has to be there before.
    """

    entry: Entry
    folder: Path
    command: tuple[str, ...]
    settings: dict[str, object]
    datasets: tuple[str, ...]
    start: Path | None = None

    @property
    def state(self) -> State:
        """What its folder holds."""
        raise NotImplementedError

    @property
    def iterations(self) -> int | None:
        """How many there are in all; None where nothing is trained."""
        return None

    def check(self) -> None:
        """Raise `UserError` for what would make its results worthless; before it is carried out."""


@dataclass(frozen=True, kw_only=True)
class Row(Run):
    """A row of a table as it will be trained and evaluated.

    Attributes:
        recipe: after scaling to the number of GPUs.
    """

    recipe: Recipe

    @property
    def state(self) -> State:
        return read_state(self.folder)

    @property
    def iterations(self) -> int:
        return self.recipe.iterations

    @property
    def gpu_hours(self) -> float | None:
        """Estimated from a published speed, in which evaluation is not counted.

        A GPU's time per image or clip is taken to be the same on any number of GPUs, and to be in
        proportion to the multiply-adds of what the speed is of. None where nothing is published.
        """
        speed = speed_of(self.entry)
        if speed is None:
            return None
        seconds = self.recipe.samples * self.recipe.iterations * speed.gpu_seconds_per_sample
        other = find_entry(speed.config or self.entry.baseline or "")
        if other and other.multiply_adds and self.entry.multiply_adds:
            seconds *= self.entry.multiply_adds / other.multiply_adds
        return seconds / 3600

    def describe(self) -> str:
        """The lines that a dry run prints."""
        recipe, speed = self.recipe, speed_of(self.entry)
        samples = "clips" if self.entry.task == VIDEO else "images"
        batches = (
            f"{recipe.accumulate_steps} batches of {recipe.samples // recipe.accumulate_steps}"
            if recipe.accumulate_steps > 1
            else "one batch"
        )
        drops = " and ".join(f"{drop:,}" for drop in recipe.drops) or "never"
        hours = "unknown: no speed has been published for this model"
        if self.gpu_hours is not None and speed is not None:
            hours = (
                f"about {self.gpu_hours:,.0f} (source: {speed.source}: {speed.seconds:.3f} s per "
                f"iteration of {speed.samples} {samples} on {speed.gpus})"
            )
        return "\n".join(
            (
                f"{self.entry.row_name}: {self.entry.model}, {self.entry.blocks or 'baseline'}",
                f"  command: {shlex.join(self.command)}",
                *([f"  starts from: {self.start}"] if self.start else []),
                f"  {samples} per update: {recipe.samples} ({batches}), learning rate: "
                f"{recipe.learning_rate:g}",
                f"  iterations: {recipe.iterations:,}, drops at: {drops}, warm-up: "
                f"{recipe.warmup:,}",
                f"  GPU-hours: {hours}",
            )
        )


def run_folder(output: Path, config: str) -> Path:
    """Return the folder of a row's run: under `output`, at the place of the config's name."""
    return output / Path(config).with_suffix("")


# The paper's network with blocks starts on Charades from the one with blocks on Kinetics. Its
# config, which differs from the baseline's in nothing but the blocks, names the one without.
_STARTS = {"Charades/i3d_R_101_NL5_128x1.yaml": "Kinetics/i3d_R_101_NL5_128x1.yaml"}


def start_of(entry: Entry) -> Entry | None:
    """Return the row whose final model this one starts from; None for pretrained weights."""
    weights = load_config(get_config_file(entry.config)).MODEL.WEIGHTS
    found = re.fullmatch(rf"output/(.+)/{re.escape(FINAL_MODEL)}", weights)
    if found is None:
        return None
    return find_entry(_STARTS.get(entry.config, f"{found[1]}.yaml"))


def with_starts(entries: Sequence[Entry]) -> list[Entry]:
    """Return the rows, each once and after the one that it starts from, which is added."""
    ordered: list[Entry] = []
    for entry in entries:
        start = start_of(entry)
        before = with_starts([start]) if start else []
        ordered += [e for e in (*before, entry) if e not in ordered]
    return ordered


def plan(
    entry: Entry,
    *,
    train_script: Path,
    output: Path,
    machines: Machines,
    accumulate: bool = False,
    opts: Sequence[str] = (),
) -> Row:
    """Return the row with its recipe scaled to the number of GPUs.

    Every recipe is for 8 GPUs. On another number, Detectron2's ``SOLVER.REFERENCE_WORLD_SIZE``
    keeps the images per GPU, and scales the rate with the batch and the iterations against it.
    `accumulate` keeps batch, rate and iterations instead, so that an update on N GPUs is the mean
    over the same 8 parts of a batch as on 8.

    Args:
        train_script: path of ``train_net.py``, or of one with the same flags.
        output: folder in which the row gets one of its own, named after its config.
        machines: where it will run.
        accumulate: for 1, 2 and 4 GPUs: do in turn what 8 would do at once.
        opts: ``KEY VALUE ...`` for the config. ``MODEL.WEIGHTS`` among them is for rows that start
            from pretrained weights, not for those that start from the final model of another row.

    Raises:
        UserError: for options or a number of GPUs that cannot work.
    """
    machines.check()
    folder = run_folder(output, entry.config)
    config_file = get_config_file(entry.config)
    world_size = machines.world_size
    own: list[str] = []
    if accumulate:
        if REFERENCE_GPUS % world_size:
            raise UserError(
                f"--accumulate makes {REFERENCE_GPUS} GPUs of 1, 2, 4 or {REFERENCE_GPUS}, not of "
                f"{world_size}"
            )
        solver = load_config(config_file, opts).SOLVER
        steps = REFERENCE_GPUS // world_size
        if solver.IMS_PER_BATCH % steps:
            raise UserError(f"a batch of {solver.IMS_PER_BATCH} cannot be made of {steps} equal")
        own = ["SOLVER.IMS_PER_BATCH", str(solver.IMS_PER_BATCH // steps)]
        own += ["SOLVER.ACCUMULATE_STEPS", str(solver.ACCUMULATE_STEPS * steps)]
        all_opts = [*opts, *own]
    else:
        # First, so that the user's own value has the last word.
        all_opts = ["SOLVER.REFERENCE_WORLD_SIZE", str(REFERENCE_GPUS), *opts]
    cfg = load_config(config_file, all_opts)
    other = start_of(entry)
    start = run_folder(output, other.config) / FINAL_MODEL if other else None
    if start:
        all_opts += ["MODEL.WEIGHTS", str(start)]
    return Row(
        entry=entry,
        folder=folder,
        recipe=_recipe(cfg, world_size),
        start=start,
        command=train_command(
            train_script, config_file, "--resume", machines=machines, folder=folder, opts=all_opts
        ),
        settings={"opts": list(opts), "processes": world_size, "accumulate": accumulate},
        datasets=(*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST),
    )


def _recipe(cfg: CfgNode, world_size: int) -> Recipe:
    reference, images = cfg.SOLVER.REFERENCE_WORLD_SIZE, cfg.SOLVER.IMS_PER_BATCH
    parts = reference or world_size
    if images % parts:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH {images} cannot be divided among {parts} GPUs; give another, "
            "or SOLVER.REFERENCE_WORLD_SIZE 0 for a schedule that is not scaled"
        )
    solver = Trainer.auto_scale_workers(cfg, world_size).SOLVER
    return Recipe(
        samples=solver.IMS_PER_BATCH * solver.ACCUMULATE_STEPS,
        accumulate_steps=solver.ACCUMULATE_STEPS,
        learning_rate=solver.BASE_LR,
        iterations=solver.MAX_ITER,
        drops=tuple(solver.STEPS),
        warmup=solver.WARMUP_ITERS,
    )


def train_command(
    train_script: Path,
    config_file: str,
    mode: str,
    *,
    machines: Machines,
    folder: Path,
    opts: Sequence[str],
) -> tuple[str, ...]:
    """Return the command line of a run; `mode` is ``--resume`` or ``--eval-only``."""
    flags = ["--num-gpus", machines.num_gpus]
    if machines.num_machines > 1:
        flags += ["--num-machines", machines.num_machines, "--machine-rank", machines.machine_rank]
    if machines.dist_url != "auto":
        flags += ["--dist-url", machines.dist_url]
    return (
        _short(sys.executable),
        _short(train_script),
        "--config-file",
        _short(config_file),
        mode,
        *map(str, flags),
        "OUTPUT_DIR",
        str(folder),
        *opts,
    )


def _short(path: str | Path) -> str:
    """Return `path` as seen from here if it is below, for a command that is easy to read."""
    path = Path(path)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
