"""Making a non-local block from its options and putting it into a chain of modules."""

import logging

from torch import nn

from ..config import NonLocalOptions
from ..layers import NonLocalBlock

logger = logging.getLogger(__name__)


def build_block(
    channels: int,
    options: NonLocalOptions,
    *,
    dims: int = 2,
    axes: str = "spacetime",
    frames: int = 0,
) -> NonLocalBlock:
    """A block for a map of `channels`; ValueError if `options` do not suit that width.

    `dims`, `axes` and `frames` are the block's own arguments.
    """
    if channels % options.reduction:
        raise ValueError(f"REDUCTION is {options.reduction}; allowed: a divisor of {channels}")
    return NonLocalBlock(
        channels,
        inter_channels=channels // options.reduction,
        pairwise=options.pairwise,
        subsample=options.subsample,
        norm=options.norm,
        scale=options.scale,
        init_std=options.init_std,
        dims=dims,
        axes=axes,
        frames=frames,
    )


def insert_after(chain: nn.Sequential, blocks: dict[str, NonLocalBlock], *, where: str) -> None:
    """Insert each block after the child of `chain` with its key's name.

    The new child is called ``nonlocal_after_<name>``; all others keep their names, so that the
    chain's own weights load as before. `where` names the chain in the log line of each block.
    """
    for name, child in list(chain.named_children()):
        # Taking a child out and adding it again moves it to the end: order comes from this loop.
        delattr(chain, name)
        chain.add_module(name, child)
        if name in blocks:
            block = blocks[name]
            chain.add_module(f"nonlocal_after_{name}", block)
            norm = type(block.norm).__name__ if hasattr(block, "norm") else "none"
            logger.info(
                f"Non-local block after {where}.{name}: {block.pairwise}, {block.in_channels} -> "
                f"{block.inter_channels} channels, subsample {block.subsample}, norm {norm}"
                f"{_of_clips(block)}"
            )


def _of_clips(block: NonLocalBlock) -> str:
    if block.dims != 3:
        return ""
    group = f"groups of {block.frames} time steps" if block.frames else "the whole clip"
    return f", {block.axes} in {group}"
