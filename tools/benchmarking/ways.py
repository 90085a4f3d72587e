"""Each fast path of the block against the block without it."""

from collections.abc import Callable
from functools import partial
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
# The path, the place and the form; owner, name and replacement that remove the path.
WAYS: list[tuple[str, str, str, tuple[object, str, object]]] = [
    (way, place, form, (owner, name, new))
    for way, places, form, owner, name, new in (
        ("W_theta and W_z at the keys", (HEAD, VIDEO), "embedded_gaussian",
         NonLocalBlock, "_acts_on_keys", no),
        ("products in place of fused attention", (CLIP,), "gaussian",
         nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", 0),
        ("products in place of fused attention", (RES4,), "embedded_gaussian",
         nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", 0),
        ("theta (phi^T g)", (RES4_ALL,), "dot_product", nonlocal_ops, "dot_product", multiply_out),
        ("prefix sums", (RES4_ALL,), "concatenation", pair_sum, "multiplies_out", lambda *_: True),
        ("w_f within W_theta and W_phi", (RES4, HEAD), "concatenation",
         nonlocal_block, "_is_plain_conv", no),
        ("pooling by slices", (HEAD,), "embedded_gaussian",
         nonlocal_block, "_max_pool", torch_pooling),
        ("norm within W_z", (HEAD, RES4), "embedded_gaussian",
         nonlocal_block, "_is_plain_norm", no),
    )
    for place in places
]  # fmt: skip


class Without(torch.nn.Module):
    """`block` with `name` of `owner` replaced by `new`."""

    def __init__(self, block: NonLocalBlock, owner: object, name: str, new: object) -> None:
        super().__init__()
        self.block = block
        self.replace: Callable = partial(mock.patch.object, owner, name, new)

    def forward(self, x: Tensor) -> Tensor:
        with self.replace():
            return self.block(x)


def ways_table(rounds: int, device: str, dtype: torch.dtype) -> str:
    """Measure ratios of the time without a path to the time with it, in inference and training."""
    rows = []
    for way, place, form, replaced in WAYS:
        shape, subsample = PLACES[place]
        block = make_block(form, shape, subsample).to(device=device, dtype=dtype)
        modules = {"with": block, "without": Without(block, *replaced)}
        measured = [
            compare(modules, shape, training, rounds, device, dtype) for training in (False, True)
        ]
        cells = [f"{ratio(times, 'without', 'with'):.2f}" for times in measured]
        rows.append([way, place, form, *cells])
    return "### Each way through the block against the block without it\n\n" + tabulate(
        rows, ["way", "place", "form", "inference", "training"],
        tablefmt="github", disable_numparse=True,
    )  # fmt: skip
