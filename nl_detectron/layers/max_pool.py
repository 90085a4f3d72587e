"""Max-pooling without overlap, along any number of spatial axes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .recording import is_recorded

_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def max_pool(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """The largest of each window of `stride` of x (N, C, *spatial); a partial window counts."""
    if max(stride) == 1:
        return x
    if x.device.type == "cpu" and not is_recorded():
        return _MaxPoolOnCPU.apply(x, stride)
    return _library_max_pool(x, stride)


def _library_max_pool(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    return _MAX_POOLS[len(stride)](x, stride, stride=stride, ceil_mode=True)


class _MaxPoolOnCPU(torch.autograd.Function):
    """Several times as fast as torch's forward, and without its indices in memory.

    They are 64-bit integers: half of x where two axes are halved. The backward pass recomputes
    them.
    """

    @staticmethod
    def forward(ctx, x: Tensor, stride: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.stride = stride
        for axis, step in enumerate(stride, start=2):
            x = _max_along(x, axis, step)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            pooled = _library_max_pool(x, ctx.stride)
        return *torch.autograd.grad(pooled, x, grad, create_graph=differentiable), None


def _max_along(x: Tensor, axis: int, step: int) -> Tensor:
    whole = (slice(None),) * axis
    pooled = x[(*whole, slice(None, None, step))]
    for offset in range(1, step):
        ahead = x[(*whole, slice(offset, None, step))]
        count = ahead.shape[axis]
        rest = pooled.narrow(axis, count, pooled.shape[axis] - count)  # of partial windows
        pooled = torch.maximum(pooled.narrow(axis, 0, count), ahead)
        if rest.shape[axis]:
            pooled = torch.cat([pooled, rest], axis)
    return pooled
