"""Norms for clips (N, C, T, H, W), by Detectron2's names, with layers that Detectron2 lacks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn


class FrozenBatchNorm3d(FrozenBatchNorm2d):
    """Detectron2's frozen batch norm for (N, C, T, H, W).

    When gradients are computed, the 2-D norm is wrong on such tensors, as it shapes its scale for
    four axes. It is right on the same values as (N, C, T, H W).
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(3)).view_as(x)

    @classmethod
    def convert_frozen_batchnorm(cls, module: nn.Module) -> nn.Module:
        """Return `module` with each 3-D batch norm in it, itself included, frozen."""
        if isinstance(module, AffineNorm3d):
            return module  # it has no statistics that could change
        if not isinstance(module, nn.BatchNorm3d | nn.SyncBatchNorm):
            for name, child in module.named_children():
                setattr(module, name, cls.convert_frozen_batchnorm(child))
            return module
        frozen = cls(module.num_features, eps=module.eps)
        for name in ("weight", "bias", "running_mean", "running_var"):
            setattr(frozen, name, getattr(module, name).detach().clone())
        return frozen


class AffineNorm3d(nn.BatchNorm3d):
    """``s x + b`` for (N, C, T, H, W), with trained s and b for each of C channels.

    This is a batch norm without statistics, as in the official code's 128-frame networks. Loading
    a batch norm's weights folds the statistics in: ``s = weight / sqrt(var + eps)``, ``b = bias -
    mean s``. It is a batch norm by type only, so that the solver's WEIGHT_DECAY_NORM applies.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        s, b = (p.to(x.dtype).view(-1, 1, 1, 1) for p in (self.weight, self.bias))
        return torch.addcmul(b, x, s)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        names = [f"{prefix}{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        if all(name in state_dict for name in names):
            weight, bias, mean, var = (state_dict.pop(name) for name in names)
            s = weight * (var + self.eps).rsqrt()
            state_dict[names[0]], state_dict[names[1]] = s, bias - mean * s
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "BN": nn.BatchNorm3d,
    "SyncBN": nn.SyncBatchNorm,
    "FrozenBN": FrozenBatchNorm3d,
    "GN": partial(nn.GroupNorm, 32),
    "Affine": AffineNorm3d,
}


def build_norm_3d(norm: str, channels: int) -> nn.Module:
    """Build a norm for `channels`: Detectron2's BN, SyncBN, FrozenBN or GN, or Affine.

    Raises:
        ValueError: for another name, or a group norm whose 32 groups do not divide `channels`.
    """
    if norm not in _NORMS:
        raise ValueError(
            f"norm must be one of {', '.join(_NORMS)} in a video network, got '{norm}'"
        )
    try:
        return _NORMS[norm](channels)
    except ValueError as error:
        raise ValueError(f"norm is '{norm}', for {channels} channels: {error}") from error
