"""Errors of machine, disk and numbers that end a run, each in one line with its fix."""

import errno
import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..utils.errors import UserError

PROCESS_GONE = "another process of this run has exited; see its log"
# Status that a shell reports after SIGTERM. Batch systems then report the job as cancelled or out
# of time rather than as done, and requeue it if configured.
TERMINATED = 128 + signal.SIGTERM

_UNUSABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EEXIST),
}


def as_user_error(error: BaseException | None, output_dir: str) -> UserError | None:
    """Return the one-line error for an error of machine, disk, data or numbers, None for others."""
    if isinstance(error, UserError):
        return error
    text = " ".join(str(error).split())
    # torch.OutOfMemoryError, the newer name, is not in torch 2.4.
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return UserError(
            "the GPU is out of memory: lower SOLVER.IMS_PER_BATCH (SOLVER.ACCUMULATE_STEPS keeps "
            "the batch per update) or the sizes in INPUT, or set SOLVER.AMP.ENABLED True"
        )
    # The others come from the pipe of a worker that died while it returned a batch.
    died = isinstance(error, RuntimeError) and "DataLoader worker" in text
    if died or isinstance(error, ConnectionError | EOFError):
        return UserError(
            f"a data loader worker has exited ({text or type(error).__name__}); the system may be "
            "out of memory, or of shared memory (/dev/shm; docker run --shm-size 8g): lower "
            "DATALOADER.NUM_WORKERS, SOLVER.IMS_PER_BATCH or the sizes in INPUT"
        )
    if isinstance(error, RuntimeError) and re.search("Connection (closed|reset) by peer", text):
        return UserError(PROCESS_GONE)
    if isinstance(error, FloatingPointError):  # of losses, or Detectron2's of proposals
        return UserError(
            f"the model's outputs are not finite ({text}); try a lower SOLVER.BASE_LR, a longer "
            "SOLVER.WARMUP_ITERS, SOLVER.CLIP_GRADIENTS.ENABLED True or SOLVER.AMP.ENABLED False, "
            "and look for bad annotations with `nl-detectron check`"
        )
    if isinstance(error, OSError) and error.errno in _UNUSABLE:
        return UserError(
            f"cannot read or write {error.filename or output_dir}: {error.strerror}; free some "
            "space, fix its permissions or choose another OUTPUT_DIR"
        )
    return None


@contextmanager
def translate_errors(output_dir: str) -> Iterator[None]:
    """Turn the errors that `as_user_error` knows into its UserErrors, without logged tracebacks."""

    def shorten(record: logging.LogRecord) -> bool:
        known = as_user_error(record.exc_info[1], output_dir) if record.exc_info else None
        if known is not None:
            record.exc_info, record.msg, record.args = None, f"Training failed: {known}", ()
        return True

    # Detectron2 logs errors of its training loop there, with a traceback.
    train_loop = logging.getLogger("detectron2.engine.train_loop")
    train_loop.addFilter(shorten)
    raise_in_logging = logging.raiseExceptions
    logging.raiseExceptions = False  # on a full disk every log line would print a traceback
    try:
        yield
    except Exception as error:
        known = as_user_error(error, output_dir)
        if known is None or known is error:
            raise
        raise known from error
    finally:
        train_loop.removeFilter(shorten)
        logging.raiseExceptions = raise_in_logging
