"""One self-contained HTML page to browse attention in images and clips by clicking a pixel.

The page holds theta and phi of every position of each block, and computes rows from them. An image
is a clip of one frame.
"""

import base64
import html
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..analysis.attention import BlockInput, ClipAttention, ImageAttention
from ..analysis.clip import Query
from ..analysis.grid import Axis
from ..layers.nonlocal_ops import SOFTMAX_FORMS
from ..modeling.attention_rows import AttentionRows, query_dependence
from .drawing import LEAST_PEAK, LEAST_SHARE, palette

LONGEST_SIDE = 1280  # of an image inside the page
NUM_CLASSES = 5  # classes of a clip with scores in the page
_PRECISION = 1e-3  # precision of products in the page


class Page:
    """A page of images and clips; `html` returns it.

    Args:
        title: heading of the page.
        subtitle: a line below it, such as config and weights.
        arrows: largest number of arrows, to the strongest positions above an even share.
    """

    def __init__(self, *, title: str, subtitle: str = "", arrows: int = 8) -> None:
        self.title = title
        self.subtitle = subtitle
        self.arrows = arrows
        self._samples: list[dict[str, Any]] = []
        self._blocks: dict[str, dict[str, Any]] = {}

    def add_image(self, name: str, seen: ImageAttention, *, detections: np.ndarray) -> None:
        """Add an image under `name`; `detections` is the image of `draw_instances`."""
        queries = {(q.frame, q.x, q.y): q for block in seen.blocks for q in block.queries}
        self._add(
            seen.blocks,
            list(queries.values()),
            name=name,
            size=seen.image.shape[:2],
            frames=[_jpeg(seen.image)],
            detections=_jpeg(detections),
        )

    def add_clip(self, seen: ClipAttention, *, queries: Sequence[Query] = ()) -> None:
        """Add a clip with the first of `queries`, or the strongest evidence, as initial query."""
        self._add(
            seen.blocks,
            [*queries, seen.evidence],
            name=seen.clip.file.name,
            size=seen.clip.size,
            frames=[_jpeg(frame) for frame in seen.clip.frames],
            numbers=seen.clip.numbers.tolist(),
            rate=seen.clip.rate,
            scores=seen.best(NUM_CLASSES),
        )

    def _add(
        self,
        blocks: list[BlockInput],
        queries: list[Query],
        *,
        size: tuple[int, int],
        numbers: list[int] | tuple[int, ...] = (0,),
        scores: list[tuple[str, float]] | tuple[()] = (),
        **sample: Any,
    ) -> None:
        height, width = size
        self._samples.append(
            {
                **sample,
                "width": width,
                "height": height,
                "numbers": numbers,
                "scores": scores,
                "queries": [[query.label, query.frame, query.x, query.y] for query in queries]
                or [["center of the image", 0, width / 2, height / 2]],
                "inputs": [_block_input(seen) for seen in blocks],
            }
        )
        for seen in blocks:
            block = seen.block
            self._blocks[seen.name] = {
                "name": seen.name,
                "form": "softmax" if block.pairwise in SOFTMAX_FORMS else block.pairwise,
                "pairwise": block.pairwise,
                "axes": block.axes,
                "group": block.frames,
            }

    def html(self) -> str:
        """Return the whole page."""
        data = {
            "samples": self._samples,
            "blocks": list(self._blocks.values()),
            "arrows": self.arrows,
            "least_peak": LEAST_PEAK,
            "least_share": LEAST_SHARE,
            "palettes": {
                name: np.round(255 * palette(signed=name == "signed")).astype(int).ravel().tolist()
                for name in ("share", "signed")
            },
        }
        folder = files(__package__)
        text = folder.joinpath("page.html").read_text(encoding="utf-8")
        for mark, value in (
            ("__STYLE__", folder.joinpath("page.css").read_text(encoding="utf-8")),
            ("__TITLE__", html.escape(self.title)),
            ("__SUBTITLE__", html.escape(self.subtitle)),
            # Only "</" can end a script element.
            ("__DATA__", json.dumps(data).replace("</", "<\\/")),
        ):
            text = text.replace(mark, value)
        return text


@torch.no_grad()
def _block_input(seen: BlockInput) -> dict[str, Any]:
    rows = AttentionRows(seen.block, seen.features)
    theta, phi = _factors(seen, rows)
    inside = torch.from_numpy(seen.grid.places()[2]).to(seen.features.device)
    return {
        "name": seen.name,
        "region": seen.region,
        "dependence": query_dependence(rows.sample(inside)),
        "time": _axis(seen.grid.time),
        "y": _axis(seen.grid.y),
        "x": _axis(seen.grid.x),
        "width": theta.shape[1],
        "theta": _floats(theta),
        "phi": _floats(phi),
    }


def _factors(seen: BlockInput, rows: AttentionRows) -> tuple[Tensor, Tensor]:
    """Return theta (P, R) and phi (M, R) of ``f = exp(theta_i . phi_j)`` or ``theta_i . phi_j``.

    For the concatenation they are scalars, R = 1, of ``f = ReLU(theta_i + phi_j)``. Otherwise R is
    as small as the root mean square error of the products allows.
    """
    theta, phi = (
        part.double().flatten(0, 1)[numbers.flatten().argsort()]
        for part, numbers in ((rows.theta, rows.queries), (rows.phi, rows.keys))
    )
    if seen.block.pairwise == "concatenation":
        return theta, phi
    if seen.block.pairwise in SOFTMAX_FORMS:
        # A vector common to all keys does not change a softmax.
        phi = phi - phi.mean(0)
        if seen.block.scale:
            theta = theta * theta.shape[1] ** -0.5
    (basis, theta), (other_basis, phi) = torch.linalg.qr(theta), torch.linalg.qr(phi)
    left, values, right = torch.linalg.svd(theta @ phi.t(), full_matrices=False)
    total = values.square().sum()
    allowed = (len(basis) * len(other_basis)) ** 0.5 * _PRECISION
    if seen.block.pairwise == "dot_product":
        allowed = float(total.sqrt()) * _PRECISION
    rest = (total - values.square().cumsum(0)).clamp(min=0).sqrt()
    rank = 1 + int((rest > allowed).sum())
    root = values[:rank].sqrt()
    return basis @ left[:, :rank] * root, other_basis @ right[:rank].t() * root


def _axis(axis: Axis) -> dict[str, Any]:
    return {
        "start": axis.start,
        "end": axis.end,
        "step": axis.step,
        "length": axis.length,
        "subsample": axis.subsample,
        "windows": axis.windows().tolist(),
    }


def _floats(values: Tensor) -> str:
    """Encode values as little-endian 32-bit floats in base64."""
    return base64.b64encode(values.cpu().numpy().astype("<f4").tobytes()).decode()


def _jpeg(image: np.ndarray) -> str:
    """Encode an image for the page; a large one is made smaller."""
    thumbnail = Image.fromarray(image)
    thumbnail.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    with io.BytesIO() as buffer:
        thumbnail.save(buffer, "JPEG", quality=88)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
