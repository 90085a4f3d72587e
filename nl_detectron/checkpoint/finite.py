"""Search for weights that are not finite; they are neither saved nor loaded."""

from collections.abc import Mapping

import torch
from torch import Tensor


def nonfinite_counts(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Count the values that are NaN or infinite, for each of `weights` that has any."""
    counts = {
        # torch.isfinite lacks some narrow types; float32 needs no copy.
        name: (~weight.detach().float().isfinite()).sum()
        for name, weight in weights.items()
        if weight.is_floating_point()
    }
    if not counts:
        return {}
    values = torch.stack(list(counts.values())).tolist()  # a single wait for the device
    return {name: count for name, count in zip(counts, values, strict=True) if count}
