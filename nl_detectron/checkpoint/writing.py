"""Local files that are there as a whole or not at all, whatever ends the process that writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_UNFINISHED = ".unfinished"


class WholeFiles:
    """A path manager like the one given, but in a ``with`` statement it writes whole local files.

    Others are written as that path manager does.
    """

    def __init__(self, path_manager: Any) -> None:
        self._path_manager = path_manager

    def __getattr__(self, name: str) -> Any:
        return getattr(self._path_manager, name)

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
        if "w" in mode and is_local(path):
            return whole_file(Path(path), mode)
        return self._path_manager.open(path, mode, **kwargs)


def is_local(path: str) -> bool:
    return "://" not in path


@contextmanager
def whole_file(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Open a hidden file beside `path` for writing; after the block it becomes `path`.

    If the block raises, or the disk does not take all of it, `path` stays as it was. What killed
    processes have left unfinished in the folder is removed.

    Raises:
        OSError: the file cannot be written, by whatever name torch calls that.
    """
    for left in path.parent.glob(f".*{_UNFINISHED}"):
        left.unlink(missing_ok=True)
    beside = path.with_name(f".{path.name}{_UNFINISHED}")
    try:
        with open(beside, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except RuntimeError as error:
        # torch's zip writer stumbles over what a failed write has left behind.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise
    finally:
        beside.unlink(missing_ok=True)
