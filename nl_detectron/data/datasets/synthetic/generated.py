"""Making of generated datasets: at first use, and complete or not at all."""

import hashlib
import inspect
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from tqdm import tqdm

from ....utils.errors import UserError


def make_dataset(
    root: Path,
    name: str,
    splits: Mapping[str, int],
    write_split: Callable[[Path, str, Iterable[int]], None],
    *,
    seed: int,
    sources: Sequence[ModuleType],
    progress: bool,
) -> Path:
    """Make a dataset under `root` unless it exists, and return its folder.

    The folder's name has a digest of everything that determines its content, so a folder of an
    older version is never used.

    Args:
        root: folder of datasets; it need not exist.
        name: name of the dataset.
        splits: number of items by name of the split.
        write_split: writes items into a folder with an empty folder of the split; it gets the
            folder, the split, and the numbers of the items from 0.
        seed: seed of the items.
        sources: modules that draw and write.
        progress: show a progress bar for each split.

    Raises:
        UserError: `root` cannot be written.
    """
    content = [repr((splits, seed)), *map(inspect.getsource, sources)]
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()
    folder = root / f"{name}-{digest[:12]}"
    if not folder.is_dir():
        with atomic_folder(folder, name) as unfinished:
            for split, count in splits.items():
                (unfinished / split).mkdir()
                items = tqdm(range(count), desc=f"{name}_{split}", disable=not progress)
                write_split(unfinished, split, items)
    return folder


@contextmanager
def atomic_folder(folder: Path, description: str) -> Iterator[Path]:
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
