"""The operation against the explicit form."""

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from nl_detectron.layers import PAIRWISE_FORMS, explicit_nonlocal, nonlocal_operation

from .measure import alternate, free_memory, in_own_process, peak, ratio, seconds

SIZES = (196, 1050, 4200, 16800)  # positions of x
WIDTHS = (256, 512)
WIDE_SIZES = (4200, 16800)  # the wider inner width is measured here only
ROUNDS, LARGE_ROUNDS = 5, 3  # the second from LARGE positions on
LARGE = 16800
SHORTEST = 0.02  # seconds; a shorter run is repeated to fill them
EXPLICIT_MAPS = 5  # N x M float32 maps that must be free before the explicit form is tried
Operation = Callable[..., Tensor]
OPERATIONS: dict[str, Operation] = {"ours": nonlocal_operation, "explicit": explicit_nonlocal}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size of the operation, on one device, without or with its backward pass."""

    form: str
    positions: int
    keys: int
    width: int
    training: bool = False
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def inputs(self) -> tuple[list[Tensor], Tensor, Callable[[Operation], object]]:
        """Return the tensors that need gradients, a gradient of the result, and the run itself."""
        compared = 2 * self.width if self.form == "gaussian" else self.width
        theta = self._rows(self.positions, compared)
        shared = self.form == "gaussian" and self.keys == self.positions
        phi = theta if shared else self._rows(self.keys, compared)
        g = self._rows(self.keys, self.width)
        leaves = [theta, g] if shared else [theta, phi, g]
        w_f = None
        if self.form == "concatenation":
            w_f = torch.randn(2 * compared, device=self.device, dtype=self.dtype)
            leaves.append(w_f)
        for leaf in leaves:
            leaf.requires_grad_()
        grad = self._rows(self.positions, self.width)

        def run(operation: Operation) -> object:
            with torch.set_grad_enabled(self.training):
                result = operation(theta, phi, g, pairwise=self.form, w_f=w_f)
            return result, torch.autograd.grad(result, leaves, grad) if self.training else ()

        return leaves, grad, run

    def explicit_fits(self) -> bool:
        return free_memory(self.device) > EXPLICIT_MAPS * 4 * self.positions * self.keys

    def _rows(self, positions: int, channels: int) -> Tensor:
        shape = (1, channels, positions)
        return torch.randn(shape, device=self.device, dtype=self.dtype).mul_(0.3).transpose(1, 2)


def time_operation(case: Case, rounds: int) -> dict[str, list[float]]:
    """Measure seconds of ours, and of the explicit form if it fits."""
    _, _, run = case.inputs()
    names = ["ours", "explicit"] if case.explicit_fits() else ["ours"]
    steps = {
        name: lambda op=OPERATIONS[name]: seconds(lambda: run(op), case.device, shortest=SHORTEST)
        for name in names
    }
    return alternate(steps, LARGE_ROUNDS if case.positions >= LARGE else rounds)


def extra_memory(case: Case, name: str) -> int | None:
    """Measure peak bytes beyond inputs, result and gradients; see `peak`."""
    torch.set_num_threads(1)
    small = replace(case, positions=8, keys=8 * case.keys // case.positions)
    small.inputs()[2](OPERATIONS[name])
    leaves, grad, run = case.inputs()
    found = peak(lambda: run(OPERATIONS[name]), case.device)
    if found is None:
        return None
    kept = sum(leaf.nbytes for leaf in leaves) if case.training else 0
    return max(found - grad.nbytes - kept, 0)


def memory_cell(case: Case) -> str:
    """Format ``ours / explicit (share)`` in MB."""
    ours = in_own_process(extra_memory, case, "ours")
    if ours is None:
        return "not measured"
    if not case.explicit_fits():
        return f"{ours / 1e6:.1f} / does not fit"
    explicit = in_own_process(extra_memory, case, "explicit")
    share = f"{100 * ours / explicit:.0f} %" if explicit > 1e6 else "-"
    return f"{ours / 1e6:.1f} / {explicit / 1e6:.1f} ({share})"


def cases(sizes: tuple[int, ...], device: str, dtype: torch.dtype) -> Iterator[Case]:
    for form in PAIRWISE_FORMS:
        for width in WIDTHS:
            for positions in sizes:
                for keys in (positions, positions // 4):
                    wide = width == WIDTHS[-1]
                    if wide and (positions not in WIDE_SIZES or keys < positions):
                        continue
                    yield Case(
                        form=form, positions=positions, keys=keys, width=width,
                        device=device, dtype=dtype,
                    )  # fmt: skip


def operation_table(sizes: tuple[int, ...], rounds: int, device: str, dtype: torch.dtype) -> str:
    rows = []
    progress = tqdm(list(cases(sizes, device, dtype)), desc=f"{device} {dtype}", file=sys.stderr)
    for inference in progress:
        progress.set_postfix_str(f"{inference.form} N={inference.positions} M={inference.keys}")
        both = inference, replace(inference, training=True)
        times = [time_operation(case, rounds) for case in both]
        ratios = [
            f"{ratio(t, 'explicit', 'ours'):.2f}" if "explicit" in t else "does not fit"
            for t in times
        ]
        rows.append([
            inference.form, inference.positions, inference.keys, inference.width, *ratios,
            f"{1e3 * statistics.median(times[1]['ours']):.2f}", *map(memory_cell, both),
        ])  # fmt: skip
    return "### The operation alone\n\n" + tabulate(
        rows,
        ["form", "N", "M", "E", "forward, ratio", "training, ratio", "training, ms",
         "forward, extra MB: ours / explicit", "training, extra MB: ours / explicit"],
        tablefmt="github", disable_numparse=True,
    )  # fmt: skip
