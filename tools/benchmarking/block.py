"""The whole block against a plain reading of the usual implementation."""

import math
import statistics
import sys
from functools import partial

import torch
from tabulate import tabulate
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from nl_detectron.layers import PAIRWISE_FORMS, NonLocalBlock

from .measure import alternate, ratio, seconds

LONG_ROUNDS = 3  # of the usual concatenation, which takes 30 times as long as ours
SHORTEST = 0.05  # seconds; a shorter run is repeated to fill them
MAX_PAIRS = 2**29  # elements of the usual concatenation's (N, 2D, P, M) tensor, 2 GB in float32
# Inputs (N, C, *spatial) where the zoo's configs have blocks, and the stride of the pooling.
PLACES: dict[str, tuple[tuple[int, ...], int]] = {
    "res4 at 800x1344, subsampled": ((1, 1024, 50, 84), 2),
    "res4 at 800x1344, not subsampled": ((1, 1024, 50, 84), 1),
    "keypoint head, 100 regions": ((100, 512, 14, 14), 2),
    "video res4, 8 clips of 4x14x14": ((8, 1024, 4, 14, 14), 2),
    "video res4, 16x14x14": ((1, 1024, 16, 14, 14), 2),
    "video res3, 16x28x28": ((1, 512, 16, 28, 28), 2),
}


class UsualBlock(nn.Module):
    """The usual implementation: 1x1 convolutions, the map in memory, batch norm.

    It has the weights of `block` and computes the same output.
    """

    def __init__(self, block: NonLocalBlock) -> None:
        super().__init__()
        self.block = block
        norm = nn.BatchNorm3d if block.dims == 3 else nn.BatchNorm2d
        self.norm = norm(block.in_channels).to(block.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        x_hat = x
        if block.subsample > 1 and block.dims == 3:
            x_hat = F.max_pool3d(x, (1, block.subsample, block.subsample), ceil_mode=True)
        elif block.subsample > 1:
            x_hat = F.max_pool2d(x, block.subsample, ceil_mode=True)
        theta, phi = x.flatten(2), x_hat.flatten(2)
        if block.pairwise != "gaussian":
            theta, phi = block.theta(x).flatten(2), block.phi(x_hat).flatten(2)
        positions, keys = theta.shape[2], phi.shape[2]
        if block.pairwise == "concatenation":
            pairs = torch.cat([
                theta.unsqueeze(3).expand(-1, -1, -1, keys),
                phi.unsqueeze(2).expand(-1, -1, positions, -1),
            ], dim=1)  # fmt: skip
            weights = F.conv2d(pairs, block.w_f.view(1, -1, 1, 1)).squeeze(1).relu() / keys
        else:
            weights = theta.transpose(1, 2) @ phi
            if block.pairwise == "dot_product":
                weights = weights / keys
            else:
                weights = F.softmax(weights * theta.shape[1] ** -0.5, dim=-1)
        y = weights @ block.g(x_hat).flatten(2).transpose(1, 2)
        y = y.transpose(1, 2).contiguous().view(*y.shape[::2], *x.shape[2:])
        return x + self.norm(block.out(y))


def make_block(form: str, shape: tuple[int, ...], subsample: int) -> NonLocalBlock:
    return NonLocalBlock(shape[1], pairwise=form, subsample=subsample, dims=len(shape) - 2)


def step(module: nn.Module, x: Tensor, grad: Tensor, training: bool) -> float:
    """Measure seconds of an inference, or of a forward and backward pass."""
    module.train(training)

    def run() -> None:
        with torch.set_grad_enabled(training):
            z = module(x)
        if training:
            torch.autograd.grad(z, [x, *module.parameters()], grad, allow_unused=True)

    return seconds(run, x.device.type, shortest=SHORTEST)


def compare(
    modules: dict[str, nn.Module], shape: tuple[int, ...], training: bool, rounds: int,
    device: str = "cpu", dtype: torch.dtype = torch.float32,
) -> dict[str, list[float]]:  # fmt: skip
    x = torch.randn(shape, device=device, dtype=dtype).relu_().requires_grad_(training)
    grad = torch.randn(shape, device=device, dtype=dtype)
    return alternate(
        {name: partial(step, module, x, grad, training) for name, module in modules.items()},
        rounds,
    )


def block_table(rounds: int, device: str, dtype: torch.dtype) -> str:
    rows = []
    cases = [(place, form) for place in PLACES for form in PAIRWISE_FORMS]
    for place, form in tqdm(cases, desc=f"{device} {dtype}", file=sys.stderr):
        shape, subsample = PLACES[place]
        block = make_block(form, shape, subsample).to(device=device, dtype=dtype)
        modules: dict[str, nn.Module] = {"ours": block, "usual": UsualBlock(block)}
        pairs = shape[0] * (math.prod(shape[2:]) // subsample) ** 2  # N P M
        if form == "concatenation" and shape[1] * pairs > MAX_PAIRS:
            modules.pop("usual")
        several = min(rounds, LONG_ROUNDS) if form == "concatenation" else rounds
        cells = []
        for training in (False, True):
            times = compare(modules, shape, training, several, device, dtype)
            cells += [f"{ratio(times, 'usual', 'ours'):.2f}" if "usual" in times else "-",
                      f"{1e3 * statistics.median(times['ours']):.1f}"]  # fmt: skip
        rows.append([place, form, *cells])
    return "### The whole block against the usual implementation\n\n" + tabulate(
        rows,
        ["place", "form", "inference, ratio", "inference, ms", "training, ratio", "training, ms"],
        tablefmt="github", disable_numparse=True,
    )  # fmt: skip
