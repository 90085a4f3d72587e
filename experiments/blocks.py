"""Measurements of the blocks of a trained network."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from torch import Tensor, nn

from nl_detectron.layers import NonLocalBlock

Share = tuple[str, float, float]
"""A block's name, the share of its attention on the cue, and an even share."""


def measure_blocks(model: nn.Module, shares: Iterable[Share]) -> list[dict[str, Any]]:
    """Return, for each block, the residual ratio ``||z - x|| / ||x||`` and the shares; means.

    Args:
        shares: of all blocks and inputs; iterating runs the model.
    """
    ratios: list[tuple[str, float]] = []

    def note(name: str):
        def hook(_, inputs: tuple, output: Tensor) -> None:
            ratios.append((name, float((output - inputs[0]).norm() / inputs[0].norm())))

        return hook

    blocks = {name: m for name, m in model.named_modules() if isinstance(m, NonLocalBlock)}
    if not blocks:
        return []
    handles = [block.register_forward_hook(note(name)) for name, block in blocks.items()]
    found = pd.DataFrame(shares, columns=["block", "cue_share", "even_share"])
    for handle in handles:
        handle.remove()
    table = pd.DataFrame(ratios, columns=["block", "residual_ratio"]).groupby("block").mean()
    return table.join(found.groupby("block").mean()).reset_index().to_dict("records")
