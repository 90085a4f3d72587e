"""Training curves in Weights & Biases."""

import json
from collections.abc import Iterable
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils.events import EventWriter, TensorboardXWriter

from ..utils.errors import UserError


class WandbRun(HookBase):
    """Send to Weights & Biases what Detectron2 writes for TensorBoard.

    A training that continues from a checkpoint continues the run of its folder, and skips the
    iterations that the run already has; otherwise the run is a new one. Without network set
    ``WANDB_MODE=offline``: ``wandb sync DIR`` sends the run later.

    Register it after the hook that writes.

    Args:
        project: name of the project in Weights & Biases.
        output_dir: the run's folder. Its ``wandb`` folder takes the files, its name is the run's.
        writers: of the training.

    Raises:
        UserError: the package ``wandb`` is not installed.
    """

    def __init__(self, project: str, output_dir: str, writers: Iterable[EventWriter]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                f"Weights & Biases project '{project}' needs the package wandb: "
                "pip install 'nl_detectron[wandb]'"
            ) from error
        self._start = wandb.init
        self._project, self._folder = project, Path(output_dir).resolve()
        self._writers = [writer for writer in writers if isinstance(writer, TensorboardXWriter)]

    def before_train(self) -> None:
        id_file, run_id = self._folder / "wandb_run_id", None
        if self.trainer.start_iter > 0 and id_file.exists():
            run_id = id_file.read_text(encoding="utf-8").strip()
            for writer in self._writers:
                writer._last_write = _last_iteration(self._folder / "metrics.json")
        # Before the first write, which opens the file for TensorBoard.
        self._run = self._start(
            project=self._project,
            name=self._folder.name,
            dir=str(self._folder),
            id=run_id,
            resume="allow",
            sync_tensorboard=True,
        )
        id_file.write_text(self._run.id, encoding="utf-8")

    def after_train(self) -> None:
        self._run.finish()


def _last_iteration(metrics: Path) -> int:
    """Return the last iteration in ``metrics.json``, -1 without one."""
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    return max((json.loads(line).get("iteration", -1) for line in lines), default=-1)
