"""Batch norm statistics that are equal in all processes."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import hooks
from detectron2.utils import comm
from fvcore.nn.precise_bn import get_bn_modules
from torch import Tensor, nn


def average_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one transfer."""
    if comm.get_world_size() == 1 or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= comm.get_world_size()
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, parts, strict=True):
        tensor.copy_(mean.view_as(tensor))


def norms_with_statistics(model: nn.Module) -> list[Any]:
    """Return the batch norms in training mode that have running statistics."""
    return [norm for norm in get_bn_modules(model) if norm.running_mean is not None]


class PreciseBN(hooks.PreciseBN):
    """Detectron2's precise batch norm, over the batches of all processes.

    Detectron2 leaves each process with the mean m_r and the variance v_r of its own batches. All
    processes r get the statistics of the union::

        m = mean_r(m_r),    v = mean_r(v_r) + mean_r((m_r - m)^2)

    Batch norms without running statistics stay as they are.
    """

    def update_stats(self) -> None:
        norms = norms_with_statistics(self._model)
        others = [norm for norm in get_bn_modules(self._model) if norm.running_mean is None]
        for norm in others:
            norm.eval()  # where it computes the same, and is none of those to update
        super().update_stats()
        for norm in others:
            norm.train()
        own_means = [norm.running_mean.clone() for norm in norms]
        average_over_processes([norm.running_mean for norm in norms])
        for norm, own_mean in zip(norms, own_means, strict=True):
            norm.running_var += (own_mean - norm.running_mean).square()
        average_over_processes([norm.running_var for norm in norms])
