"""What a trial of a detector measures, and where its blocks attend."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nl_detectron.visualization import Attention


@dataclass(frozen=True, kw_only=True)
class BlockUse:
    """Whether a block is used.

    Attributes:
        block: its name in the model.
        residual_ratio: ``||z - x|| / ||x||`` at the end of training.
        cue_share: mean share of the attention, looking from the thing, that lands on windows with
            the cue; without softmax, of the absolute weight. NaN if nothing was detected.
        even_share: what it would be if all windows got the same.
    """

    block: str
    residual_ratio: float
    cue_share: float
    even_share: float

    @classmethod
    def mean(
        cls, block: str, ratios: Sequence[float], shares: Sequence[tuple[float, float]]
    ) -> "BlockUse":
        """Return the use of a block from ratios, and from pairs of share on the cue and even."""
        on_cue, even = np.mean(shares, axis=0)
        return cls(
            block=block,
            residual_ratio=float(np.mean(ratios)),
            cue_share=float(on_cue),
            even_share=float(even),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial measured.

    Attributes:
        ap, ap50: in per cent.
        localization_ap50: in per cent, of what does not depend on the cue.
        parameters, multiply_adds: of the whole model; for one image.
        seconds: of training, evaluations left out.
        curve: AP in per cent by iteration.
        blocks: what each non-local block did.
    """

    ap: float
    ap50: float
    localization_ap50: float
    parameters: int
    multiply_adds: int
    seconds: float
    curve: dict[int, float]
    blocks: Sequence[BlockUse]


def cue_share(attention: Attention, cue: Sequence[float]) -> tuple[float, float]:
    """Return the share of the absolute weight on windows that the cue's box overlaps, and the
    share of windows that it overlaps.

    Args:
        attention: a row of a block's map.
        cue: x, y, width and height in pixels.
    """
    x, y, width, height = cue
    columns, rows = attention.grid.x.windows(), attention.grid.y.windows()
    in_x = (columns[:, 0] < x + width) & (columns[:, 1] > x)
    in_y = (rows[:, 0] < y + height) & (rows[:, 1] > y)
    inside = np.outer(in_y, in_x)
    weights = np.abs(attention.weights)
    total = weights.sum()
    return float(weights[inside].sum() / total) if total else 0.0, float(inside.mean())
