"""Folders of generated data sets: what they are called, and how they come into being."""

import hashlib
import inspect
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ....utils.errors import UserError


def folder_name(name: str, settings: Any, sources: Sequence[ModuleType]) -> str:
    """Return `name` with a digest of all that determines the content.

    So a folder that an older version left behind is never taken for the present one.

    Args:
        name: of the data set.
        settings: sizes, seeds and the like; its ``repr`` counts.
        sources: the modules that draw and write.
    """
    content = [repr(settings), *map(inspect.getsource, sources)]
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()
    return f"{name}-{digest[:12]}"


@contextmanager
def written_whole(folder: Path, description: str) -> Iterator[Path]:
    """Give a new folder to write into, which becomes `folder` at the end, or nothing on an error.

    It is a folder beside `folder`, which is then renamed. Where two processes do so at once, the
    first to finish wins, and the other one discards its own.

    Raises:
        UserError: the folder cannot be written; `description` says what was to be written.
    """
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        raise UserError(
            f"cannot write {description} to {folder}: {error.strerror}; set NL_DETECTRON_CACHE "
            "to a folder with space that can be written"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
