"""The operation against the explicit form."""

import gc
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from nl_detectron.layers import (
    PAIRWISE_FORMS,
    explicit_nonlocal,
    nonlocal_operation,
)

from .measure import free_memory, in_own_process, now, peak_since_start, start_peak

SIZES = (196, 1050, 4200, 16800)  # positions of x
GROWTH = (1050, 16800)
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
    """One size of the operation, on one device."""

    form: str
    positions: int
    keys: int
    width: int
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def inputs(self) -> tuple[list[Tensor], Tensor, Callable[[Operation], Tensor]]:
        """The tensors to differentiate by, a gradient of the result, and the call itself."""
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
        return leaves, grad, lambda op: op(theta, phi, g, pairwise=self.form, w_f=w_f)

    def explicit_fits(self) -> bool:
        return free_memory(self.device) > EXPLICIT_MAPS * 4 * self.positions * self.keys

    def _rows(self, positions: int, channels: int) -> Tensor:
        shape = (1, channels, positions)
        return torch.randn(shape, device=self.device, dtype=self.dtype).mul_(0.3).transpose(1, 2)


def time_step(
    device: str, forward: Callable[[], Tensor], leaves: list[Tensor], grad: Tensor
) -> tuple[float, float]:
    """Seconds of a forward pass, and of that and its backward pass, per run."""
    runs, to_forward, start = 0, 0.0, now(device)
    while runs == 0 or now(device) - start < SHORTEST:
        begun = now(device)
        result = forward()
        to_forward += now(device) - begun
        torch.autograd.grad(result, leaves, grad)
        runs += 1
    return to_forward / runs, (now(device) - start) / runs


def alternate(
    steps: dict[str, Callable[[], tuple[float, float]]], rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """The times of each of `steps`, run in turn for so many `rounds`."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            times[name].append(step())
            gc.collect()
    return times


def ratio(times: dict[str, list[tuple[float, float]]], part: int, *, slow: str = "explicit") -> str:
    """Median over rounds of the ratio `slow` / ours; `part` is 0 for forward, 1 for training."""
    pairs = zip(times[slow], times["ours"], strict=True)
    return f"{statistics.median(s[part] / o[part] for s, o in pairs):.2f}"


def median_time(times: list[tuple[float, float]], part: int) -> float:
    return statistics.median(t[part] for t in times)


def time_operation(case: Case, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Ours, and the explicit form where it fits."""
    leaves, grad, call = case.inputs()
    names = ["ours", "explicit"] if case.explicit_fits() else ["ours"]
    steps = {
        name: lambda op=OPERATIONS[name]: time_step(case.device, lambda: call(op), leaves, grad)
        for name in names
    }
    if case.positions < LARGE:
        alternate(steps, 1)  # warm up
    return alternate(steps, LARGE_ROUNDS if case.positions >= LARGE else rounds)


def extra_memory(case: Case, name: str, training: bool) -> int | None:
    """Peak bytes beyond inputs, result and gradients; None if the system does not tell.

    To be called once in a process: what it has allocated before would be used again unseen.
    """
    torch.set_num_threads(1)
    run_once(replace(case, positions=8, keys=8 * case.keys // case.positions), name, training)
    gc.collect()
    leaves, grad, call = case.inputs()
    kept = sum(leaf.nbytes for leaf in leaves) * training
    before = start_peak(case.device)
    if before is None:
        return None
    with torch.set_grad_enabled(training):
        result = call(OPERATIONS[name])
    gradients = torch.autograd.grad(result, leaves, grad) if training else ()
    peak = peak_since_start(case.device)
    del gradients
    return max(peak - before - result.nbytes - kept, 0)


def run_once(case: Case, name: str, training: bool) -> None:
    leaves, grad, call = case.inputs()
    result = call(OPERATIONS[name])
    if training:
        torch.autograd.grad(result, leaves, grad)


def memory_cell(case: Case, training: bool) -> str:
    """``ours / explicit (share)`` in MB."""
    ours = in_own_process(extra_memory, case, "ours", training)
    if ours is None:
        return "not measured"
    if not case.explicit_fits():
        return f"{ours / 1e6:.1f} / does not fit"
    explicit = in_own_process(extra_memory, case, "explicit", training)
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


def operation_tables(
    sizes: tuple[int, ...], rounds: int, device: str, dtype: torch.dtype
) -> Iterator[str]:
    """The table of the operation alone and that of its growth."""
    rows, seconds = [], {}
    progress = tqdm(list(cases(sizes, device, dtype)), desc=f"{device} {dtype}", file=sys.stderr)
    for case in progress:
        progress.set_postfix_str(f"{case.form} N={case.positions} M={case.keys}")
        times = time_operation(case, rounds)
        seconds[case] = median_time(times["ours"], 1)
        fits = "explicit" in times
        rows.append([
            case.form, case.positions, case.keys, case.width,
            *(ratio(times, part) if fits else "does not fit" for part in (0, 1)),
            f"{1e3 * seconds[case]:.2f}",
            memory_cell(case, False), memory_cell(case, True),
        ])  # fmt: skip
    yield "### The operation alone\n\n" + tabulate(
        rows,
        ["form", "N", "M", "E", "forward, ratio", "training, ratio", "training, ms",
         "forward, extra MB: ours / explicit", "training, extra MB: ours / explicit"],
        tablefmt="github", disable_numparse=True,
    )  # fmt: skip

    if not set(GROWTH) <= set(sizes):
        return
    span = math.log(GROWTH[1] / GROWTH[0])
    rows = []
    for case, small in seconds.items():
        if case.positions != GROWTH[0]:
            continue
        larger = replace(case, positions=GROWTH[1], keys=case.keys * GROWTH[1] // GROWTH[0])
        large = next(t for c, t in seconds.items() if same_size(c, larger))
        exponent = math.log(large / small) / span
        sampling = "N" if case.keys == case.positions else "N/4"
        rows.append([case.form, sampling, case.width, f"{exponent:.2f}"])
    yield f"### Growth of training time from N = {GROWTH[0]} to {GROWTH[1]}\n\n" + tabulate(
        rows, ["form", "M", "E", "exponent"], tablefmt="github", disable_numparse=True
    )


def same_size(case: Case, wanted: Case) -> bool:
    """Are they the same but for a remainder of M, which 1050 / 4 has?"""
    return replace(case, keys=0) == replace(wanted, keys=0) and (
        abs(case.keys - wanted.keys) < GROWTH[1] // GROWTH[0]
    )
