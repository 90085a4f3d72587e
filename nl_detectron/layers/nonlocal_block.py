"""The non-local block, equation 6 of the paper: ``z = W_z y + x``."""

import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from detectron2.layers import CNNBlockBase, FrozenBatchNorm2d, get_norm
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import checkpoint_but_attention, softmax_attention
from .max_pool import max_pool
from .nonlocal_ops import (
    SOFTMAX_FORMS,
    at_least_float32,
    check_pairwise,
    concatenation_of_scalars,
    dot_product_by_map,
    dot_product_by_sums,
    pairwise_weights,
    product_over,
)
from .order import FOLDED_SUMS, KEYS, SUMS, Products, cheapest_order, count_orders
from .recording import is_recorded

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
AXES = ("spacetime", "space", "time")

# In training, an embedded Gaussian whose map would have at least this many elements a clip (8 MB
# in float32) saves x and y alone, and recomputes theta, phi and g in the backward pass. The other
# forms have no fused kernel on every device, and would recompute y too.
LONG_CLIP_ELEMENTS = 2**21


class NonLocalBlock(CNNBlockBase):
    """``z_i = W_z y_i + x_i`` with ``y_i = 1/C(x) sum_j f(x_i, x_j) g(x_j)`` (section 3.3).

    Input and output are (N, C, *spatial) with `dims` spatial axes, of one shape, type and memory
    format. j runs over x̂, which is x max-pooled over space; pooling comes before the phi and g
    convolutions, as in the official code. A fresh block is the identity: the norm's scale starts
    at zero, or W_z does where there is no norm with a trained scale.

    Args:
        in_channels: C.
        inter_channels: channels of theta, phi and g; half of C if None.
        pairwise: f, one of ``nonlocal_ops.PAIRWISE_FORMS``. The Gaussian form has no theta and
            phi; concatenation has a parameter `w_f`, theta's half first.
        subsample: stride of the max-pooling over space, 1 for none. A partial window counts. In
            3-D, time is not pooled.
        norm: the norm after W_z: what ``detectron2.layers.get_norm`` takes, "" for none.
        scale: softmax forms divide the product by the square root of its width.
        dims: number of spatial axes: 1, 2 or 3 (time first).
        axes: what i sees in 3-D: "spacetime" everything, "space" its own frame, "time" its own
            place, which is not pooled. A frame or place then is an input of its own: N counts
            the positions that i sees, and a norm over each input (GN) covers no more.
        frames: in 3-D i sees its own group of so many consecutive time steps; 0 for all of them.
        init_std: standard deviation of the weights' start. The official code's 0.01 suits 1024
            channels; of fewer, the products theta . phi start near zero and learn slowly, and
            about ``2 / sqrt(in_channels)`` suits them.

    Raises:
        ValueError: for an argument outside these, and in `forward` for an input of another rank
            or whose number of time steps is not a multiple of `frames`.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        inter_channels: int | None = None,
        pairwise: str = "embedded_gaussian",
        subsample: int = 2,
        norm: str = "BN",
        scale: bool = True,
        dims: int = 2,
        axes: str = "spacetime",
        frames: int = 0,
        init_std: float = 0.01,
    ) -> None:
        super().__init__(in_channels, in_channels, stride=1)
        if inter_channels is None:
            inter_channels = max(in_channels // 2, 1)
        check_pairwise(pairwise)
        if dims not in _CONVS:
            raise ValueError(f"dims is {dims}, not 1, 2 or 3")
        for name, value in (("inter_channels", inter_channels), ("subsample", subsample)):
            if value < 1:
                raise ValueError(f"{name} is {value}, not a positive number")
        if axes not in AXES:
            raise ValueError(f"axes is '{axes}', not one of {', '.join(AXES)}")
        if frames < 0:
            raise ValueError(f"frames is {frames}, not 0 (all) or a positive number")
        if dims != 3 and (axes != "spacetime" or frames):
            raise ValueError(f"axes is '{axes}' and frames {frames}: dims must be 3, not {dims}")
        if not init_std > 0:
            raise ValueError(f"init_std is {init_std}, not a positive number")
        self.inter_channels = inter_channels
        self.pairwise = pairwise
        self.subsample = subsample
        self.scale = scale
        self.dims = dims
        self.axes = axes
        self.frames = frames
        self.init_std = init_std

        conv = _CONVS[dims]
        if pairwise != "gaussian":
            self.theta = conv(in_channels, inter_channels, 1)
            self.phi = conv(in_channels, inter_channels, 1)
        self.g = conv(in_channels, inter_channels, 1)
        self.out = conv(inter_channels, in_channels, 1)
        if pairwise == "concatenation":
            self.w_f = nn.Parameter(torch.empty(2 * inter_channels))
        if norm:
            self.norm: Any = build_norm(norm, channels=in_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights normal with `init_std`, biases 0, and the block the identity."""
        for name, parameter in self.named_parameters():
            if name.startswith("norm."):
                continue
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=self.init_std)
        if self._norm_has_scale:
            nn.init.zeros_(self.norm.weight)
            nn.init.zeros_(self.norm.bias)
        else:
            nn.init.zeros_(self.out.weight)

    @property
    def _norm_has_scale(self) -> bool:
        # A frozen norm's scale is a buffer: at zero it would keep the block the identity for good.
        return hasattr(self, "norm") and isinstance(self.norm.weight, nn.Parameter)

    def forward(self, x: Tensor) -> Tensor:
        self._check_shape(x)
        order = self._order(x)
        if order == KEYS:
            y = self._join(self._multiply_at_keys(x), x)
        elif order == FOLDED_SUMS:
            y = self._join(self._multiply_by_folded_sums(x), x)
        else:
            multiply = partial(self._multiply_at_positions, by_sums=order == SUMS)
            y = checkpoint_but_attention(multiply, x) if self._is_long(x) else multiply(x)
            y = _conv(self._join(y, x).flatten(2), *self._out_parameters()).view_as(x)
        y = self._normalize(y)
        # The sum goes into y, whose memory is there: new memory costs more than the additions.
        in_place = not is_recorded() and y.dtype == x.dtype and y.stride() == x.stride()
        return y.add_(x) if in_place else (x + y).to(x.dtype)

    def count(self, shape: Sequence[int]) -> tuple[str, Products]:
        """The order of multiplication for an input of `shape`, and its multiply-adds."""
        orders = self.orders(shape)
        order = cheapest_order(orders)
        return order, orders[order]

    def orders(self, shape: Sequence[int]) -> dict[str, Products]:
        """The multiply-adds of each order for an input of `shape`, the paper's own first."""
        batch, positions, keys = self._map_shape(shape)
        return count_orders(
            self.pairwise,
            batch=batch,
            positions=positions,
            keys=keys,
            channels=shape[1],
            inner=self.inter_channels,
        )

    def _map_shape(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Of the weights of equation 1 for an input of `shape`: inputs, positions and keys."""
        batch, _, *sides = shape
        keys = [-(-side // stride) for side, stride in zip(sides, self._stride, strict=True)]
        if self._group:
            batch, sides[0], keys[0] = batch * sides[0] // self._group, self._group, self._group
        if self.axes == "time":
            batch, sides, keys = batch * math.prod(sides[1:]), sides[:1], keys[:1]
        return batch, math.prod(sides), math.prod(keys)

    def _order(self, x: Tensor) -> str:
        shape: Sequence[int] = x.shape
        if torch.jit.is_tracing():
            with warnings.catch_warnings():  # every order is right for every size
                warnings.simplefilter("ignore", torch.jit.TracerWarning)
                shape = [int(size) for size in shape]
        return self.count(shape)[0]

    def _multiply_at_positions(self, x: Tensor, *, by_sums: bool) -> Tensor:
        """y of equation 1, (N, D, P), as the paper has it."""
        x_hat = self._pool(x)
        g = self._rows(self.g(x_hat))
        if self.pairwise == "concatenation":
            y = concatenation_of_scalars(*self._scalars(x, x_hat), g)
        else:
            theta, phi = self._embed(x, x_hat)
            if self.pairwise != "dot_product":
                y = softmax_attention(theta, phi, g, scale=self.scale)
            else:
                y = (
                    dot_product_by_sums(theta, phi, g)
                    if by_sums
                    else dot_product_by_map(theta, phi, g)
                )
        return y.transpose(1, 2)

    def _multiply_at_keys(self, x: Tensor) -> Tensor:
        """W_z y (N, C, P), with W_theta and W_z acting on the keys."""
        x_hat = self._pool(x)
        weight, bias = self._out_parameters()
        # A softmax's weights sum to one, so that W_z's bias may be added to each key.
        sums_to_one = self.pairwise in SOFTMAX_FORMS
        g = _conv(self.g(x_hat).flatten(2), weight, bias if sums_to_one else None)
        g = self._rows(g.view(*g.shape[:2], *x_hat.shape[2:]))
        if self.pairwise == "concatenation":
            y = concatenation_of_scalars(*self._scalars(x, x_hat), g)
            return y.transpose(1, 2) + bias.to(y.dtype).unsqueeze(1)

        rows = self._rows(x)
        if self.pairwise == "gaussian":
            keys = rows if x_hat is x else self._rows(x_hat)
            return softmax_attention(rows, keys, g, scale=self.scale).transpose(1, 2)
        phi = self.phi(x_hat).flatten(2)
        # x_i . (W_theta^T phi_j), and b_theta . phi_j
        theta = torch.cat(
            [self.theta.weight.flatten(1).t(), cast(Tensor, self.theta.bias).unsqueeze(0)]
        )
        factor = self.inter_channels**-0.5 if self.scale and sums_to_one else 1.0
        keys = _conv(phi, theta * factor, None)
        keys = self._rows(keys.view(*keys.shape[:2], *x_hat.shape[2:]))
        keys, key_bias = keys[..., :-1], keys[..., -1]
        if sums_to_one:
            y = softmax_attention(rows, keys, g, scale=False, key_bias=key_bias)
            return y.transpose(1, 2)
        return dot_product_by_map(rows, keys, g, key_bias=key_bias, bias=bias).transpose(1, 2)

    def _multiply_by_folded_sums(self, x: Tensor) -> Tensor:
        """W_z y (N, C, P) of the dot product, with W_z acting on ``sum_j g_j phi_j^T / M``."""
        x_hat = self._pool(x)
        weight, bias = self._out_parameters()
        theta, phi = self._embed(x, x_hat)
        g = self._rows(self.g(x_hat)).transpose(1, 2)
        sums = _conv(product_over(phi.shape[1], g, phi), weight, None)
        return torch.baddbmm(bias.to(sums.dtype).view(1, -1, 1), sums, theta.transpose(1, 2))

    def attention_map(self, x: Tensor) -> Tensor:
        """The weights ``f(x_i, x_j) / C(x)``: (N, positions of x, positions of x̂ that i sees).

        i sees all of them, its frame's with `axes` "space", its place's time steps with "time",
        and with `frames` those of its group.
        """
        self._check_shape(x)
        theta, phi = self._embed(x, self._pool(x))
        w_f = self.w_f if self.pairwise == "concatenation" else None
        weights = pairwise_weights(theta, phi, pairwise=self.pairwise, scale=self.scale, w_f=w_f)
        return self._join(weights.transpose(1, 2), x).flatten(2).transpose(1, 2)

    def extra_repr(self) -> str:
        names = ["subsample", "scale", "dims", "init_std"]
        names += ["axes", "frames"] if self.dims == 3 else []
        return ", ".join([self.pairwise, *(f"{name}={getattr(self, name)}" for name in names)])

    def _check_shape(self, x: Tensor) -> None:
        if x.dim() != self.dims + 2:
            raise ValueError(
                f"input of shape {tuple(x.shape)} given to a block of {self.dims} spatial axes"
            )
        if self.frames and x.shape[2] % self.frames:
            raise ValueError(f"{x.shape[2]} time steps do not divide into groups of {self.frames}")

    @property
    def _group(self) -> int:
        """Time steps that see each other; 0 for all."""
        return 1 if self.axes == "space" else self.frames

    def _rows(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> (N, positions, C), the positions that see each other.

        The frames, groups of frames or places of an input become inputs of their own.
        """
        if self._group:
            x = x.unflatten(2, (-1, self._group)).transpose(1, 2).flatten(0, 1)
        if self.axes == "time":
            x = x.permute(0, 3, 4, 1, 2).flatten(0, 2)
        return x.flatten(2).transpose(1, 2)

    def _join(self, parts: Tensor, x: Tensor) -> Tensor:
        """The inverse of `_rows`, transposed: (N, any, positions) -> (N, any, *spatial of x)."""
        steps = self._group or x.shape[2]
        if self.axes == "time":
            parts = parts.unflatten(0, (-1, *x.shape[3:])).permute(0, 3, 4, 1, 2)
        else:
            parts = parts.unflatten(2, (steps, *x.shape[3:]))
        if self._group:
            groups = x.shape[2] // steps
            parts = parts.unflatten(0, (-1, groups)).transpose(1, 2).flatten(2, 3)
        return parts

    @property
    def _stride(self) -> tuple[int, ...]:
        """Of the pooling, along each axis."""
        if self.axes == "time":
            return 1, 1, 1
        return (
            (1, self.subsample, self.subsample) if self.dims == 3 else (self.subsample,) * self.dims
        )

    def _pool(self, x: Tensor) -> Tensor:
        """x̂: the positions that j runs over."""
        return max_pool(x, self._stride)

    def _is_long(self, x: Tensor) -> bool:
        """Whether x holds long clips, of which training saves little."""
        if self.dims != 3 or self.pairwise != "embedded_gaussian" or not len(x):
            return False
        if is_recorded() or not torch.is_grad_enabled():
            return False
        return math.prod(self._map_shape(x.shape)) >= len(x) * LONG_CLIP_ELEMENTS

    def _embed(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
        """theta (N, P, D) and phi (N, M, D); the Gaussian form compares x itself."""
        if self.pairwise == "gaussian":
            theta = self._rows(x)
            return theta, theta if x_hat is x else self._rows(x_hat)
        return self._rows(self.theta(x)), self._rows(self.phi(x_hat))

    def _scalars(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
        """``w_theta . theta_i`` (N, P) and ``w_phi . phi_j`` (N, M), in float32 or wider.

        Only these scalars of theta and phi count, so w_f goes into the convolutions, which then
        have a single output channel.
        """
        w_theta, w_phi = self.w_f.split(self.inter_channels)
        a, b = _weighted(self.theta, w_theta, x), _weighted(self.phi, w_phi, x_hat)
        return self._rows(a).squeeze(2), self._rows(b).squeeze(2)

    @property
    def _folds_norm(self) -> bool:
        """Whether the norm is a scale and a shift that do not depend on the input."""
        norm: Any = getattr(self, "norm", None)
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            return not norm.training and norm.running_var is not None
        return isinstance(norm, FrozenBatchNorm2d)

    def _out_parameters(self) -> tuple[Tensor, Tensor]:
        """Weight (C, D) and bias (C,) of W_z, with the norm in them where it does not look at y."""
        weight, bias = self.out.weight.flatten(1), cast(Tensor, self.out.bias)
        if not self._folds_norm:
            return weight, bias
        norm: Any = self.norm
        factor = norm.weight * (at_least_float32(norm.running_var) + norm.eps).rsqrt()
        folded_bias = (bias - norm.running_mean) * factor + norm.bias
        return (weight * factor.unsqueeze(1)).to(weight.dtype), folded_bias.to(bias.dtype)

    def _normalize(self, y: Tensor) -> Tensor:
        """The norm of (N, C, *spatial) where W_z does not have it."""
        if not hasattr(self, "norm") or self._folds_norm:
            return y
        # Norms act on channels alone; as (N, C, 1, positions) the 2-D ones serve every `dims`.
        # Not (N, C, positions, 1): the strides that y can have then mislead torch's batch norm,
        # and its gradients come out wrong, without an error.
        flat = self._rows(y).transpose(1, 2).unsqueeze(2)
        norm: Any = self.norm
        if type(norm) is nn.BatchNorm2d and self.training and flat.numel() <= self.out_channels:
            # A single value per channel has no variance: torch refuses, the running one serves.
            statistics = norm.running_mean, norm.running_var
            flat = F.batch_norm(flat, *statistics, norm.weight, norm.bias, False, 0.0, norm.eps)
        else:
            flat = norm(flat)
        return self._join(flat.squeeze(2), y)


def build_norm(norm: str, *, channels: int) -> nn.Module | None:
    """Detectron2's norm of that name, None for ""; ValueError if there is none for `channels`."""
    try:
        return get_norm(norm, channels)
    except KeyError:
        raise ValueError(
            f"norm is '{norm}', not BN, SyncBN, FrozenBN, GN, LN, \"\" or another name that "
            "detectron2.layers.get_norm takes"
        ) from None
    except ValueError as error:  # a group norm's 32 groups do not divide the channels
        raise ValueError(f"norm is '{norm}', for {channels} channels: {error}") from error


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 1x1 convolution of x (N, D, positions) by `weight` (C, D)."""
    return F.conv1d(x, weight.unsqueeze(2), bias)


def _weighted(conv: Any, w: Tensor, x: Tensor) -> Tensor:
    """``w . conv(x)``, (N, 1, *spatial), for a 1x1 convolution `conv`."""
    x = at_least_float32(x)
    weight, bias, w = (v.to(x.dtype) for v in (conv.weight.flatten(1), conv.bias, w))
    with torch.autocast(x.device.type, enabled=False):
        # As a convolution it takes and gives gradients in the layout of x.
        y = F.conv1d(x.flatten(2), (w @ weight).view(1, -1, 1), (w @ bias).view(1))
    return y.view(x.shape[0], 1, *x.shape[2:])
