"""The order of the training data, and an exact resume."""

import logging
import random
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
from detectron2.engine import EvalHook, HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader, Sampler

logger = logging.getLogger(__name__)

# State that Detectron2's samplers draw when they are built; it determines their order.
_DRAWN = ("_seed", "_indexes_subset")


class DataOrder:
    """The order in which one of Detectron2's training loaders takes images.

    Detectron2's samplers shuffle by their own seed, so the order is a function of that seed, the
    number of processes, the batch size and, with ``ASPECT_RATIO_GROUPING``, the number of loader
    workers. The order of loaders that Detectron2 did not build is not controlled.

    Args:
        loader: result of ``build_detection_train_loader``, before its first iteration.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._grouped = isinstance(loader, AspectRatioGroupedDataset)
        inner = loader.dataset if isinstance(loader, AspectRatioGroupedDataset) else loader
        self.loader = inner if isinstance(inner, DataLoader) else None
        images = getattr(inner, "dataset", None)
        self._images = images if isinstance(images, ToIterableDataset) else None
        self._sampler = self._images.sampler if self._images is not None else None

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the sampler drew when it was built, without its position."""
        return {
            name: getattr(self._sampler, name) for name in _DRAWN if hasattr(self._sampler, name)
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if hasattr(self._sampler, name):
                setattr(self._sampler, name, value)

    def start_after(self, batches: int, *, seed: int) -> None:
        """Start the loader after the first `batches` batches of this process.

        The images of those batches are not read, and no global random number is drawn.

        Args:
            seed: seed of the loader's workers for their augmentations. It must differ from the
                initial one, or the initial augmentations repeat.
        """
        if self.loader is None or self._images is None:
            logger.warning(
                "Detectron2 did not build this data loader, so its position is unknown; it starts "
                "from the beginning"
            )
            return
        self.loader.generator = torch.Generator().manual_seed(seed)
        size = self._images.shard_chunk_size
        if not self._grouped:
            self._images.sampler = _Continued(self._sampler, skip=batches * size)
            return
        # Each worker takes `size` images in turn, but returns them one by one.
        workers = max(1, self.loader.num_workers)
        read = _Transposed(self._sampler, rows=workers, columns=size)
        waiting, taken = self._group(read, batches, size)
        rest = _Continued(read, skip=taken, first=waiting)
        self._images.sampler = _Transposed(rest, rows=size, columns=workers)

    def _group(self, read: Iterable[int], batches: int, size: int) -> tuple[list[int], int]:
        """Return the images in incomplete batches, and the number of images read so far."""
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


class ExactResume(HookBase):
    """Let a resumed run take the images and random numbers of an uninterrupted one.

    Its state, which is saved with the trainer's, has the random generators' states (Python, numpy,
    torch, the GPU) of the main process and the seed of the data order. A run that starts at a
    later iteration than 0 continues with them. It skips the images of the earlier iterations
    without reading them.

    An evaluation that is due after the checkpoint's iteration runs first. The checkpoint was saved
    before it, so it is unknown if the evaluation was finished. Evaluating draws random numbers, so
    skipping it would change all later ones.

    With one process and ``DATALOADER.NUM_WORKERS 0`` the resumed run equals the uninterrupted one
    bit for bit, if the device computes reproducibly. These are not identical, but drawn from (seed
    of the data order, rank, iteration):

    - random augmentations in loader workers; each batch still has the same images;
    - random numbers of all processes but the first (mostly the choice of regions for the losses);
    - all random numbers after a checkpoint of an older version, without this state; its data
      order is the same if the config sets a seed;
    - the images for ``TEST.PRECISE_BN``.

    Another batch size or number of processes gives another order. Register this hook after all
    hooks that draw random numbers before training.

    Args:
        data_loader: Detectron2's training loader, before its first iteration.
        accumulate_steps: batches per iteration.
    """

    def __init__(self, data_loader: Iterable[Any], *, accumulate_steps: int = 1) -> None:
        self._order = DataOrder(data_loader)
        self._accumulate_steps = accumulate_steps
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"random": _random_state(), "data_order": self._order.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loaded = state

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if start == 0:
            return
        self._order.load_state_dict(self._loaded.get("data_order", {}))
        # Newer versions of Detectron2 seed the order with SEED, -1 by default. numpy refuses
        # negative seeds; this is torch's value for them.
        order_seed = int(self._order.state_dict().get("_seed", 0)) % 2**64
        sequence = np.random.SeedSequence([order_seed, comm.get_rank(), start])
        fresh, workers = (int(word) for word in sequence.generate_state(2))
        self._order.start_after(start * self._accumulate_steps, seed=workers)
        if self._loaded and comm.is_main_process():
            _set_random_state(self._loaded["random"])
        else:
            seed_all_rng(fresh)
        # Run the evaluation that is due after the checkpoint's iteration.
        self.trainer.iter = self.trainer.storage.iter = start - 1
        for hook in self.trainer._hooks:
            if isinstance(hook, EvalHook):
                hook.after_step()
        self.trainer.iter = self.trainer.storage.iter = start


def _random_state() -> dict[str, Any]:
    """Return the generators' states as plain data, which loads without running code."""
    kind, words, *rest = np.random.get_state()  # noqa: NPY002 (the one that Detectron2 uses)
    state = {
        "python": random.getstate(),
        "numpy": (kind, torch.tensor(np.asarray(words, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    kind, words, *rest = state["numpy"]
    np.random.set_state((kind, words.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
