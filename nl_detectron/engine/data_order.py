"""The order of training images, and starting a loader anywhere in it."""

import logging
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import torch
from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
from torch.utils.data import DataLoader, Sampler

logger = logging.getLogger(__name__)

# What Detectron2's samplers draw when they are built; their order depends on it alone.
_DRAWN = ("_seed", "_indexes_subset")


class DataOrder:
    """The order in which one of Detectron2's training loaders takes images.

    Detectron2's samplers shuffle by a seed of their own, so the order is a function of that seed,
    the number of processes, the batch size and, with ``ASPECT_RATIO_GROUPING``, the number of
    loader workers. A loader that is not built as Detectron2 builds its own keeps its own order.

    Args:
        loader: what ``build_detection_train_loader`` returns. Nothing may have been read from it.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._grouped = isinstance(loader, AspectRatioGroupedDataset)
        inner = loader.dataset if isinstance(loader, AspectRatioGroupedDataset) else loader
        self.loader = inner if isinstance(inner, DataLoader) else None
        images = getattr(inner, "dataset", None)
        self._images = images if isinstance(images, ToIterableDataset) else None
        self._sampler = self._images.sampler if self._images is not None else None

    def state_dict(self) -> dict[str, Any]:
        """Return what the sampler drew when it was built, without its position."""
        return {name: getattr(self._sampler, name) for name in _DRAWN if self._has(name)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if self._has(name):
                setattr(self._sampler, name, value)

    def start_after(self, batches: int, *, seed: int) -> None:
        """Start the loader after the first `batches` batches of this process.

        The images of those batches are not read, and no global random number is drawn.

        Args:
            seed: of the loader's workers, which draw their augmentations from it. Another one than
                at the start keeps them from repeating the augmentations of the start.
        """
        if self.loader is None or self._images is None:
            logger.warning(
                "Detectron2 did not build this data loader, so its position is unknown: it starts "
                "from the beginning"
            )
            return
        self.loader.generator = torch.Generator().manual_seed(seed)
        size = self._images.shard_chunk_size
        if not self._grouped:
            self._images.sampler = _Continued(self._sampler, skip=batches * size)
            return
        # Each worker takes `size` images in turn, but hands them over one by one.
        workers = max(1, self.loader.num_workers)
        read = _Transposed(self._sampler, rows=workers, columns=size)
        waiting, taken = self._group(read, batches, size)
        rest = _Continued(read, skip=taken, first=waiting)
        self._images.sampler = _Transposed(rest, rows=size, columns=workers)

    def _has(self, name: str) -> bool:
        return hasattr(self._sampler, name)

    def _group(self, read: Iterable[int], batches: int, size: int) -> tuple[list[int], int]:
        """Return the images that wait for their batch to be full, and how many have been read."""
        mapped = self._images.dataset  # type: ignore[union-attr]
        records = getattr(mapped, "_dataset", mapped)  # sizes without reading an image
        sizes = ((r["width"], r["height"]) for r in map(records.__getitem__, range(len(records))))
        is_wide = [width > height for width, height in sizes]
        waiting: tuple[list[int], list[int]] = ([], [])
        taken = 0
        indices = iter(read)
        while batches:
            index = next(indices)
            taken += 1
            group = waiting[is_wide[index]]
            group.append(index)
            if len(group) == size:
                group.clear()
                batches -= 1
        return waiting[0] + waiting[1], taken


class _Continued(Sampler):
    """The indices `first`, then those of `sampler` without the first `skip`."""

    def __init__(self, sampler: Any, *, skip: int, first: Iterable[int] = ()) -> None:
        self.sampler, self.skip, self.first = sampler, skip, list(first)

    def __iter__(self) -> Iterator[int]:
        return chain(self.first, islice(iter(self.sampler), self.skip, None))


class _Transposed(Sampler):
    """An endless sampler, cut into tables written row by row, and read column by column."""

    def __init__(self, sampler: Any, *, rows: int, columns: int) -> None:
        self.sampler, self.rows, self.columns = sampler, rows, columns

    def __iter__(self) -> Iterator[int]:
        indices = iter(self.sampler)
        while table := list(islice(indices, self.rows * self.columns)):
            for column in range(self.columns):
                yield from table[column :: self.columns]
