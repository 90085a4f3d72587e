"""SIGTERM, by which batch systems ask a run to end: save a checkpoint, then exit."""

import os
import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import EvalHook, HookBase
from detectron2.utils import comm
from fvcore.common.checkpoint import Checkpointer

from .data_order import DataOrder
from .run_errors import check_weights

# What a shell reports for a command that SIGTERM has ended. Batch systems then report the job as
# cancelled or out of time rather than as done, and requeue it where they are told to.
TERMINATED = 128 + signal.SIGTERM


class SaveOnSigterm(HookBase):
    """On SIGTERM finish the iteration, save a checkpoint, and exit with status 143 (128 + 15).

    All processes of a run stop after the same iteration, whichever of them has had the signal.
    Further SIGTERMs are ignored. SIGTERM during an evaluation ends the process at once. If the
    program has set its own handler for SIGTERM, that one is used.

    Register it in all processes, after the hooks that step the schedule and save checkpoints, and
    before those that evaluate; `insert_before_evaluation` finds the place.

    Args:
        checkpointer: of the run.
        data_loader: of the training. Its workers outlive a first SIGTERM too, as batch systems
            send it to all processes.
    """

    def __init__(self, checkpointer: Checkpointer, data_loader: Iterable[Any]) -> None:
        self._checkpointer = checkpointer
        self._loader = DataOrder(data_loader).loader
        self._received = False
        self._installed = False

    def before_train(self) -> None:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._handle)
            self._installed = True
            if self._loader is not None:
                self._loader.worker_init_fn = _WorkerInit(self._loader.worker_init_fn)

    def after_train(self) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._installed = False

    def after_step(self) -> None:
        if not _any_process(self._received):
            return
        error: Exception | None = None
        if comm.is_main_process():
            try:
                self._save()
            except Exception as caught:
                error = caught
        _any_process(False)  # the others wait here, whether the main process could save or not
        if error is not None:
            raise error
        # Ends the loader's workers. At its exit a process would send them the SIGTERM that they
        # take for the batch system's, and wait for them without end.
        self.trainer._trainer._data_loader_iter_obj = None
        raise SystemExit(TERMINATED)

    def _save(self) -> None:
        iteration = self.trainer.iter
        name = f"model_{iteration:07d}"
        last = iteration + 1 == self.trainer.max_iter
        newest = os.path.basename(self._checkpointer.get_checkpoint_file())
        if not last and newest != f"{name}.pth":
            check_weights(self._checkpointer.model, iteration)
            self._checkpointer.save(name, iteration=iteration)
        _write_stderr(
            f"stopped by SIGTERM after iteration {iteration}: --resume continues from "
            f"{self._checkpointer.get_checkpoint_file()}"
        )

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._checkpointer.model.training:
            _write_stderr(
                "stopped by SIGTERM in an evaluation: --resume continues from the last checkpoint"
            )
            os._exit(TERMINATED)
        self._received = True
        # A further SIGTERM to all processes ends the workers, which must not stop the saving.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def insert_before_evaluation(hooks: list[HookBase | None], hook: HookBase) -> list[HookBase | None]:
    """Return `hooks` with `hook` put before the first that evaluates."""
    places = [place for place, h in enumerate(hooks) if isinstance(h, EvalHook)]
    place = places[0] if places else len(hooks)
    return [*hooks[:place], hook, *hooks[place:]]


class _WorkerInit:
    """Let a loader worker ignore one SIGTERM, then initialize it as it would have been."""

    def __init__(self, init: Any) -> None:
        self.init = init

    def __call__(self, worker: int) -> None:
        signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        if self.init is not None:
            self.init(worker)


def _any_process(value: bool) -> bool:
    """Whether `value` is true in any process; waits for all."""
    if comm.get_world_size() == 1:
        return value
    flag = torch.tensor(int(value))
    # On the CPU, beside NCCL: Detectron2 gathers its metrics there in every iteration too.
    dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
    return bool(flag)


def _write_stderr(message: str) -> None:
    """Write a line to standard error, which a signal handler may do at any time."""
    os.write(2, f"{message}\n".encode())
