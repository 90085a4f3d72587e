"""Hooks of every run, and optional hooks of a config."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, TensorboardXWriter, get_event_storage
from fvcore.nn.precise_bn import get_bn_modules
from torch import Tensor, nn

from ..checkpoint import Checkpointer
from ..layers import NonLocalBlock
from ..utils.errors import UserError
from .data_order import DataOrder
from .run_errors import TERMINATED


class ResidualNormHook(HookBase):
    """Log ``||z - x|| / ||x||`` of every `NonLocalBlock` as ``nonlocal/<block>/residual_ratio``.

    z is a block's output and x its input. The norms are over all values of every forward pass in
    the iteration. The ratio is zero for a block that is still the identity. A block without input
    (no region in the batch), or with zeros only, logs nothing. Only the main process needs the
    hook, which measures that process's part of the batch. Register it before the hooks that
    evaluate and write, so that it measures training alone and is written in time.

    Args:
        model: the model to train, wrapped for several processes or not.
        period: iterations between two logged ones. The others cost nothing.
    """

    def __init__(self, model: nn.Module, *, period: int = 20) -> None:
        self.model = model
        self.period = period
        self._sums: dict[str, Tensor] = {}
        self._handles: list = []

    def before_step(self) -> None:
        # Detectron2's PeriodicWriter writes after these iterations.
        if (self.trainer.iter + 1) % self.period:
            return
        for name, module in self.model.named_modules():
            if isinstance(module, NonLocalBlock):
                name = name.removeprefix("module.")  # DistributedDataParallel's
                self._handles.append(module.register_forward_hook(self._measure_as(name)))

    def after_step(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        storage = get_event_storage()
        for name, sums in self._sums.items():
            branch, block_input = sums.tolist()
            if block_input > 0:
                ratio = (branch / block_input) ** 0.5
                # The value of one iteration; a median would mix it with old ones.
                storage.put_scalar(f"nonlocal/{name}/residual_ratio", ratio, smoothing_hint=False)
        self._sums.clear()

    def _measure_as(self, name: str):
        @torch.no_grad()
        def measure(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            # In float32, as squares overflow half precision; on the device, as reading a number
            # waits for the device.
            x = inputs[0].detach().float()
            sums = torch.stack([(output.detach().float() - x).square().sum(), x.square().sum()])
            self._sums[name] = self._sums.get(name, 0) + sums

        return measure


class ProgressWriter(hooks.PeriodicWriter):
    """Detectron2's writer, which also writes early in a training.

    On a CPU a period takes from ten seconds to minutes. The time of an iteration, and with it the
    remaining time, is known long before.
    """

    _EARLY = 5  # iterations; Detectron2 times them from the third on

    def after_step(self) -> None:
        if self.trainer.iter + 1 == self._EARLY < min(self._period, self.trainer.max_iter):
            for writer in self._writers:
                writer.write()
        super().after_step()


class PreciseBN(hooks.PreciseBN):
    """Detectron2's precise batch norm, over the batches of all processes."""

    def update_stats(self) -> None:
        super().update_stats()
        average_batch_norms(self._model)


def average_batch_norms(model: nn.Module, *, is_update: bool = False) -> None:
    """Give all processes the running statistics of the batches of all processes.

    Detectron2 keeps different ones in each process, saves those of the first, and evaluates each
    part of a dataset with other ones. From the mean m_r and the variance v_r of each process r, all
    get those of the union::

        m = mean_r(m_r),    v = mean_r(v_r) + c mean_r((m_r - m)^2)

    c is 1, or 1 / momentum for an update (`is_update`) of statistics that were equal before it:
    the running means differ by momentum times the difference of the batches' means.
    """
    norms = [norm for norm in get_bn_modules(model) if norm.track_running_stats]
    if comm.get_world_size() == 1 or not norms:
        return
    means, variances = (
        torch.cat([getattr(norm, name) for norm in norms])
        for name in ("running_mean", "running_var")
    )
    factors = [1 / norm.momentum if is_update and norm.momentum else 1.0 for norm in norms]
    widths = torch.tensor([norm.num_features for norm in norms])
    c = torch.tensor(factors).repeat_interleave(widths).to(means)
    mean = _mean_over_processes(means)
    variance = _mean_over_processes(variances + c * (means - mean).square())
    parts = (values.split(widths.tolist()) for values in (mean, variance))
    for norm, own_mean, own_variance in zip(norms, *parts, strict=True):
        norm.running_mean.copy_(own_mean)
        norm.running_var.copy_(own_variance)


def _mean_over_processes(values: Tensor) -> Tensor:
    values = values.clone()
    dist.all_reduce(values)
    return values / comm.get_world_size()


class SaveOnSigterm(HookBase):
    """Finish the iteration on SIGTERM, save a checkpoint, and exit with status 143 (128 + 15).

    All processes of a run stop after the same iteration, even if only one has the signal. Further
    SIGTERMs are ignored. SIGTERM during an evaluation ends the process at once. A SIGTERM handler
    of the program takes precedence.

    Register it in all processes, after the hooks that step the schedule and save checkpoints, and
    before those that evaluate.

    Args:
        checkpointer: checkpointer of the run.
        data_loader: training loader. Its workers ignore the first SIGTERM too, as batch systems
            send it to all processes.
    """

    def __init__(self, checkpointer: Checkpointer, data_loader: Iterable[Any]) -> None:
        self._checkpointer = checkpointer
        self._loader = DataOrder(data_loader).loader
        self._received = False

    def before_train(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._handle)
            if self._loader is not None:
                init = self._loader.worker_init_fn
                self._loader.worker_init_fn = partial(_ignore_first_sigterm, init)

    def after_train(self) -> None:
        if signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def after_step(self) -> None:
        if not any(comm.all_gather(self._received)):
            return
        try:
            if comm.is_main_process():
                self._save()
        finally:
            comm.synchronize()  # until the main process has saved or failed
        # End the loader's workers. At its exit a process would send them a SIGTERM, which they
        # ignore once, and wait for them forever.
        self.trainer._trainer._data_loader_iter_obj = None
        raise SystemExit(TERMINATED)

    def _save(self) -> None:
        iteration = self.trainer.iter
        name = f"model_{iteration:07d}"
        last = iteration + 1 == self.trainer.max_iter
        newest = os.path.basename(self._checkpointer.get_checkpoint_file())
        if not last and newest != f"{name}.pth":
            self._checkpointer.save(name, iteration=iteration)
        _write_stderr(
            f"stopped by SIGTERM after iteration {iteration}; --resume continues from "
            f"{self._checkpointer.get_checkpoint_file()}"
        )

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._checkpointer.model.training:
            _write_stderr(
                "stopped by SIGTERM in an evaluation; --resume continues from the last checkpoint"
            )
            os._exit(TERMINATED)
        self._received = True
        # A further SIGTERM to all processes ends the workers; that must not stop the saving.
        signal.signal(signal.SIGCHLD, lambda *_: None)


def _ignore_first_sigterm(init: Callable[[int], None] | None, worker: int) -> None:
    """Let a loader worker ignore one SIGTERM, then run its usual initialization."""
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    if init is not None:
        init(worker)


def _write_stderr(message: str) -> None:
    """Write a line to standard error, safely inside a signal handler."""
    os.write(2, f"{message}\n".encode())


class WandbRun(HookBase):
    """Send Detectron2's TensorBoard curves to Weights & Biases.

    A training that resumes from a checkpoint continues the run of its folder, and skips the
    iterations that the run already has. Otherwise the run is new. Without a network set
    ``WANDB_MODE=offline``, and send the run later with ``wandb sync DIR``.

    Register it after the hook that writes.

    Args:
        project: name of the project in Weights & Biases.
        output_dir: the run's folder. Its ``wandb`` folder has the files; its name is the run's.
        writers: writers of the training.

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
        # This must precede the first write, which opens the file for TensorBoard.
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
