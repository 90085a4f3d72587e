"""One self-contained HTML page to browse clips: click any place in any frame, see where it looks.

The page has theta and phi of every position of each block, and computes rows itself.
"""

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..analysis.attention import BlockInput, ClipAttention
from ..analysis.clip import Query
from ..analysis.grid import Axis
from ..layers import NonLocalBlock
from ..layers.nonlocal_ops import SOFTMAX_FORMS
from .drawing import LEAST_PEAK, LEAST_SHARE, palette
from .page import fill_template, jpeg, legend

NUM_CLASSES = 5  # of a clip, whose scores are shown


class ClipPage:
    """Collects clips; `html` is the page. Its size grows with positions times channels.

    Args:
        title: heading of the page.
        subtitle: a line below it, such as config and weights.
        arrows: to how many of the strongest positions above an even share, at most.
    """

    def __init__(self, *, title: str, subtitle: str = "", arrows: int = 8) -> None:
        self.title = title
        self.subtitle = subtitle
        self.arrows = arrows
        self._clips: list[dict[str, Any]] = []

    def add(self, look: ClipAttention, *, query: Query | None = None) -> None:
        """Add a clip, looked at from `query` at first; default: the strongest evidence."""
        height, width = look.clip.size
        first = query or look.evidence
        self._clips.append(
            {
                "name": look.clip.file.name,
                "width": width,
                "height": height,
                "numbers": look.clip.numbers.tolist(),
                "rate": look.clip.rate,
                "frames": [jpeg(frame) for frame in look.clip.frames],
                "scores": look.best(NUM_CLASSES),
                "evidence": _place(look.evidence),
                "query": _place(first),
                "blocks": [_block(seen) for seen in look.blocks],
            }
        )

    def html(self) -> str:
        """The whole page."""
        data = {
            "clips": self._clips,
            "arrows": self.arrows,
            "least_peak": LEAST_PEAK,
            "least_share": LEAST_SHARE,
            "legend": legend(),
            "palettes": {
                name: np.round(255 * palette(signed=name == "signed")).astype(int).ravel().tolist()
                for name in ("share", "signed")
            },
        }
        return fill_template("clip_page.html", title=self.title, subtitle=self.subtitle, data=data)


def _place(query: Query) -> list[float]:
    return [query.frame, query.x, query.y]


@torch.no_grad()
def _block(seen: BlockInput) -> dict[str, Any]:
    block = seen.block
    theta, phi = _factors(block, seen.features)
    return {
        "name": seen.name,
        "form": "softmax" if block.pairwise in SOFTMAX_FORMS else block.pairwise,
        "pairwise": block.pairwise,
        "axes": block.axes,
        "group": block.frames,
        "time": _axis(seen.grid.time),
        "y": _axis(seen.grid.y),
        "x": _axis(seen.grid.x),
        "width": theta.shape[1],
        "theta": _floats(theta),
        "phi": _floats(phi),
    }


def _factors(block: NonLocalBlock, features: Tensor) -> tuple[Tensor, Tensor]:
    """theta (P, D) and phi (M, D) of ``f = exp(theta_i . phi_j)`` or ``theta_i . phi_j``; for the
    concatenation scalars, D = 1, of ``f = ReLU(theta_i + phi_j)``."""
    x = features.to(block.g.weight.dtype).unsqueeze(0)
    x_hat = block._pool(x)
    theta, phi = (
        block._unfold(rows.transpose(1, 2), v)[0].flatten(1).t().float()
        for rows, v in zip(block._embed(x, x_hat), (x, x_hat), strict=True)
    )
    if block.pairwise in SOFTMAX_FORMS and block.scale:
        theta = theta * theta.shape[1] ** -0.5
    return theta, phi


def _axis(axis: Axis) -> dict[str, Any]:
    return {
        "step": axis.step,
        "length": axis.length,
        "subsample": axis.subsample,
        "windows": axis.windows().tolist(),
    }


def _floats(values: Tensor) -> str:
    """Little-endian 32-bit floats in base64."""
    return base64.b64encode(values.cpu().numpy().astype("<f4").tobytes()).decode()
