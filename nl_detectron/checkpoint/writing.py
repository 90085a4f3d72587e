"""Local files that are complete or absent, whatever ends the process that writes."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


class AtomicPathManager:
    """The path manager it is given, except that `open` writes local files by `atomic_write`.

    What `open` returns for these is a context manager.
    """

    def __init__(self, path_manager: Any) -> None:
        self._path_manager = path_manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
        if "w" in mode and is_local(path):
            return atomic_write(Path(path), mode)
        return self._path_manager.open(path, mode, **kwargs)


def is_local(path: str) -> bool:
    return "://" not in path


@contextmanager
def atomic_write(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Open a hidden file next to `path` for writing; after the block it becomes `path`.

    If the block raises, or the disk does not take all of it, `path` stays as it was. What a killed
    process leaves of the hidden file is overwritten by the next write to `path`.

    Raises:
        OSError: the file cannot be written, by whatever name torch calls that.
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
        # torch's zip writer stumbles over what a failed write has left behind.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Write the folder's entries to the disk: until then, loss of power may undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what file systems say that cannot
            raise
    finally:
        os.close(descriptor)
