"""Statistics of blocks: residual ratio, entropy and reach of attention, and query dependence.

    predict = Predictor("run/config.yaml", weights="run/model_final.pth")
    statistics = AttentionStatistics()
    for file in files:
        seen = compute_attention(predict, read_image(file), max_detections=100)
        statistics.add(seen.blocks, detected_regions(seen))
    print(statistics.table())

All but the residual ratio are computed from ``p_ij = |w_ij| / sum_j |w_ij|``, a distribution over
the M keys that query i sees, for forms with and without a softmax. Figures are means over a
sample's queries, then over samples. A sample is one input of the block: an image, a clip, or a
region of a head. Queries in the padding do not count; keys there do. The figure of uniform weights,
1 / M for each key, is given for comparison.

| column | of one query |
|---|---|
| residual_ratio | ``||z - x|| / ||x||`` of the whole sample |
| entropy | ``-sum_j p_ij log p_ij`` in nats; uniform: log M |
| positions_90 | the fewest keys that hold 90 % of the weight; uniform: 0.9 M, rounded up |
| distance | ``sum_j p_ij d_ij``, d the distance of the centers in pixels of the image |
| frames | the same with the distance in frames of the clip |
| divergence | Jensen-Shannon divergence of the weights of two queries, in bits, from 0 to 1 |
| cosine | cosine distance ``1 - p_i . p_k / (|p_i| |p_k|)`` of the same |
| own, same_class, other_classes, rest | shares of the weight, for queries in a region |

Divergence and cosine are means over pairs of at most 32 queries that see the same keys, drawn at
random. For `between`, one query of a pair is from this sample and one from the previous sample of
the same size. If the map depends on the image but not on the query, the first mean is near 0 and
the second is not.

The keys in a region are the windows that it overlaps. Each counts once: for the query's own region,
else for others of its class, else for those of other classes, else as the rest. In these figures a
region counts once, for any number of queries.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor

from ..modeling.attention_rows import AttentionRows, distances, entropy, query_dependence
from ..utils.errors import UserError
from .attention import BlockInput, ImageAttention
from .clip import Clip
from .grid import FloatArray

SHARES = ("own", "same_class", "other_classes", "rest")
_FIGURES = ("entropy", "positions_90", "distance", "frames")
_HELD = 0.9
_BINS = 20
_SIZES_KEPT = 8  # input sizes of which the last sample's rows are kept


@dataclass(frozen=True, kw_only=True)
class Region:
    """A thing in an image or a clip.

    Args:
        label: its class.
        boxes: (K, 5), frame of the clip, x0, y0, x1, y1: the region is their union.
    """

    label: str
    boxes: FloatArray


class BlockStatistics:
    """Sums over the samples of one block, from pieces of their maps that are not kept."""

    def __init__(self, name: str, form: str) -> None:
        self.name, self.form = name, form
        self.entropies = torch.zeros(_BINS)  # queries by entropy / log M
        self.by_distance = torch.zeros(
            2, _BINS
        )  # weight, uniform weights, by share of the diagonal
        self.regions: dict[str, list[Tensor]] = defaultdict(list)
        self._values: dict[str, list[float]] = defaultdict(list)
        self._last: dict[tuple[int, ...], Tensor] = {}

    @torch.no_grad()
    def add(self, seen: BlockInput, regions: Sequence[Region] = ()) -> None:
        """Add a sample, and the weights on its regions."""
        x, grid = seen.features, seen.grid
        added = seen.block(x.unsqueeze(0))[0].double() - x
        self._values["residual_ratio"].append(float(added.norm() / x.double().norm()))

        query_places, key_places, inside = (torch.from_numpy(v).to(x.device) for v in grid.places())
        diagonal = math.hypot(grid.x.end - grid.x.start, grid.y.end - grid.y.start)
        members = _members(seen, regions)
        rows = AttentionRows(seen.block, x)
        found: list[list[Tensor]] = [[], []]  # of the block's weights, and of uniform ones
        shares = torch.zeros(len(regions), 2, len(SHARES), dtype=torch.float64)
        for p, queries, keys in rows.pieces():
            valid = inside[queries]
            offsets = query_places[queries].unsqueeze(2) - key_places[keys].unsqueeze(1)
            frames, apart = offsets[..., 0].abs(), offsets[..., 1:].norm(dim=-1)
            bins = (apart[valid] / diagonal * _BINS).long().clamp(max=_BINS - 1).flatten()
            for kind, weights in enumerate((p, torch.full_like(p, 1 / p.shape[2]))):
                found[kind].append(_query_figures(weights, apart, frames)[:, valid])
                by_distance = torch.bincount(bins, weights[valid].flatten(), _BINS)
                self.by_distance[kind] += by_distance.cpu()
                for sums, (is_query, kinds) in zip(shares[:, kind], members, strict=True):
                    n, i = is_query[queries].nonzero(as_tuple=True)
                    at = kinds[keys[n]].flatten()
                    sums += torch.bincount(at, weights[n, i].flatten(), len(SHARES)).cpu()
        own, uniform = (torch.cat(pieces, dim=1) for pieces in found)
        relative = own[0] / uniform[0].clamp(min=1e-9)
        self.entropies += torch.histc(relative.float().cpu(), _BINS, 0, 1)
        for name, value, uniform_value in zip(_FIGURES, own.mean(1), uniform.mean(1), strict=True):
            self._values[name].append(float(value))
            self._values[f"{name}_uniform"].append(float(uniform_value))
        for region, sums in zip(regions, shares, strict=True):
            if sums.any():  # a row's weights sum up to 1, so the sum is the number of queries
                self.regions[region.label].append(sums / sums.sum(1, keepdim=True))
        self._compare(rows.sample(inside), (*rows.keys_shape,))

    def figures(self) -> dict[str, float]:
        """Return the mean of each column over the samples; columns without a sample are missing."""
        columns = {name: float(np.mean(values)) for name, values in self._values.items()}
        regions = [shares for of_label in self.regions.values() for shares in of_label]
        return columns | (_share_columns(regions) if regions else {})

    def row(self) -> dict[str, Any]:
        """Return the block, its number of samples, its `figures`, and shares by region label."""
        return {
            "block": self.name,
            "form": self.form,
            "samples": len(self._values["entropy"]),
            **self.figures(),
            "regions": {
                label: {"regions": len(shares), **_share_columns(shares)}
                for label, shares in sorted(self.regions.items())
            },
        }

    def _compare(self, sample: Tensor, size: tuple[int, ...]) -> None:
        last = self._last.pop(size, None)
        if sample.shape[1] > 1:
            for name, value in zip(("divergence", "cosine"), query_dependence(sample), strict=True):
                self._values[name].append(value)
        if last is not None:
            found = [distances(p, q) for p, q in zip(sample, last, strict=True)]
            divergence, cosine = (torch.cat(values) for values in zip(*found, strict=True))
            self._values["divergence_between"].append(float(divergence.mean()))
            self._values["cosine_between"].append(float(cosine.mean()))
        self._last[size] = sample
        if len(self._last) > _SIZES_KEPT:
            self._last.pop(next(iter(self._last)))


def _query_figures(p: Tensor, apart: Tensor, frames: Tensor) -> Tensor:
    """Return `_FIGURES` of rows (n, q, M) with the distances of their keys: (4, n, q)."""
    held = p.sort(-1, descending=True).values.cumsum(-1) < _HELD - 1e-9
    return torch.stack([entropy(p), held.sum(-1) + 1.0, (p * apart).sum(-1), (p * frames).sum(-1)])


def _members(seen: BlockInput, regions: Sequence[Region]) -> list[tuple[Tensor, Tensor]]:
    """Return for each region a mask (P,) of its queries and the keys' indices in `SHARES`, (M,)."""
    grid, found = seen.grid, []
    covered = [grid.overlaps(region.boxes).ravel() for region in regions]
    for region in regions:
        ranks = [0 if o is region else 1 if o.label == region.label else 2 for o in regions]
        kinds = np.min([np.where(c, r, 3) for c, r in zip(covered, ranks, strict=True)], axis=0)
        queries = grid.unpooled().overlaps(region.boxes).ravel()
        found.append((torch.from_numpy(queries), torch.from_numpy(kinds)))
    return [(q.to(seen.features.device), k.to(seen.features.device)) for q, k in found]


def _share_columns(shares: Sequence[Tensor]) -> dict[str, float]:
    values, uniform = torch.stack(list(shares)).mean(0).tolist()
    return dict(zip(SHARES, values, strict=True)) | {
        f"{name}_uniform": value for name, value in zip(SHARES, uniform, strict=True)
    }


class AttentionStatistics:
    """The `BlockStatistics` of all blocks of a model."""

    def __init__(self) -> None:
        self.blocks: dict[str, BlockStatistics] = {}

    def add(self, blocks: Sequence[BlockInput], regions: Sequence[Region] = ()) -> None:
        """Add the blocks' inputs in one run of the model."""
        for seen in blocks:
            if seen.name not in self.blocks:
                self.blocks[seen.name] = BlockStatistics(seen.name, seen.block.pairwise)
            self.blocks[seen.name].add(seen, regions)

    def rows(self) -> list[dict[str, Any]]:
        """Return `BlockStatistics.row` of each block."""
        return [block.row() for block in self.blocks.values()]

    def table(self) -> str:
        """Return a table: a column per block, with the figures of uniform weights in brackets."""
        rows = self.rows()
        lines: list[list[Any]] = [["samples", *(row["samples"] for row in rows)]]
        for name in ("residual_ratio", *_FIGURES, "divergence", "cosine", *SHARES):
            cells = [_cell(row, name) for row in rows]
            if any(cells) and not (
                name == "frames" and not any(row["frames_uniform"] for row in rows)
            ):
                lines.append([name.replace("_", " "), *cells])
        return tabulate(lines, headers=["", *(row["block"] for row in rows)])


def _cell(row: dict[str, Any], name: str) -> str:
    if name not in row:
        return ""
    text = f"{row[name]:.3g}"
    for suffix, words in (("uniform", "uniform"), ("between", "between samples")):
        if f"{name}_{suffix}" in row:
            text += f" ({words} {row[f'{name}_{suffix}']:.3g})"
    return text


def detected_regions(seen: ImageAttention) -> list[Region]:
    """Return the detections as regions: their masks, or else their boxes."""
    found = seen.instances
    has_masks = found.has("pred_masks")
    regions = []
    for index, box in enumerate(found.pred_boxes.tensor.double().numpy()):
        boxes = np.concatenate([[0.0], box])[None]
        if has_masks and found.pred_masks[index].any():
            boxes = _runs(found.pred_masks[index].numpy())
        regions.append(Region(label=seen.class_name(index), boxes=boxes))
    return regions


def _runs(mask: np.ndarray) -> FloatArray:
    """Return the runs of pixels in each row of a mask (H, W), as boxes of a `Region`."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    (rows, begins), (_, ends) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return np.stack([0 * rows, begins, rows, ends, rows + 1], axis=1).astype(np.float64)


def given_regions(found: Sequence[dict[str, Any]], clip: Clip | None = None) -> list[Region]:
    """Return regions from a JSON list of ``{"label": ..., "boxes": [[x0, y0, x1, y1], ...]}``.

    Args:
        clip: in a video's boxes the frame comes first, ``[frame, x0, y0, x1, y1]``, by its number
            in the video; frames that the clip does not show are skipped.

    Raises:
        UserError: `found` has another form.
    """
    regions = []
    for region in found:
        try:
            label, boxes = str(region["label"]), np.array(region["boxes"], dtype=np.float64)
            boxes = boxes.reshape(-1, 4 if clip is None else 5)
        except (KeyError, TypeError, ValueError) as error:
            form = "[x0, y0, x1, y1]" if clip is None else "[frame, x0, y0, x1, y1]"
            raise UserError(
                f'expected regions {{"label": ..., "boxes": [{form}, ...]}}, got {region!r:.200}'
            ) from error
        if clip is None:
            boxes = np.insert(boxes, 0, 0.0, axis=1)
        else:
            shown = boxes[:, :1] == clip.numbers
            index, frame = np.nonzero(shown)
            boxes = np.column_stack([frame, boxes[index, 1:]])
        regions.append(Region(label=label, boxes=boxes))
    return regions
