"""The non-local block, equation 6 of the paper: ``z = W_z y + x``."""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

import torch
from detectron2.layers import (
    CNNBlockBase,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
    get_norm,
)
from torch import Tensor, nn
from torch.nn import functional as F

from .nonlocal_ops import (
    SOFTMAX_FORMS,
    at_least_float32,
    check_pairwise,
    is_full_precision,
    nonlocal_operation,
    pairwise_weights,
    product_map,
)
from .pair_sum import is_compiled_or_traced, multiplies_out

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm)
AXES = ("spacetime", "space", "time")
POSITIONS, KEYS, SUMS = "positions", "keys", "sums"  # orders of multiplication


class NonLocalBlock(CNNBlockBase):
    """``z_i = W_z y_i + x_i`` with ``y_i = 1/C(x̂) sum_j f(x_i, x̂_j) g(x̂_j)`` (section 3.3).

    Input and output are (N, C, *spatial) with `dims` spatial axes, of one shape and type. x̂ is x,
    or other features, max-pooled over space; pooling comes before the phi and g convolutions, as
    in the official code. A fresh block is the identity: the norm's scale starts at zero, or W_z
    does where there is no norm with a trained scale.

    Args:
        in_channels: C.
        inter_channels: channels of theta, phi and g; half of C if None.
        pairwise: f, one of ``nonlocal_ops.PAIRWISE_FORMS``. The Gaussian form has no theta and
            phi; concatenation has a parameter `w_f`, theta's half first.
        subsample: stride of the max-pooling over space, 1 for none. A partial window counts. In
            3-D, time is not pooled.
        norm: the norm after W_z: what ``detectron2.layers.get_norm`` takes, "" for none.
        scale: softmax forms divide the product by the square root of its width.
        dims: number of spatial axes: 1, 2 or 3. With 3, the first is time.
        axes: what i sees in 3-D: "spacetime" everything, "space" its own frame, "time" its own
            place, which is not pooled. Frames or places then attend separately, as independent
            inputs: the normalization and the statistics of GN are those of one of them.
        frames: in 3-D, the number of consecutive time steps that attend to each other; 0 for all.
        init_std: initial standard deviation of the weights. The official code's 0.01 suits 1024
            channels. With fewer, the products theta . phi start near zero and learn slowly, and
            about ``2 / sqrt(in_channels)`` is better.

    Raises:
        ValueError: for an argument outside these.
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
        inter_channels = max(in_channels // 2, 1) if inter_channels is None else inter_channels
        check_pairwise(pairwise)
        if dims not in _CONVS:
            raise ValueError(f"dims must be 1, 2 or 3, got {dims}")
        for name, value in (("inter_channels", inter_channels), ("subsample", subsample)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if axes not in AXES:
            raise ValueError(f"axes must be one of {', '.join(AXES)}, got '{axes}'")
        if frames < 0:
            raise ValueError(f"frames must be 0 (all) or more, got {frames}")
        if dims != 3 and (axes != "spacetime" or frames):
            raise ValueError(f"axes '{axes}' and frames {frames} need dims 3, got {dims}")
        if not init_std > 0:
            raise ValueError(f"init_std must be positive, got {init_std}")
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
        self.norm: Any = build_norm(norm, channels=in_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make weights normal with `init_std`, biases 0, and the block the identity."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif not name.startswith("norm."):
                nn.init.normal_(parameter, std=self.init_std)
        # A frozen norm's scale is a buffer: at zero it would keep the block the identity for good.
        if self.norm is not None and isinstance(self.norm.weight, nn.Parameter):
            nn.init.zeros_(self.norm.weight)
        else:
            nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute z of x (N, C, *spatial), with x̂ from `context` (N, C, *any) in place of x.

        Raises:
            ValueError: for an input of another rank, a number of time steps that is not a
                multiple of `frames`, or a context that does not suit x or the block's `axes`.
        """
        x_hat = self._pool(x, context)
        if self._acts_on_keys(x, x_hat):
            return self._forward_at_keys(x, x_hat)
        theta, phi = self._embed(x, x_hat)
        g = self._rows(self.g(x_hat))
        y = nonlocal_operation(theta, phi, g, pairwise=self.pairwise, scale=self.scale)
        y = _finite(self._unfold(y.transpose(1, 2), x))
        return (x + self._project(y)).to(x.dtype)

    def attention_map(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute ``f(x_i, x̂_j) / C(x̂)``: (N, positions of x, positions of x̂ that i sees).

        i sees all of them, its frame's with `axes` "space", its place's time steps with "time",
        and with `frames` those of its group. Raises ValueError as `forward` does.
        """
        theta, phi = self._embed(x, self._pool(x, context))
        weights = pairwise_weights(theta, phi, pairwise=self.pairwise, scale=self.scale)
        return self._unfold(weights.transpose(1, 2), x).flatten(2).transpose(1, 2)

    def extra_repr(self) -> str:
        names = ["in_channels", "inter_channels", "pairwise", "subsample", "scale", "dims", "axes"]
        return ", ".join(f"{name}={getattr(self, name)}" for name in [*names, "frames", "init_std"])

    # P positions of x are the queries, M positions of x̂ the keys; D is `inter_channels`. Frames,
    # groups of frames or places that attend separately become N' independent inputs.

    def _pool(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Check the inputs and return x̂, the features that j runs over."""
        x_hat = x if context is None else context
        if {x.dim(), x_hat.dim()} != {self.dims + 2}:
            shapes = f"{tuple(x.shape)} and {tuple(x_hat.shape)}"
            raise ValueError(f"expected {self.dims} spatial axes, got x and x̂ of shapes {shapes}")
        if self.frames and x.shape[2] % self.frames:
            raise ValueError(f"{x.shape[2]} time steps do not divide into groups of {self.frames}")
        if context is not None and (
            self.axes != "spacetime"
            or self.frames
            or context.shape[:2] != x.shape[:2]
            or 0 in context.shape[2:]
        ):
            raise ValueError(
                f"context must be {tuple(x.shape[:2])} and sides of at least 1, with axes "
                f"'spacetime' and frames 0; got {tuple(context.shape)}, '{self.axes}' and "
                f"{self.frames}"
            )
        return _max_pool(x_hat, self._stride)

    @property
    def _stride(self) -> tuple[int, ...]:
        step = 1 if self.axes == "time" else self.subsample
        return (1 if self.dims == 3 else step, *[step] * (self.dims - 1))

    def _embed(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the factors of f: (N', P, K) of x and (N', M, K) of x̂.

        They are x and x̂ themselves for gaussian (K = C), the products of theta and phi with w_f
        for concatenation (K = 1), else theta and phi (K = D).
        """
        if self.pairwise == "gaussian":
            return self._rows(x), self._rows(x_hat)
        if self.pairwise != "concatenation":
            return self._rows(self.theta(x)), self._rows(self.phi(x_hat))
        w_theta, w_phi = self.w_f.split(self.inter_channels)
        return (
            self._rows(_weighted(self.theta, w_theta, x)),
            self._rows(_weighted(self.phi, w_phi, x_hat)),
        )

    def _project(self, y: Tensor) -> Tensor:
        """Compute ``norm(W_z y)`` of y (N, D, *spatial)."""
        if is_full_precision(y) and _is_plain_conv(self.out) and _is_plain_norm(self.norm):
            return _conv(y, *self._folded_out()[:2])
        return self._normalize(_finite(self.out(y)))

    def _normalize(self, y: Tensor) -> Tensor:
        if self.norm is None:
            return y
        # A norm treats all positions alike; as (N', C, 1, P) the 2-D norms serve every `dims`.
        # Not (N', C, P, 1): with the strides that y can have, torch's batch norm then computes
        # wrong gradients, without an error.
        return self._unfold(self.norm(self._fold(y).unsqueeze(2)).squeeze(2), y)

    def _folded_out(self) -> tuple[Tensor, Tensor, bool]:
        """Return weight and bias of W_z, with a plain norm folded in; True if no norm is left."""
        weight, bias = self.out.weight.flatten(1), cast(Tensor, self.out.bias)
        norm = self.norm
        if not _is_plain_norm(norm):
            return weight, bias, norm is None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return weight * factor.unsqueeze(1), (bias - norm.running_mean) * factor + norm.bias, True

    @property
    def _group(self) -> int:
        """Return the number of time steps that see each other; 0 for all."""
        return 1 if self.axes == "space" else self.frames

    def _fold(self, x: Tensor) -> Tensor:
        """Fold (N, C, *spatial) into (N', C, P)."""
        if self._group:
            x = x.unflatten(2, (-1, self._group)).transpose(1, 2).flatten(0, 1)
        if self.axes == "time":
            x = x.permute(0, 3, 4, 1, 2).flatten(0, 2)
        return x.flatten(2)

    def _rows(self, x: Tensor) -> Tensor:
        return self._fold(x).transpose(1, 2)

    def _unfold(self, y: Tensor, x: Tensor) -> Tensor:
        """Unfold (N', any, P) into (N, any, *spatial of x)."""
        steps = self._group or x.shape[2]
        if self.axes == "time":
            y = y.unflatten(0, (-1, *x.shape[3:])).permute(0, 3, 4, 1, 2)
        else:
            y = y.unflatten(2, (steps, *x.shape[3:]))
        if self._group:
            y = y.unflatten(0, (-1, x.shape[2] // steps)).transpose(1, 2).flatten(2, 3)
        return y

    # A block is a chain of products: ``theta_i . phi_j`` is ``x_i . (W_theta^T phi_j) + b_theta .
    # phi_j``, and ``W_z sum_j w_ij g_j`` is ``sum_j w_ij (W_z g_j)``. So W_theta and W_z can act on
    # the M keys in place of the P positions: less to do where keys are few, in training too.

    def _acts_on_keys(self, x: Tensor, x_hat: Tensor) -> bool:
        if is_compiled_or_traced() or not is_full_precision(x):
            return False  # a graph serves other sizes too; half precision has fused kernels
        # This path uses the parameters of theta and out, and calls g as a module.
        return (
            all(map(_is_plain_conv, (self.out, getattr(self, "theta", self.out))))
            and cheapest_order(self.orders(x.shape, x_hat.shape)) == KEYS
        )

    def _forward_at_keys(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Compute z with W_z, and W_theta if the form has one, applied to the M keys."""
        weight, bias, norm_is_folded = self._folded_out()
        out_g = self._rows(_conv(self.g(x_hat), weight))
        if self.pairwise == "concatenation":
            y = nonlocal_operation(*self._embed(x, x_hat), out_g, pairwise=self.pairwise)
            z = y.mT + bias.view(-1, 1)
        else:
            softmax = self.pairwise in SOFTMAX_FORMS
            width = self.in_channels if self.pairwise == "gaussian" else self.inter_channels
            factor = (width**-0.5 if self.scale else 1.0) if softmax else 1 / out_g.shape[1]
            keys, key_bias = x_hat * factor, None
            if self.pairwise != "gaussian":
                theta: Any = self.theta
                phi = self.phi(x_hat) * factor
                keys = _conv(phi, theta.weight.flatten(1).t())
                key_bias = self._rows(_conv(phi, theta.bias.unsqueeze(0)))
            # A row for each key.
            weights = product_map(self._rows(x), self._rows(keys), softmax=softmax, bias=key_bias)
            z = torch.baddbmm(bias.view(-1, 1), out_g.mT, weights)
        z = self._unfold(z, x)
        # In place: backward has saved neither z nor the sum.
        return z.add_(x) if norm_is_folded else x + self._normalize(z)

    def orders(
        self, shape: Sequence[int], keys_shape: Sequence[int] | None = None
    ) -> dict[str, tuple[int, int]]:
        """Count the multiply-adds of each order of multiplication, the paper's own first.

        Each order has two counts: products with the block's weights, and those of equation 1.
        `shape` is that of x, `keys_shape` that of x̂, by default of the pooled x. The order "sums"
        is ``theta (phi^T g)``, which `nonlocal_operation` takes where it costs less.
        """
        n, c, *sides = shape
        keys_sides = (
            keys_shape[2:]
            if keys_shape
            else [-(-side // step) for side, step in zip(sides, self._stride, strict=True)]
        )
        parts = sides[0] // self._group if self._group else 1
        parts *= math.prod(sides[1:]) if self.axes == "time" else 1
        n, p, m = n * parts, math.prod(sides) // parts, math.prod(keys_sides) // parts
        d = self.inter_channels
        if self.pairwise == "gaussian":
            orders = {
                POSITIONS: ((p + m) * c * d, p * m * (c + d)),
                KEYS: (2 * m * c * d, 2 * p * m * c),
            }
        elif self.pairwise == "concatenation":
            # theta and phi have one channel, a and b. Prefix sums of g and of b g add each g_j
            # twice, and one multiply-add reads each y_i.
            pairs = p * m if multiplies_out(p, m) else p + 2 * m
            orders = {
                POSITIONS: ((p + m) * c * (d + 1), pairs * d),
                KEYS: (2 * m * c * d + (p + m) * c, pairs * c),
            }
        else:
            orders = {POSITIONS: (2 * (p + m) * c * d, 2 * p * m * d)}
            if self.pairwise in ("embedded_gaussian", "dot_product"):  # not in a form of your own
                orders[KEYS] = 4 * m * c * d + m * d, 2 * p * m * c
        if self.pairwise == "dot_product":
            orders[SUMS] = 2 * (p + m) * c * d, (p + m) * d * d
        # w_f is multiplied into the weights of theta and phi once, for any batch size.
        once = 2 * c * d if self.pairwise == "concatenation" else 0
        return {order: (n * weights + once, n * rest) for order, (weights, rest) in orders.items()}


def cheapest_order(orders: dict[str, tuple[int, int]]) -> str:
    """Return the order with the fewest multiply-adds."""
    return min(orders, key=lambda order: sum(orders[order]))


def build_norm(norm: str, *, channels: int) -> nn.Module | None:
    """Build Detectron2's norm of that name, None for ""; ValueError if there is none."""
    try:
        return get_norm(norm, channels)
    except KeyError:
        raise ValueError(
            f'norm must be BN, SyncBN, FrozenBN, GN, LN, "" or another name that '
            f"detectron2.layers.get_norm takes, got '{norm}'"
        ) from None
    except ValueError as error:  # a group norm's 32 groups do not divide the channels
        raise ValueError(f"norm is '{norm}', for {channels} channels: {error}") from error


def _is_plain(module: nn.Module) -> bool:
    """Return True if `module` has neither hooks nor another `forward` put on it."""
    return "forward" not in vars(module) and not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _is_plain_conv(conv: Any) -> bool:
    """Return True for torch's dense 1x1 convolution with bias; parametrizing changes its type."""
    if type(conv) not in _CONVS.values() or not _is_plain(conv):
        return False
    return math.prod((*conv.kernel_size, *conv.stride, conv.groups)) == 1 and conv.bias is not None


def _is_plain_norm(norm: Any) -> bool:
    """Return True for a norm that is a scale and a shift independent of the input."""
    known = type(norm) is FrozenBatchNorm2d or (type(norm) in _BATCH_NORMS and not norm.training)
    return known and norm.running_var is not None and norm.weight is not None and _is_plain(norm)


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute the 1x1 convolution of x (N, D, *spatial) by `weight` (C, D, ...)."""
    # A convolution, unlike a product, keeps x's memory layout for the gradients.
    return F.conv1d(x.flatten(2), weight.flatten(1).unsqueeze(2), bias).unflatten(2, x.shape[2:])


def _weighted(conv: Any, w: Tensor, x: Tensor) -> Tensor:
    """Compute ``w . conv(x)``, (N, 1, *spatial), in float32 or wider.

    With a plain `conv`, w is multiplied into its weights, and a single channel is computed.
    """
    plain = _is_plain_conv(conv)
    x = at_least_float32(x if plain else conv(x))
    w, bias = w.to(x.dtype), None
    with torch.autocast(x.device.type, enabled=False):
        if plain:
            bias = w.dot(conv.bias.to(x.dtype)).view(1)
            w = w @ conv.weight.flatten(1).to(x.dtype)
        return _conv(x, w.unsqueeze(0), bias)


def _finite(y: Tensor) -> Tensor:
    """Clamp float16 to its finite range: infinity times a fresh block's 0 is NaN."""
    return y.clamp(-65504, 65504) if y.dtype == torch.float16 else y


def _max_pool(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Return the largest value of each window of `stride`; a partial window counts."""
    if max(stride) == 1:
        return x
    differentiates = torch.is_grad_enabled() and x.requires_grad
    if x.device.type != "cpu" or is_compiled_or_traced() or differentiates:
        return _MAX_POOLS[len(stride)](x, stride, stride=stride, ceil_mode=True)
    # On a CPU this takes a tenth of the time of torch's pooling; with gradients it takes as long.
    for axis, step in enumerate(stride, start=2):
        if missing := -x.shape[axis] % step:
            x = torch.cat([x, *[x.narrow(axis, -1, 1)] * missing], axis)
        x = reduce(torch.maximum, x.unflatten(axis, (-1, step)).unbind(axis + 1))
    return x
