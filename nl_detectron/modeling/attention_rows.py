"""Rows of a block's attention map, computed as needed, and distances between them.

Rows are compared as distributions, ``p_ij = |w_ij| / sum_j |w_ij|``, in all forms: with a softmax p
is w; the weights of other forms may be negative and have any sum. A row of zeros counts as uniform.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ..layers import NonLocalBlock, pairwise_weights

_MAX_ELEMENTS = 2**20  # elements of a piece of the map, 8 MB
_PARTS, _QUERIES = 8, 32  # sizes of the sample for `query_dependence`


class AttentionRows:
    """The rows of ``block.attention_map`` of one input.

    Frames, places or groups of frames that attend separately are N' parts of P queries and M keys.
    If every position sees all others, there is one part.

    Args:
        x: (C, *spatial), the block's input.

    Attributes:
        queries: (N', P), indices of the positions of x, the last axis fastest.
        keys: (N', M), indices of the positions of x̂.
        keys_shape: the spatial shape of x̂.
    """

    @torch.no_grad()
    def __init__(self, block: NonLocalBlock, x: Tensor) -> None:
        x = x.to(block.g.weight.dtype).unsqueeze(0)
        x_hat = block._pool(x)
        self._weights = partial(pairwise_weights, pairwise=block.pairwise, scale=block.scale)
        self.theta, self.phi = block._embed(x, x_hat)
        self.queries, self.keys = (
            block._fold(
                torch.arange(v[0, 0].numel(), device=x.device).view(1, 1, *v.shape[2:])
            ).squeeze(1)
            for v in (x, x_hat)
        )
        self.keys_shape = x_hat.shape[2:]

    def at(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Compute the weights at Q positions of x, (Q, M), and their keys' indices, (Q, M)."""
        order = self.queries.flatten().argsort()[list(positions)]
        n, i = order // self.queries.shape[1], order % self.queries.shape[1]
        weights = self._weights(self.theta[n, i].unsqueeze(1), self.phi[n])
        return weights.squeeze(1), self.keys[n]

    def pieces(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield all rows in pieces: p (n, q, M) in float64, queries (n, q) and keys (n, M)."""
        parts, count = self.queries.shape
        keys = self.keys.shape[1]
        per_part = max(1, min(count, _MAX_ELEMENTS // keys))
        step = max(1, _MAX_ELEMENTS // (count * keys)) if per_part == count else 1
        for n in (slice(first, first + step) for first in range(0, parts, step)):
            for q in (slice(first, first + per_part) for first in range(0, count, per_part)):
                p = shares(self._weights(self.theta[n, q], self.phi[n]))
                yield p, self.queries[n, q], self.keys[n]

    def sample(self, allowed: Tensor | None = None) -> Tensor:
        """Return p, float64 (n, q, M), of at most 8 parts and 32 queries of each, drawn at random.

        Inputs of the same size get the same queries.

        Args:
            allowed: bool, by the index of the query; with several parts, that in the first part.
        """
        chance = torch.Generator().manual_seed(0)
        queries = self.queries[0]
        candidates = torch.arange(len(queries)) if allowed is None else allowed[queries].nonzero()
        q = candidates.flatten()[torch.randperm(len(candidates), generator=chance)[:_QUERIES]]
        n = torch.randperm(len(self.queries), generator=chance)[:_PARTS]
        return shares(self._weights(self.theta[n[:, None], q], self.phi[n]))


def shares(weights: Tensor) -> Tensor:
    """Return ``|w| / sum |w|`` over the last axis, in float64."""
    sizes = weights.double().abs() + torch.finfo(torch.float64).tiny
    return sizes / sizes.sum(-1, keepdim=True)


def entropy(p: Tensor) -> Tensor:
    """Compute ``-sum p log p`` over the last axis, in nats."""
    return torch.special.entr(p).sum(-1)


def distances(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Compare all rows of p (K, M) with all of q (L, M): two tensors (K, L), from 0 to 1.

    Returns:
        The Jensen-Shannon divergence ``H((p + q) / 2) - (H(p) + H(q)) / 2`` in bits, and the
        cosine distance ``1 - p . q / (|p| |q|)``.
    """
    mixed = torch.stack([entropy((row + q) / 2) for row in p])
    divergence = (mixed - (entropy(p).unsqueeze(1) + entropy(q)) / 2) / torch.log(p.new_tensor(2))
    p, q = (rows / rows.norm(dim=-1, keepdim=True) for rows in (p, q))
    return divergence.clamp(0, 1), (1 - p @ q.t()).clamp(0, 1)


def query_dependence(sample: Tensor) -> tuple[float, float]:
    """Compute the mean `distances` between queries of one input, from `AttentionRows.sample`.

    Returns 0 for both with a single query.
    """
    count = sample.shape[1]
    different = ~torch.eye(count, dtype=torch.bool, device=sample.device)
    found = [[d[different] for d in distances(rows, rows)] for rows in sample]
    divergence, cosine = (torch.cat(values) for values in zip(*found, strict=True))
    return (float(divergence.mean()), float(cosine.mean())) if count > 1 else (0.0, 0.0)
