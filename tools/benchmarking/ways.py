"""Each fast path of the block against the block without it."""

from unittest import mock

import torch
from tabulate import tabulate
from torch import Tensor

from nl_detectron.layers import NonLocalBlock, nonlocal_block, nonlocal_ops, pair_sum

from .block import PLACES, compare, make_block
from .measure import ratio


def no(*args) -> bool:
    return False


def multiply_out(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    return nonlocal_ops._multiply_out(theta, phi / phi.shape[1], g, softmax=False)


def torch_pooling(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    pool = nonlocal_block._MAX_POOLS[len(stride)]
    return pool(x, stride, stride=stride, ceil_mode=True)


HEAD, VIDEO = "keypoint head, 100 regions", "video res4, 8 clips of 4x14x14"
CLIP = "video res4, 16x14x14"
RES4, RES4_ALL = "res4 at 800x1344, subsampled", "res4 at 800x1344, not subsampled"
SOFTMAX = "embedded_gaussian"
# The path, the place and the form; owner, name and replacement that remove the path.
WAYS = [
    ("W_theta and W_z at the keys", HEAD, SOFTMAX, (NonLocalBlock, "_acts_on_keys", no)),
    ("W_theta and W_z at the keys", VIDEO, SOFTMAX, (NonLocalBlock, "_acts_on_keys", no)),
    ("products in place of fused attention", CLIP, "gaussian",
     (nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", 0)),
    ("products in place of fused attention", RES4, SOFTMAX,
     (nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", 0)),
    ("theta (phi^T g)", RES4_ALL, "dot_product", (nonlocal_ops, "dot_product", multiply_out)),
    ("prefix sums", RES4_ALL, "concatenation", (pair_sum, "multiplies_out", lambda *_: True)),
    ("w_f within W_theta and W_phi", RES4, "concatenation", (nonlocal_block, "_is_plain_conv", no)),
    ("w_f within W_theta and W_phi", HEAD, "concatenation", (nonlocal_block, "_is_plain_conv", no)),
    ("pooling by slices", HEAD, SOFTMAX, (nonlocal_block, "_max_pool", torch_pooling)),
    ("norm within W_z", HEAD, SOFTMAX, (nonlocal_block, "_is_plain_norm", no)),
    ("norm within W_z", RES4, SOFTMAX, (nonlocal_block, "_is_plain_norm", no)),
]  # fmt: skip


class Without(torch.nn.Module):
    """`block` with a path removed by `replaced`: owner, name and new value."""

    def __init__(self, block: NonLocalBlock, replaced: tuple[object, str, object]) -> None:
        super().__init__()
        self.block, self.replaced = block, replaced

    def forward(self, x: Tensor) -> Tensor:
        with mock.patch.object(*self.replaced):
            return self.block(x)


def ways_table(rounds: int, device: str, dtype: torch.dtype) -> str:
    """Measure ratios of the time without a path to the time with it, in inference and training."""
    rows = []
    for way, place, form, replaced in WAYS:
        shape, subsample = PLACES[place]
        block = make_block(form, shape, subsample).to(device=device, dtype=dtype)
        modules = {"with": block, "without": Without(block, replaced)}
        measured = [
            compare(modules, shape, training, rounds, device, dtype) for training in (False, True)
        ]
        cells = [f"{ratio(times, 'without', 'with'):.2f}" for times in measured]
        rows.append([way, place, form, *cells])
    return "### Each way through the block against the block without it\n\n" + tabulate(
        rows, ["way", "place", "form", "inference", "training"],
        tablefmt="github", disable_numparse=True,
    )  # fmt: skip
