"""Weights that are not finite: what is never saved, and never loaded."""

from collections.abc import Mapping

import torch
from torch import Tensor


def nonfinite_counts(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Return how many values are NaN or infinite, for those of `weights` that have any."""
    counts = {
        # Not every narrow type can be asked; float32 costs no copy.
        name: (~weight.detach().float().isfinite()).sum()
        for name, weight in weights.items()
        if weight.is_floating_point()
    }
    if not counts:
        return {}
    values = torch.stack(list(counts.values())).tolist()  # a single wait for the device
    return {name: count for name, count in zip(counts, values, strict=True) if count}
