"""The non-local block, equation 6 of the paper: ``z = W_z y + x``."""

import copy
from typing import Any

import torch
from detectron2.layers import CNNBlockBase, FrozenBatchNorm2d, get_norm
from torch import Tensor, nn
from torch.nn import functional as F

from .nonlocal_ops import (
    at_least_float32,
    check_pairwise,
    concatenation_of_scalars,
    nonlocal_operation,
    pairwise_weights,
)

_CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AXES = ("spacetime", "space", "time")


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
        return self._join(self._forward(self._split(x)), x)

    def _forward(self, x: Tensor) -> Tensor:
        x_hat = self._pool(x)
        g = _rows(self.g(x_hat))
        if self.pairwise == "concatenation":
            y = concatenation_of_scalars(*self._scalars(x, x_hat), g)
        else:
            theta, phi = self._embed(x, x_hat)
            y = nonlocal_operation(theta, phi, g, pairwise=self.pairwise, scale=self.scale)
        y = y.transpose(1, 2).reshape(x.shape[0], self.inter_channels, *x.shape[2:])
        y = self.out(y)
        return (x + self._normalize(y)).to(x.dtype)

    def attention_map(self, x: Tensor) -> Tensor:
        """The weights ``f(x_i, x_j) / C(x)``: (N, positions of x, positions of x̂ that i sees).

        i sees all of them, its frame's with `axes` "space", its place's time steps with "time",
        and with `frames` those of its group.
        """
        self._check_shape(x)
        parts = self._split(x)
        theta, phi = self._embed(parts, self._pool(parts))
        w_f = self.w_f if self.pairwise == "concatenation" else None
        weights = pairwise_weights(theta, phi, pairwise=self.pairwise, scale=self.scale, w_f=w_f)
        if parts is x:
            return weights
        weights = weights.transpose(1, 2).unflatten(2, parts.shape[2:])
        return _rows(self._join(weights, x))

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

    def _split(self, x: Tensor) -> Tensor:
        """The frames, groups of frames or places of x (N, C, T, H, W), as a batch of inputs."""
        if self._group:
            x = x.unflatten(2, (-1, self._group)).transpose(1, 2).flatten(0, 1)
        if self.axes == "time":
            x = x.permute(0, 3, 4, 1, 2).flatten(0, 2)[..., None, None]
        return x

    def _join(self, parts: Tensor, x: Tensor) -> Tensor:
        """The inverse of `_split`, for parts with any number of channels."""
        if self.axes == "time":
            places = -1, *x.shape[3:]
            parts = parts.flatten(2).unflatten(0, places).permute(0, 3, 4, 1, 2)
        if self._group:
            groups = x.shape[2] // self._group
            parts = parts.unflatten(0, (-1, groups)).transpose(1, 2).flatten(2, 3)
        return parts

    def _pool(self, x: Tensor) -> Tensor:
        """x̂: the positions that j runs over."""
        if self.subsample == 1 or self.axes == "time":
            return x
        stride = (1, self.subsample, self.subsample) if self.dims == 3 else self.subsample
        return _MAX_POOLS[self.dims](x, stride, stride=stride, ceil_mode=True)

    def _embed(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
        """theta (N, P, D) and phi (N, M, D); the Gaussian form compares x itself."""
        if self.pairwise == "gaussian":
            theta = _rows(x)
            return theta, theta if x_hat is x else _rows(x_hat)
        return _rows(self.theta(x)), _rows(self.phi(x_hat))

    def _scalars(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
        """``w_theta . theta_i`` (N, P) and ``w_phi . phi_j`` (N, M), in float32 or wider.

        Only these scalars of theta and phi count, so w_f goes into the convolutions, which then
        have a single output channel.
        """
        w_theta, w_phi = self.w_f.split(self.inter_channels)
        return _weighted(self.theta, w_theta, x), _weighted(self.phi, w_phi, x_hat)

    def _normalize(self, y: Tensor) -> Tensor:
        if not hasattr(self, "norm"):
            return y
        # Norms act on channels alone; as (N, C, 1, positions) the 2-D ones serve every `dims`.
        # Not (N, C, positions, 1): the strides that y can have then mislead torch's batch norm,
        # and its gradients come out wrong, without an error.
        flat = y.flatten(2).unsqueeze(2)
        norm = self.norm
        if type(norm) is nn.BatchNorm2d and self.training and flat.numel() <= self.out_channels:
            # A single value per channel has no variance: torch refuses, the running one serves.
            statistics = norm.running_mean, norm.running_var
            flat = F.batch_norm(flat, *statistics, norm.weight, norm.bias, False, 0.0, norm.eps)
        else:
            flat = norm(flat)
        return flat.reshape(y.shape)


def fold_norm(block: NonLocalBlock) -> NonLocalBlock:
    """A copy of `block` for inference with its norm folded into W_z; `block` stays as it is.

    Exact to rounding for norms that are affine in inference: BN, SyncBN, FrozenBN, or none.
    Raises ValueError for the others (GN, LN), whose statistics come from each input.
    """
    folded = copy.deepcopy(block).eval()
    if not hasattr(folded, "norm"):
        return folded
    norm: Any = folded.norm
    if not isinstance(folded.norm, nn.modules.batchnorm._BatchNorm | FrozenBatchNorm2d):
        raise ValueError(f"{type(norm).__name__} takes statistics from its input: cannot fold it")
    with torch.no_grad():
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        folded.out.weight.mul_(factor.view(-1, *[1] * (folded.dims + 1)))
        folded.out.bias.sub_(norm.running_mean).mul_(factor).add_(norm.bias)
    del folded.norm
    return folded


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


def _rows(x: Tensor) -> Tensor:
    """(N, C, *spatial) -> (N, positions, C)."""
    return x.flatten(2).transpose(1, 2)


def _weighted(conv: Any, w: Tensor, x: Tensor) -> Tensor:
    """``w . conv(x)`` at each position, (N, positions), for a 1x1 convolution `conv`."""
    x = at_least_float32(x).flatten(2)
    weight, bias, w = (v.to(x.dtype) for v in (conv.weight.flatten(1), conv.bias, w))
    with torch.autocast(x.device.type, enabled=False):
        # As a convolution it takes and gives gradients in the layout of x.
        return F.conv1d(x, (w @ weight).view(1, -1, 1), (w @ bias).view(1)).squeeze(1)
