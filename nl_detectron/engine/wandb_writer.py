"""Training curves in Weights & Biases, for those who ask for it."""

import importlib.util
import os
from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage

from ..errors import UserError


class WandbWriter(EventWriter):
    """Send every scalar of Detectron2's event storage to a run of Weights & Biases.

    Call `start` before the first `write`. Without network set ``WANDB_MODE=offline``:
    ``wandb sync DIR`` sends the run later.

    Args:
        project: name of the project in Weights & Biases.
        output_dir: the run's folder; its ``wandb`` folder takes the files, its name is the run's.
        config: what to show as the run's configuration.
        window_size: scalars are medians over so many iterations, as in ``metrics.json``.

    Raises:
        UserError: the package ``wandb`` is not installed.
    """

    def __init__(
        self,
        *,
        project: str,
        output_dir: str,
        config: dict[str, Any] | None = None,
        window_size: int = 20,
    ) -> None:
        if importlib.util.find_spec("wandb") is None:
            raise UserError(
                "Weights & Biases is asked for, but wandb is not installed: "
                "pip install 'nl_detectron[wandb]'"
            )
        self._project = project
        self._output_dir = os.path.abspath(output_dir)
        self._config = config
        self._window_size = window_size
        self._last_write = -1

    def start(self, *, resume: bool) -> None:
        """Start a new run, or with `resume` go on with the last one of the same folder.

        A run takes no step that it already has, so a training from iteration 0 needs a new one.
        """
        import wandb

        os.makedirs(self._output_dir, exist_ok=True)
        id_file = os.path.join(self._output_dir, "wandb_run_id")
        run_id = None
        if resume and os.path.exists(id_file):
            with open(id_file, encoding="utf-8") as file:
                run_id = file.read().strip()
        self._run = wandb.init(
            project=self._project,
            name=os.path.basename(self._output_dir),
            dir=self._output_dir,
            config=self._config,
            id=run_id,
            resume="allow",
        )
        with open(id_file, "w", encoding="utf-8") as file:
            file.write(self._run.id)

    def write(self) -> None:
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        by_iteration: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                by_iteration.setdefault(iteration, {})[name] = value
        for iteration in sorted(by_iteration):
            self._run.log(by_iteration[iteration], step=iteration)
            self._last_write = iteration

    def close(self) -> None:
        self._run.finish()
