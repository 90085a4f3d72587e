"""Atomic writing of local files: they are complete or absent, even if the process is killed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


class AtomicPathManager:
    """A path manager whose `open` writes local files with `atomic_write`.

    For these `open` returns a context manager.
    """

    def __init__(self, path_manager: Any) -> None:
        self._path_manager = path_manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
        if "w" in mode and "://" not in path:
            return atomic_write(Path(path), mode)
        return self._path_manager.open(path, mode, **kwargs)


@contextmanager
def atomic_write(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Open a hidden file next to `path` for writing; rename it to `path` after the block.

    If the block raises, or the disk is full, `path` stays as it was. The next write to `path`
    overwrites a hidden file that a killed process has left.

    Raises:
        OSError: the file cannot be written; torch's own errors for that are converted.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open(unfinished, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except RuntimeError as error:
        # torch's zip writer fails on the rest of an earlier failed write.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush the folder's entries to the disk; before that, a loss of power may undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system does not support it
            raise
    finally:
        os.close(descriptor)
