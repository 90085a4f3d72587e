"""Errors of machine, disk and numbers that end a run, each in one line with its fix."""

import errno
import logging
import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from ..checkpoint.finite import nonfinite_counts
from ..utils.errors import UserError

PROCESS_GONE = "another process of this run has exited; see its log"
# Status that a shell reports after SIGTERM. Batch systems then report the job as cancelled or out
# of time rather than as done, and requeue it if configured.
TERMINATED = 128 + signal.SIGTERM

_LESS_MEMORY = "DATALOADER.NUM_WORKERS, SOLVER.IMS_PER_BATCH or the sizes in INPUT"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
# Detectron2 logs errors of its training loop here, with a traceback.
_TRAIN_LOOP = "detectron2.engine.train_loop"


class DivergedError(UserError, FloatingPointError):
    """Losses or weights that are not finite."""

    def __init__(self, what: str, *, amp: bool = False) -> None:
        super().__init__(
            f"{what}; try a lower SOLVER.BASE_LR, a longer SOLVER.WARMUP_ITERS or "
            f"SOLVER.CLIP_GRADIENTS.ENABLED True{', or SOLVER.AMP.ENABLED False' if amp else ''}, "
            "and look for bad annotations with `nl-detectron check`"
        )


def check_losses(losses: Mapping[str, float], iteration: int, *, amp: bool = False) -> None:
    """Raise DivergedError for losses that are not finite, with the values of all losses."""
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


def as_user_error(error: BaseException | None, output_dir: str) -> UserError | None:
    """Return the one-line error for an error of machine, disk or data, None for any other."""
    if isinstance(error, UserError):
        return error
    text = " ".join(str(error).split())
    # torch.OutOfMemoryError, the newer name, is not in torch 2.4.
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return UserError(
            "the GPU is out of memory: lower SOLVER.IMS_PER_BATCH (SOLVER.ACCUMULATE_STEPS keeps "
            "the batch per update) or the sizes in INPUT, or set SOLVER.AMP.ENABLED True"
        )
    if isinstance(error, RuntimeError) and "DataLoader worker" in text:
        return worker_error(text)
    if isinstance(error, RuntimeError) and re.search("Connection (closed|reset) by peer", text):
        return UserError(PROCESS_GONE)
    if isinstance(error, OSError) and error.errno in _FULL | _FORBIDDEN:
        return _file_error(error, output_dir)
    return None


def _file_error(error: OSError, output_dir: str) -> UserError:
    file = error.filename or output_dir
    if error.errno in _FULL:
        return UserError(f"cannot write {file}: {error.strerror}; free some space")
    if Path(output_dir).absolute() in (path := Path(file).absolute(), *path.parents):
        return UserError(f"cannot write {file}: {error.strerror}; choose another OUTPUT_DIR")
    # A run only reads files outside its own folders.
    return UserError(f"cannot open {file}: {error.strerror}; check its path and permissions")


def worker_error(text: str = "") -> UserError:
    """Return the error for a loader worker that has exited; `text` is torch's message."""
    if "Bus error" in text:
        return UserError(
            f"a data loader worker ran out of shared memory (/dev/shm): enlarge it (docker run "
            f"--shm-size 8g), or lower {_LESS_MEMORY}"
        )
    match = re.search(r"killed by signal: ([\w ]+)", text)
    how = f"was killed ({match[1].strip()})" if match else "exited unexpectedly"
    return UserError(
        f"a data loader worker {how}; the system may be out of memory: lower {_LESS_MEMORY}"
    )


@contextmanager
def translate_errors(output_dir: str, *, resume: bool = False) -> Iterator[None]:
    """Turn the errors that `as_user_error` knows into its UserErrors, without logged tracebacks.

    The message also names the newest checkpoint in `output_dir`, if this run has saved one.

    Args:
        resume: the run continues an older one in `output_dir`, whose checkpoints count too.
    """
    before = None if resume else _newest_checkpoint(output_dir)

    def shorten(record: logging.LogRecord) -> bool:
        known = as_user_error(record.exc_info[1], output_dir) if record.exc_info else None
        if known is not None:
            record.exc_info, record.msg, record.args = None, f"Training failed: {known}", ()
        return True

    train_loop, raise_in_logging = logging.getLogger(_TRAIN_LOOP), logging.raiseExceptions
    train_loop.addFilter(shorten)
    logging.raiseExceptions = False  # on a full disk every log line would print a traceback
    try:
        yield
    except Exception as error:
        # Hooks that run after an error can fail in turn and hide it.
        known = (as_user_error(link, output_dir) for link in _with_context(error))
        user_error = next(filter(None, known), None)
        if user_error is None:
            raise
        newest = _newest_checkpoint(output_dir)
        if newest is not None and newest != before and "--resume" not in str(user_error):
            message = f"{user_error}; --resume continues from {newest[0]}"
            user_error.args = (message, *user_error.args[1:])
        if user_error is error:
            raise
        raise user_error from error
    finally:
        train_loop.removeFilter(shorten)
        logging.raiseExceptions = raise_in_logging


def _with_context(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__context__


def _newest_checkpoint(output_dir: str) -> tuple[str, float] | None:
    """Return path and time of the newest checkpoint, None if there is none."""
    note = os.path.join(output_dir, "last_checkpoint")
    try:
        with open(note, encoding="utf-8") as file:
            return os.path.join(output_dir, file.read().strip()), os.path.getmtime(note)
    except OSError:
        return None
