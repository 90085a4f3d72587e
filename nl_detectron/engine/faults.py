"""What can stop a run from outside, or for its numbers, told in one line with the way out."""

import errno
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from detectron2.engine import HookBase
from torch import nn

from ..checkpoint.finite import nonfinite_counts
from ..errors import UserError

_LESS_MEMORY = "DATALOADER.NUM_WORKERS, SOLVER.IMS_PER_BATCH or the sizes in INPUT"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
# Detectron2 logs here, with a traceback, whatever ends its training loop.
_LOOP = "detectron2.engine.train_loop"


class DivergedError(UserError, FloatingPointError):
    """Losses or weights that are not finite."""

    def __init__(self, what: str, *, amp: bool = False) -> None:
        super().__init__(
            f"{what}; try a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_ITERS or "
            f"SOLVER.CLIP_GRADIENTS.ENABLED True{', or SOLVER.AMP.ENABLED False' if amp else ''}, "
            "and look for bad annotations with tools/check_dataset.py"
        )


def check_losses(losses: Mapping[str, float], iteration: int, *, amp: bool = False) -> None:
    """Raise DivergedError, which names those that are not finite and the values of all."""
    wrong = [name for name, value in losses.items() if not abs(value) < float("inf")]
    if wrong:
        values = ", ".join(f"{name} {value:.4g}" for name, value in losses.items())
        raise DivergedError(
            f"{' and '.join(wrong)} {'is' if len(wrong) == 1 else 'are'} not finite at iteration "
            f"{iteration} ({values})",
            amp=amp,
        )


def check_weights(model: nn.Module, iteration: int) -> None:
    """Raise DivergedError if parameters or buffers after `iteration` are not finite."""
    if bad := nonfinite_counts(model.state_dict()):
        raise DivergedError(
            f"{len(bad)} of the model's weights are not finite after iteration {iteration} (the "
            f"first is {next(iter(bad))}), so they are not saved"
        )


class CheckWeights(HookBase):
    """Stop before weights that are not finite are saved as the newest checkpoint.

    Register it in all processes, before the hook that saves every `period` iterations.
    """

    def __init__(self, model: nn.Module, period: int) -> None:
        self.model = model
        self.period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.period == 0 or done == self.trainer.max_iter:
            check_weights(self.model, self.trainer.iter)


def as_user_error(error: BaseException | None, output_dir: str) -> UserError | None:
    """Return the one-line error for a fault of machine or data, None for any other error."""
    if isinstance(error, UserError):
        return error
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(
            "the GPU's memory is full: lower SOLVER.IMS_PER_BATCH (SOLVER.ACCUMULATE_STEPS keeps "
            "the batch of an update as large) or the sizes in INPUT, or set SOLVER.AMP.ENABLED True"
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return worker_fault(text)
    if isinstance(error, RuntimeError) and re.search("Connection (closed|reset) by peer", text):
        return UserError("another process of this run has ended; its log says why")
    if isinstance(error, OSError) and error.errno in _FULL | _FORBIDDEN:
        where = error.filename or output_dir
        if error.errno in _FULL:
            return UserError(f"cannot write {where}: {error.strerror}; make room there")
        return UserError(f"cannot write {where}: {error.strerror}; choose another OUTPUT_DIR")
    return None


def worker_fault(text: str = "") -> UserError:
    """Return the error for a loader worker that is gone; `text` is what torch says about it."""
    if "Bus error" in text:
        return UserError(
            f"a loader worker found no room in shared memory (/dev/shm): enlarge it (docker run "
            f"--shm-size 8g), or lower {_LESS_MEMORY}"
        )
    match = re.search(r"killed by signal: ([\w ]+)", text)
    how = f"was killed ({match[1].strip()})" if match else "ended unexpectedly"
    return UserError(
        f"a loader worker {how}; it is mostly the system that does so when memory runs out: "
        f"lower {_LESS_MEMORY}"
    )


@contextmanager
def telling_faults(output_dir: str, *, resume: bool = False) -> Iterator[None]:
    """Turn the faults that `as_user_error` knows into its error, and keep tracebacks of them away.

    The error also names the newest checkpoint in `output_dir`, if there is one of this run.

    Args:
        resume: the run goes on with an older one in `output_dir`, whose checkpoints count.
    """
    before = None if resume else _newest_checkpoint(output_dir)

    def shorten(record: logging.LogRecord) -> bool:
        fault = as_user_error(record.exc_info[1], output_dir) if record.exc_info else None
        if fault is not None:
            record.exc_info, record.msg, record.args = None, f"The run ends: {fault}", ()
        return True

    def thread_failed(args: threading.ExceptHookArgs) -> None:
        # TensorBoard writes in a thread. The same error comes again in the main one.
        if as_user_error(args.exc_value, output_dir) is None:
            in_thread(args)

    loop, raise_in_logging, in_thread = (
        logging.getLogger(_LOOP), logging.raiseExceptions, threading.excepthook,
    )  # fmt: skip
    loop.addFilter(shorten)
    logging.raiseExceptions = False  # a full disk would make every line of the log a traceback
    threading.excepthook = thread_failed
    try:
        yield
    except Exception as error:
        # Hooks that end a run after a fault can fail by it in turn, which hides it.
        faults = (as_user_error(link, output_dir) for link in _with_context(error))
        fault = next(filter(None, faults), None)
        if fault is None:
            raise
        newest = _newest_checkpoint(output_dir)
        if newest is not None and newest != before and "--resume" not in str(fault):
            message = f"{fault}; --resume goes on from {newest[0]}"
            fault.args = (message, *fault.args[1:])
        if fault is error:
            raise
        raise fault from error
    finally:
        loop.removeFilter(shorten)
        logging.raiseExceptions = raise_in_logging
        threading.excepthook = in_thread


def _with_context(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__


def _newest_checkpoint(output_dir: str) -> tuple[str, float] | None:
    """Return the newest checkpoint's path and when it was noted, None if there is none."""
    note = os.path.join(output_dir, "last_checkpoint")
    try:
        with open(note, encoding="utf-8") as file:
            return os.path.join(output_dir, file.read().strip()), os.path.getmtime(note)
    except OSError:
        return None
