"""Sums over the pairs with ``a_i + b_j > 0``, without visiting the pairs.

The concatenation form's ``f(x_i, x_j) = ReLU(w_f^T [theta_i, phi_j])`` depends on two scalars,
``a_i = w_theta . theta_i`` and ``b_j = w_phi . phi_j``, and is nonzero only for ``b_j > -a_i``.
With the b in descending order those j come first, so every sum over them is a prefix sum, read at
one position: O((N + M) log M) to sort and search, O((N + M) C) to sum.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# A map of at most this many elements per position of a and b is multiplied out: that is faster.
EXPLICIT_MAX_PER_POSITION = 256

# Channels summed at once: bounds the extra memory without making the loops short.
CHUNK_CHANNELS = 32


def relu_pair_sum(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """Compute ``y_i = sum_j ReLU(a_i + b_j) g_j``.

    `a` is (N, P), `b` (N, M), both in float32 or float64, the type of the sums. `g` is (N, M, C);
    y is (N, P, C) in the type of g. Differentiable any number of times. ReLU's derivative at zero
    is zero.
    """
    if multiplies_out(a.shape[1], b.shape[1]):
        weights = (b.unsqueeze(2) + a.unsqueeze(1)).relu_()  # one map in memory, not two
        with torch.autocast(a.device.type, enabled=False):
            return (g.transpose(1, 2).to(a.dtype) @ weights).to(g.dtype).transpose(1, 2)
    # Large opposite offsets of a and b would cancel in the sums, and take digits with them.
    offset = b.detach().mean(1, keepdim=True)
    a, b = a + offset, b - offset
    if is_compiled_or_traced():
        # A tracer records torch's own operators only, and those have derivatives too.
        _, sums = _read_sums(*_search(a, b), g.transpose(1, 2))
        return sums.to(g.dtype).transpose(1, 2)
    return _PairSums.apply(a, b, g)[1]


def multiplies_out(positions: int, keys: int) -> bool:
    """Return True for a map small enough to be multiplied out; False in a compiled graph."""
    return not is_compiled_or_traced() and (
        positions * keys <= EXPLICIT_MAX_PER_POSITION * (positions + keys)
    )


def is_compiled_or_traced() -> bool:
    """Return True while a graph is recorded, which serves inputs of other sizes too."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _search(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sort b and search for each a.

    Returns:
        a (N, 1, P), b in descending order (N, 1, M), that order, and for each i the number of j
        with ``a_i + b_j > 0``.
    """
    negated, order = (-b).sort(dim=1)
    count = _count_below(negated, a)
    return a.unsqueeze(1), -negated.unsqueeze(1), order.unsqueeze(1), count.unsqueeze(1)


def _read_sums(
    a: Tensor, b: Tensor, order: Tensor, count: Tensor, g: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute ``sum_j H(a_i + b_j) g_j``, H the unit step, and ``sum_j ReLU(a_i + b_j) g_j``.

    The first four arguments come from `_search`; `g` is (N, c, M), the results are (N, c, P) in
    a's type.
    """
    channels = g.shape[1]
    g = g.to(a.dtype).contiguous().gather(2, order.expand(-1, channels, -1))
    count = count.expand(-1, channels, -1)
    steps = _read_prefix(g, count)
    return steps, torch.addcmul(_read_prefix(b * g, count), a, steps)


def _read_prefix(values: Tensor, count: Tensor) -> Tensor:
    """Sum the first `count` of `values` along the last axis."""
    return F.pad(values.cumsum(-1), (1, 0)).gather(-1, count)


class _PairSums(torch.autograd.Function):
    """The sums of `_read_sums` for all channels, both (N, P, C).

    The gradients are sums of the same kind with the roles swapped: for the second result y,
    ``dg_j = sum_i ReLU(a_i + b_j) dy_i``, ``da_i = dy_i . sum_j H(a_i + b_j) g_j`` and
    ``db_j = g_j . sum_i H(a_i + b_j) dy_i``; for the first only g has one.
    """

    @staticmethod
    def forward(a: Tensor, b: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        places, g = _search(a, b), g.transpose(1, 2)
        shape = *g.shape[:2], a.shape[1]
        # Sums of the step go over thousands of positions: too large for half precision.
        steps, sums = a.new_empty(shape), g.new_empty(shape)
        for start in range(0, g.shape[1], CHUNK_CHANNELS):
            some = slice(start, start + CHUNK_CHANNELS)
            steps[:, some], sums[:, some] = _read_sums(*places, g[:, some])
        return steps.transpose(1, 2), sums.transpose(1, 2)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs, output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, grad_steps: Tensor | None, grad_sums: Tensor | None):
        a, b, g, steps = ctx.saved_tensors
        grad_a = grad_b = grad_g = None
        if grad_sums is not None:
            steps_back, grad_g = _PairSums.apply(b, a, grad_sums)
            grad_a = (grad_sums * steps).sum(-1)
            grad_b = (g * steps_back).sum(-1)
        if grad_steps is not None:  # for the second derivative
            more = _PairSums.apply(b, a, grad_steps)[0].to(g.dtype)
            grad_g = more if grad_g is None else grad_g + more
        return grad_a, grad_b, grad_g

    @staticmethod
    def vmap(info, in_dims, *inputs):
        size = info.batch_size
        batched = [
            x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)
            for x, axis in zip(inputs, in_dims, strict=True)
        ]
        results = _PairSums.apply(*(x.flatten(0, 1) for x in batched))
        return tuple(y.unflatten(0, (size, -1)) for y in results), (0, 0)


def _count_below(ordered: Tensor, values: Tensor) -> Tensor:
    """Count the elements of the ascending `ordered` (N, M) below each of `values` (N, P)."""
    if not torch.onnx.is_in_onnx_export():
        return torch.searchsorted(ordered.contiguous(), values.contiguous())
    # ONNX has no such operator, but a sort, which keeps the order of equal values.
    order = torch.cat([values, ordered], dim=1).sort(dim=1).indices
    below = (order >= values.shape[1]).long().cumsum(1)
    return torch.zeros_like(order).scatter(1, order, below)[:, : values.shape[1]]
