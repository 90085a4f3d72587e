"""Softmax attention: the Gaussian and embedded Gaussian forms, by the kernel that suits the input.

Equation 4 of the paper's section 3.2: ``y = softmax(theta phi^T) g``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# On a CPU, maps of at most this many elements (32 MB in float32) are multiplied out: there the
# plain product beats the fused kernel in training. `make bench` shows where the two cross.
EXPLICIT_MAX_ELEMENTS = 2**23

# Queries handled at once where the map is made in chunks: enough for the matrix products to run
# at full speed, few enough for their rows of the map to take little memory.
CHUNK_QUERIES = 320


def explicit_attention(theta: Tensor, phi: Tensor, g: Tensor, factor: float) -> Tensor:
    """``softmax(factor * theta phi^T) g`` with the (N, P, M) map in memory."""
    return torch.softmax(factor * (theta @ phi.transpose(1, 2)), dim=-1) @ g


class ChunkedAttention(torch.autograd.Function):
    """Attention whose values have another width than its queries, without the map.

    The Gaussian form compares C channels but sums C/2; the CPU's fused kernel wants equal widths,
    and padding would cost more than it saves. Rows of the map are made chunk by chunk, and made
    again in the backward pass from the saved logarithm of their sums. Differentiable once.
    """

    @staticmethod
    def forward(ctx, theta: Tensor, phi: Tensor, g: Tensor, factor: float) -> Tensor:
        y, log_sums = _attend_by_chunks(theta, phi, g, factor)
        ctx.save_for_backward(theta, phi, g, y, log_sums)
        ctx.factor = factor
        return y

    @staticmethod
    def backward(ctx, grad_y: Tensor):
        _refuse_second_derivatives()
        theta, phi, g, y, log_sums = ctx.saved_tensors
        grad_theta, grad_phi = torch.empty_like(theta), torch.zeros_like(phi)
        grad_g = torch.zeros_like(g)
        # A softmax's gradient is w * (dw - sum(w * dw)); the sum equals <dy_i, y_i>.
        mean_grad = (grad_y * y).sum(-1, keepdim=True)
        phi_t, g_t = phi.transpose(1, 2), g.transpose(1, 2)
        for rows in _chunks(theta.shape[1]):
            weights = torch.bmm(theta[:, rows], phi_t).mul_(ctx.factor)
            weights.sub_(log_sums[:, rows]).exp_()
            grad_g.baddbmm_(weights.transpose(1, 2), grad_y[:, rows])
            grad_scores = torch.bmm(grad_y[:, rows], g_t).sub_(mean_grad[:, rows])
            grad_scores.mul_(weights).mul_(ctx.factor)
            grad_theta[:, rows] = torch.bmm(grad_scores, phi)
            grad_phi.baddbmm_(grad_scores.transpose(1, 2), theta[:, rows])
        return grad_theta, grad_phi, grad_g, None


class ChunkedSelfAttention(torch.autograd.Function):
    """`ChunkedAttention` of a tensor with itself: the Gaussian form without subsampling.

    ``x_i . x_j`` equals ``x_j . x_i``, so the backward pass visits each pair once, for both its
    weights. That saves more than making the rows again costs.
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


def softmax_attention(theta: Tensor, phi: Tensor, g: Tensor, *, scale: bool = True) -> Tensor:
    """``y_i = sum_j exp(s theta_i . phi_j) g_j / sum_j exp(s theta_i . phi_j)``.

    `theta` is (N, P, D), `phi` (N, M, D), `g` (N, M, E); the result is (N, P, E). ``s`` is
    ``1/sqrt(D)`` with `scale`, else 1. Sums and exponentials run in float32 or wider.

    Compiled, exported, on an accelerator or in half precision it is torch's fused attention. On a
    CPU small maps are multiplied out and large ones never made. The fused kernels are
    differentiable once and raise RuntimeError beyond: for a second derivative select
    ``SDPBackend.MATH`` with ``torch.nn.attention.sdpa_kernel`` or raise EXPLICIT_MAX_ELEMENTS.
    """
    factor = theta.shape[2] ** -0.5 if scale else 1.0
    device = theta.device.type
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()
    eager = not recorded and not torch.is_autocast_enabled(device)
    if device == "cpu" and eager and theta.dtype in (torch.float32, torch.float64):
        if theta.shape[0] * theta.shape[1] * phi.shape[1] <= EXPLICIT_MAX_ELEMENTS:
            return explicit_attention(theta, phi, g, factor)
        if theta is phi:
            return ChunkedSelfAttention.apply(theta, g, factor)
        if theta.shape[2] != g.shape[2]:
            return ChunkedAttention.apply(theta, phi, g, factor)
    # One head per image. Kernels want rows in one piece; without them the map would be built.
    query, key, value = (rows.unsqueeze(1).contiguous() for rows in (theta, phi, g))
    y = F.scaled_dot_product_attention(query, key, value, scale=factor).squeeze(1)
    if device == "cpu":
        # The CPU's kernel makes zeros of a NaN query. Zero times NaN or infinity is NaN.
        largest = torch.linalg.vector_norm(theta.detach(), torch.inf, dim=-1, keepdim=True)
        if recorded or not largest.isfinite().all():
            y = y + 0 * largest
    return y
