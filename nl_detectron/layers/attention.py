"""Softmax attention: the Gaussian and embedded Gaussian forms, by the kernel that suits the input.

Equation 4 of the paper's section 3.2: ``y = softmax(theta phi^T) g``.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from .recording import is_recorded

# On a CPU, maps of at most this many elements (32 MB in float32) are multiplied out: there the
# plain product beats the fused kernel in training. `make bench` shows where the two cross.
EXPLICIT_MAX_ELEMENTS = 2**23

# Queries handled at once where the map is made in chunks: enough for the matrix products to run
# at full speed, few enough for their rows of the map to take little memory.
CHUNK_QUERIES = 320


def explicit_attention(
    theta: Tensor, phi: Tensor, g: Tensor, factor: float, key_bias: Tensor | None = None
) -> Tensor:
    """`softmax_attention` with the (N, M, P) map in memory."""
    # The map lies transposed: theta and y are then (N, channels, P), as convolutions have them,
    # and need no copy. The factor goes into phi, which is smaller than the map.
    phi, theta_t = phi if factor == 1 else phi * factor, theta.transpose(1, 2)
    scores = (
        phi @ theta_t if key_bias is None else torch.baddbmm(key_bias.unsqueeze(2), phi, theta_t)
    )
    return (g.transpose(1, 2) @ torch.softmax(scores, dim=1)).transpose(1, 2)


def chunked_attention(theta: Tensor, phi: Tensor, g: Tensor, factor: float) -> Tensor:
    """Attention whose values have another width than its queries, without the map.

    The Gaussian form compares C channels but sums C/2; the CPU's fused kernel wants equal widths,
    and padding would cost more than it saves. The map is made for some queries at a time, and made
    again in the backward pass.
    """
    results = []
    for queries in theta.split(CHUNK_QUERIES, dim=1):
        inputs = queries, phi, g, factor
        results.append(
            checkpoint(explicit_attention, *inputs, use_reentrant=False, preserve_rng_state=False)
        )
    return torch.cat([y.transpose(1, 2) for y in results], dim=2).transpose(1, 2)


class ChunkedSelfAttention(torch.autograd.Function):
    """`chunked_attention` of a tensor with itself: the Gaussian form without subsampling.

    ``x_i . x_j`` equals ``x_j . x_i``, so the backward pass, written by hand, visits each pair
    once, for both its weights. With 4200 positions of 512 channels training takes 0.95 s of CPU
    time, `chunked_attention` 1.33 s and the explicit form 1.19 s. Differentiable once.
    """

    @staticmethod
    def forward(ctx, x: Tensor, g: Tensor, factor: float) -> Tensor:
        y, log_sums = _attend_by_chunks(x, x, g, factor)
        ctx.save_for_backward(x, g, y, log_sums)
        ctx.factor = factor
        return y

    @staticmethod
    def backward(ctx, grad_y: Tensor):
        _refuse_second_derivatives()
        x, g, y, log_sums = ctx.saved_tensors
        grad_x, grad_g = torch.zeros_like(x), torch.zeros_like(g)
        mean_grad = (grad_y * y).sum(-1, keepdim=True)
        x_t, g_t, grad_y_t = (rows.transpose(1, 2) for rows in (x, g, grad_y))
        log_sums_t, mean_grad_t = log_sums.transpose(1, 2), mean_grad.transpose(1, 2)
        for rows in _chunks(x.shape[1]):
            # These rows of the map, from the diagonal on, and what lies under them mirrored.
            onward, after = slice(rows.start, None), slice(rows.stop, None)
            scores = torch.bmm(x[:, rows], x_t[:, :, onward]).mul_(ctx.factor)
            mirrored = scores[:, :, rows.stop - rows.start :].sub(log_sums_t[:, :, after]).exp_()
            weights = scores.sub_(log_sums[:, rows]).exp_()
            grad_g[:, onward].baddbmm_(weights.transpose(1, 2), grad_y[:, rows])
            grad_g[:, rows].baddbmm_(mirrored, grad_y[:, after])

            grad_scores = torch.bmm(grad_y[:, rows], g_t[:, :, onward]).sub_(mean_grad[:, rows])
            grad_scores.mul_(weights)
            grad_mirrored = torch.bmm(g[:, rows], grad_y_t[:, :, after])
            grad_mirrored.sub_(mean_grad_t[:, :, after]).mul_(mirrored)
            grad_scores[:, :, rows.stop - rows.start :].add_(grad_mirrored)
            grad_scores.mul_(ctx.factor)
            grad_x[:, rows].baddbmm_(grad_scores, x[:, onward])
            grad_x[:, onward].baddbmm_(grad_scores.transpose(1, 2), x[:, rows])
        return grad_x, grad_g, None


def _refuse_second_derivatives() -> None:
    # Torch's `once_differentiable` leaves the missing term out where x is used elsewhere as well.
    if torch.is_grad_enabled():
        raise RuntimeError(
            "softmax attention without a map is differentiable once; for second derivatives set "
            "nl_detectron.layers.attention.EXPLICIT_MAX_ELEMENTS above the size of the map"
        )


def _attend_by_chunks(
    theta: Tensor, phi: Tensor, g: Tensor, factor: float
) -> tuple[Tensor, Tensor]:
    """y, and the logarithm of each row's sum of exponentials (N, P, 1)."""
    y = g.new_empty(*theta.shape[:2], g.shape[2])
    log_sums = theta.new_empty(*theta.shape[:2], 1)
    phi_t = phi.transpose(1, 2)
    for rows in _chunks(theta.shape[1]):
        scores = torch.bmm(theta[:, rows], phi_t).mul_(factor)
        log_sums[:, rows] = torch.logsumexp(scores, dim=-1, keepdim=True)
        y[:, rows] = torch.bmm(scores.sub_(log_sums[:, rows]).exp_(), g)
    return y, log_sums


def _chunks(positions: int) -> list[slice]:
    starts = range(0, positions, CHUNK_QUERIES)
    return [slice(start, min(start + CHUNK_QUERIES, positions)) for start in starts]


def softmax_attention(
    theta: Tensor,
    phi: Tensor,
    g: Tensor,
    *,
    scale: bool = True,
    key_bias: Tensor | None = None,
) -> Tensor:
    """``y_i = sum_j exp(s theta_i . phi_j + b_j) g_j / sum_j exp(s theta_i . phi_j + b_j)``.

    `theta` is (N, P, D), `phi` (N, M, D), `g` (N, M, E); the result is (N, P, E). ``s`` is
    ``1/sqrt(D)`` with `scale`, else 1; b is `key_bias` (N, M), 0 if None. Sums and exponentials
    run in float32 or wider.

    With a `key_bias` the map is made, except in half precision: a block has one only where the map
    is smaller than its input.

    Compiled, exported, on an accelerator or in half precision it is torch's fused attention. On a
    CPU small maps are multiplied out and large ones never made. The fused kernels are
    differentiable once and raise RuntimeError beyond: for a second derivative select
    ``SDPBackend.MATH`` with ``torch.nn.attention.sdpa_kernel`` or raise EXPLICIT_MAX_ELEMENTS.
    """
    factor = theta.shape[2] ** -0.5 if scale else 1.0
    device = theta.device.type
    recorded = is_recorded()
    full = theta.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(device)
    if key_bias is not None and full:
        return explicit_attention(theta, phi, g, factor, key_bias)
    if device == "cpu" and not recorded and full:
        if theta.shape[0] * theta.shape[1] * phi.shape[1] <= EXPLICIT_MAX_ELEMENTS:
            return explicit_attention(theta, phi, g, factor)
        if theta is phi:
            return ChunkedSelfAttention.apply(theta, g, factor)
        if theta.shape[2] != g.shape[2]:
            return chunked_attention(theta, phi, g, factor)
    # One head per image. Kernels want rows in one piece; without them the map would be built.
    query, key, value = (rows.unsqueeze(1).contiguous() for rows in (theta, phi, g))
    mask = None
    if key_bias is not None:
        mask = key_bias[:, None, None].to(query.dtype).expand(-1, -1, theta.shape[1], -1)
    y = F.scaled_dot_product_attention(query, key, value, mask, scale=factor).squeeze(1)
    if device == "cpu":
        # The CPU's kernel makes zeros of a NaN query. Zero times NaN or infinity is NaN.
        largest = torch.linalg.vector_norm(theta.detach(), torch.inf, dim=-1, keepdim=True)
        if recorded or not largest.isfinite().all():
            y = y + 0 * largest
    return y


def checkpoint_but_attention(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)``, recomputed in the backward pass except for torch's fused attention.

    x and the attention's results are saved, not its inputs. Differentiable once, by one backward
    pass.
    """
    keep_attention = partial(create_selective_checkpoint_contexts, _keep_attention)
    return checkpoint(
        function, x, use_reentrant=False, preserve_rng_state=False, context_fn=keep_attention
    )


def _keep_attention(_, operator, *args, **kwargs) -> CheckpointPolicy:
    # One for each kernel: aten::_scaled_dot_product_flash_attention and others.
    fused = operator.name().startswith("aten::_scaled_dot_product_")
    return CheckpointPolicy.MUST_SAVE if fused else CheckpointPolicy.PREFER_RECOMPUTE
