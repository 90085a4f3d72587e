"""What a non-local block multiplies, and in which order that costs least.

A block is a chain of matrix products, which may be taken in any order: ``theta_i . phi_j`` is
``x_i . (W_theta^T phi_j) + b_theta . phi_j``, and ``W_z sum_j w_ij g_j`` is
``sum_j w_ij (W_z g_j)``. So W_theta and W_z can act on the M keys in place of the P positions.
With P positions of C channels, M keys (positions after subsampling) and D inner channels, the
multiply-adds of one input are:

| form | order | products with weights | equation 1 |
|---|---|---|---|
| gaussian | positions | ``(P + M) C D`` | ``P M (C + D)`` |
| | keys | ``2 M C D`` | ``2 P M C`` |
| embedded_gaussian | positions | ``2 (P + M) C D`` | ``2 P M D`` |
| | keys | ``4 M C D + M D`` | ``2 P M C`` |
| dot_product | positions, keys | as embedded_gaussian | |
| | sums | ``2 (P + M) C D`` | ``(P + M) D D`` |
| | folded_sums | ``(P + 2 M) C D + C D D`` | ``M D D + P C D`` |
| concatenation | positions | ``(P + M) C D + (P + M) C`` | ``P M D`` or ``(P + 2 M) D`` |
| | keys | ``2 M C D + (P + M) C`` | ``P M C`` or ``(P + 2 M) C`` |

sums multiplies ``phi^T g`` first, so that there is no map of P M weights; folded_sums lets W_z act
on that product. Concatenation folds w_f into W_theta and W_phi, ``2 C D`` once for all inputs,
which leaves one channel of each; its prefix sums, of g and of b g, add each element of g twice, and
each element of y is read from them by one multiply-add. A small map is multiplied out instead.
"""

from dataclasses import dataclass

import torch

from .relu_sum import multiplies_out

POSITIONS, KEYS, SUMS, FOLDED_SUMS = "positions", "keys", "sums", "folded_sums"


@dataclass(frozen=True, kw_only=True)
class Products:
    """Multiply-adds of an order: those with the block's weights, and those of equation 1."""

    convolutions: int
    operation: int

    @property
    def total(self) -> int:
        return self.convolutions + self.operation


def count_orders(
    pairwise: str, *, batch: int, positions: int, keys: int, channels: int, inner: int
) -> dict[str, Products]:
    """The products of each order that the form has, the paper's own first."""
    p, m, c, d = positions, keys, channels, inner
    once = 0
    if pairwise == "gaussian":
        counts = {
            POSITIONS: ((p + m) * c * d, p * m * (c + d)),
            KEYS: (2 * m * c * d, 2 * p * m * c),
        }
    elif pairwise == "concatenation":
        once = 2 * c * d
        scalars = (p + m) * c
        pairs = p * m if multiplies_out(p, m) else p + 2 * m
        counts = {
            POSITIONS: ((p + m) * c * d + scalars, pairs * d),
            KEYS: (2 * m * c * d + scalars, pairs * c),
        }
    else:
        counts = {
            POSITIONS: (2 * (p + m) * c * d, 2 * p * m * d),
            KEYS: (4 * m * c * d + m * d, 2 * p * m * c),
        }
        if pairwise == "dot_product":
            counts[SUMS] = 2 * (p + m) * c * d, (p + m) * d * d
            counts[FOLDED_SUMS] = (p + 2 * m) * c * d + c * d * d, m * d * d + p * c * d
    return {
        order: Products(convolutions=batch * weights + once, operation=batch * operation)
        for order, (weights, operation) in counts.items()
    }


def cheapest_order(orders: dict[str, Products]) -> str:
    """The order of the fewest multiply-adds; in a graph for any size, one that suits them all."""
    best = SUMS if SUMS in orders else POSITIONS
    for order, products in orders.items():
        if _is_fewer(products.total, orders[best].total):
            best = order
    return best


def _is_fewer(count: int, other: int) -> bool:
    if not torch.compiler.is_compiling():
        return count < other
    # Sizes may be symbols, on which a comparison would put a condition.
    from torch.fx.experimental.symbolic_shapes import statically_known_true

    return statically_known_true(count < other)
