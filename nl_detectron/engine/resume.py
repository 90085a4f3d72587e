"""What a checkpoint needs besides weights, momentum and schedule for an exact resume."""

import logging
import random
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from detectron2.engine import EvalHook, HookBase
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from .data_order import DataOrder

logger = logging.getLogger(__name__)


class ExactResume(HookBase):
    """Let a resumed run take the images and random numbers of an uninterrupted one.

    Its state, which is saved with the trainer's, holds the random generators' states (Python,
    numpy, torch, the GPU) of the main process and the seed of the data order. A run that starts
    at a later iteration than 0 continues with them, after the images that the earlier iterations
    took, none of which is read again.

    An evaluation that is due after the iteration of the checkpoint is run first. The checkpoint
    was saved before it, so it cannot say whether the evaluation was finished; and evaluating draws
    random numbers, so leaving it out would change all later ones.

    With one process and ``DATALOADER.NUM_WORKERS 0`` the resumed run is the uninterrupted one, bit
    for bit, as far as the device computes the same twice. Not identical, but drawn anew from
    (seed of the data order, rank, iteration), are:

    - random augmentations in loader workers; each batch still has the same images;
    - random numbers of all processes but the first (which regions enter the losses, mostly);
    - everything random after a checkpoint without this state, of an older version; its data
      order is the same if the config sets a seed;
    - the images that ``TEST.PRECISE_BN`` averages over.

    Another batch size or number of processes gives another order. Register it after all hooks that
    draw random numbers before training.

    Args:
        data_loader: of the training, one of Detectron2's; nothing may have been read from it.
        accumulate_steps: batches an iteration takes from it.
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
        if not self._loaded:
            logger.warning(
                "The checkpoint has no random states, as an older version saved it: the run "
                "continues with other random numbers"
            )
        self._order.load_state_dict(self._loaded.get("data_order", {}))
        # Newer versions of Detectron2 seed the order with SEED, -1 by default. numpy takes no
        # negative seeds; this is the number that torch takes them for.
        order_seed = int(self._order.state_dict().get("_seed", 0)) % 2**64
        sequence = np.random.SeedSequence([order_seed, comm.get_rank(), start])
        fresh, workers = (int(word) for word in sequence.generate_state(2))
        self._order.start_after(start * self._accumulate_steps, seed=workers)
        if self._loaded and comm.is_main_process():
            _set_random_state(self._loaded["random"])
        else:
            seed_all_rng(fresh)
        self._evaluate_if_due(start - 1)

    def _evaluate_if_due(self, iteration: int) -> None:
        """Run the evaluation that is due after the checkpoint of `iteration`."""
        self._set_iteration(iteration)
        for hook in self.trainer._hooks:
            if isinstance(hook, EvalHook):
                hook.after_step()
        self._set_iteration(iteration + 1)

    def _set_iteration(self, iteration: int) -> None:
        self.trainer.iter = self.trainer.storage.iter = iteration


def _random_state() -> dict[str, Any]:
    """Return the generators' states as what can be loaded without running code."""
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
