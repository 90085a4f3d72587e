"""Names of folders of generated datasets, and atomic writing of them."""

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
    """Return `name` with a digest of everything that determines the content.

    A folder of an older version therefore has another name.

    Args:
        name: name of the dataset.
        settings: sizes, seeds and the like; its ``repr`` counts.
        sources: modules that draw and write.
    """
    content = [repr(settings), *map(inspect.getsource, sources)]
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()
    return f"{name}-{digest[:12]}"


@contextmanager
def written_whole(folder: Path, description: str) -> Iterator[Path]:
    """Make a folder under a temporary name, and rename it to `folder` after the block.

    An error removes it. If two processes write at once, the first to finish wins, and the other
    one discards its own.

    Raises:
        UserError: the folder cannot be written; `description` names the content.
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
            "to a writable folder with enough space"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
