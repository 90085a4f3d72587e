"""Time and memory: whole models with and without blocks, and the operation against the formula.

Runs on the CPU (float32, one thread) and, where there is one, on a CUDA device (float32 and
bfloat16). Compare ratios, not seconds: both sides run in turn, in one process.
"""

import argparse
import ctypes
import datetime
import gc
import math
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from nl_detectron import model_zoo
from nl_detectron.layers import (
    PAIRWISE_FORMS,
    NonLocalBlock,
    explicit_nonlocal,
    nonlocal_operation,
)

SIZES = (196, 1050, 4200, 16800)  # positions of x
GROWTH = (1050, 16800)
WIDTHS = (256, 512)
WIDE_SIZES = (4200, 16800)  # the wider inner width is measured here only
BLOCK_CHANNELS, BLOCK_SIZE = 512, (50, 84)
ROUNDS, LARGE_ROUNDS = 5, 3  # the second from LARGE positions on
MODEL_ROUNDS = 7
LARGE = 16800
SHORTEST = 0.02  # seconds; a shorter run is repeated to fill them
EXPLICIT_MAPS = 5  # N x M float32 maps that must be free before the explicit form is tried

METHOD = """\
A ratio is explicit / ours: above 1, ours is faster. Each is the median over rounds; in a round both
sides run once, in turn. Training is forward and backward with all gradients; forward is the first
part of that. N and M are the positions of x and of the (subsampled) x̂, E the inner channels; the
Gaussian form compares 2E channels, with N = M those of one tensor. Batch 1, tensors laid out as
`NonLocalBlock` has them. Whole models run with and without blocks in turn, with the same weights;
a training step is forward, backward and update, and "time" is the median over rounds of what the
blocks add. The explicit side is `explicit_nonlocal`; for concatenation that is a map
of `a_i + b_j`, already far less than the 2E x N x M tensor of common implementations.

CPU times are the process's CPU seconds on one thread, so what others run on the machine counts
little. Extra memory is the peak beyond inputs, result and gradients, each measured in a process of
its own: on the CPU the high-water mark of its resident memory (everything counts, library buffers
too; good to about 1 MB), on CUDA that of torch's allocator. "does not fit" says that the machine
had too little free memory for the explicit form.
"""

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


def free_memory(device: str) -> int:
    """Bytes that are free on `device`."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


# ------------------------------------------------------------------------------------------ time
def now(device: str) -> float:
    """Seconds: of this process on a CPU, on the clock once the work is done on CUDA."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


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


# ---------------------------------------------------------------------------------------- memory
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


def start_peak(device: str) -> int | None:
    """Start the high-water mark anew; bytes in use now, None if the system does not tell."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if not Path("/proc/self/clear_refs").exists():
        return None
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 65536)  # M_MMAP_THRESHOLD: give memory back as soon as it is freed
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def peak_since_start(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")


def run_once(case: Case, name: str, training: bool) -> None:
    leaves, grad, call = case.inputs()
    result = call(OPERATIONS[name])
    if training:
        torch.autograd.grad(result, leaves, grad)


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def in_own_process(function: Callable, *args) -> int | None:
    # A server that has imported torch, and nothing more, forks each process: fresh, but at once.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["nl_detectron.layers"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


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


# ---------------------------------------------------------------------------------------- tables
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


def block_table(rounds: int, device: str, dtype: torch.dtype) -> str:
    """The whole block, against the explicit form in it and against its matrix products alone."""
    rows = []
    for form in PAIRWISE_FORMS:
        block = NonLocalBlock(BLOCK_CHANNELS, pairwise=form, subsample=1)
        block.to(device=device, dtype=dtype)
        shape = (1, BLOCK_CHANNELS, *BLOCK_SIZE)
        x = torch.randn(shape, device=device, dtype=dtype).relu_().requires_grad_()
        leaves, grad = [x, *block.parameters()], torch.randn_like(x)
        forwards = {"ours": block, "explicit": lambda x, b=block: explicit_block(b, x)}
        if form != "concatenation":  # ours has none but those of its convolutions
            forwards["products"] = lambda x, b=block: matrix_products(b, x)
        steps = {
            name: partial(step_of_block, device, forward, x, leaves, grad)
            for name, forward in forwards.items()
        }
        alternate(steps, 1)  # warm up
        times = alternate(steps, rounds)
        products = "-"
        if "products" in times:
            products = f"{1 / float(ratio(times, 1, slow='products')):.2f}"
        rows.append([form, ratio(times, 0), ratio(times, 1), products,
                     f"{1e3 * median_time(times['ours'], 1):.1f}",
                     attention_kernel(block, x) if device == "cuda" else "-"])  # fmt: skip
    height, width = BLOCK_SIZE
    return (
        f"### The whole block: {BLOCK_CHANNELS} channels, {height}x{width}, no subsampling, BN\n\n"
        + tabulate(
            rows,
            ["form", "forward, ratio", "training, ratio", "training, ours / matrix products alone",
             "training, ms", "attention kernel"],
            tablefmt="github", disable_numparse=True,
        )
    )  # fmt: skip


def step_of_block(
    device: str, forward: Callable[[Tensor], Tensor], x: Tensor, leaves: list[Tensor], grad: Tensor
) -> tuple[float, float]:
    runs_of = [leaf for leaf in leaves if leaf.requires_grad]
    start = now(device)
    result = forward(x)
    forward_time = now(device) - start
    torch.autograd.grad(result, runs_of, grad, allow_unused=True)
    return forward_time, now(device) - start


def explicit_block(block: NonLocalBlock, x: Tensor) -> Tensor:
    """What `block` computes without subsampling, by equations 1 and 6 as they stand."""
    weights = block.attention_map(x)
    g = block.g(x).flatten(2).transpose(1, 2)
    y = (weights @ g.to(weights.dtype)).to(x.dtype)
    return x + block.norm(block.out(y.transpose(1, 2).unflatten(2, x.shape[2:])))


def matrix_products(block: NonLocalBlock, x: Tensor) -> Tensor:
    """The block's matrix products and nothing else: no softmax, norm or sum.

    Dot product has its cheap order of multiplication.
    """
    x = x.flatten(2)
    theta, phi = (
        (x, x)
        if block.pairwise == "gaussian"
        else (conv.weight.flatten(1) @ x for conv in (block.theta, block.phi))
    )
    g = block.g.weight.flatten(1) @ x
    if block.pairwise == "dot_product":
        y = (g @ phi.transpose(1, 2)) @ theta
    else:
        y = g @ (phi.transpose(1, 2) @ theta)
    return (block.out.weight.flatten(1) @ y).unflatten(2, BLOCK_SIZE)


def attention_kernel(block: NonLocalBlock, x: Tensor) -> str:
    """The name of the attention operator that a forward pass of `block` ran."""
    with torch.no_grad(), torch.profiler.profile() as profile:
        block(x)
    names = {event.key for event in profile.key_averages()}
    found = sorted(name for name in names if name.startswith("aten::_scaled_dot_product_"))
    return ", ".join(name.removeprefix("aten::_scaled_dot_product_") for name in found) or "-"


# ---------------------------------------------------------------------------------- whole models
@dataclass(frozen=True, kw_only=True)
class Twins:
    """A part of a model with blocks, and the same without: two configs of the zoo.

    `part` takes the model apart; `inputs` makes what the part is run on, on a device.
    """

    name: str
    with_blocks: str
    without: str
    part: Callable[[nn.Module], nn.Module]
    inputs: Callable[[str], Any]

    def build(self, blocks: bool, device: str) -> nn.Module:
        """The part; the twins have the same weights, and blocks start as the identity."""
        cfg = model_zoo.get_config(self.with_blocks if blocks else self.without)
        cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
        torch.manual_seed(0)
        model = build_model(cfg)
        if blocks:
            model.load_state_dict(build_weights(self.without, device), strict=False)
        return self.part(model)


def build_weights(config: str, device: str) -> dict[str, Tensor]:
    cfg = model_zoo.get_config(config)
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    torch.manual_seed(0)
    return build_model(cfg).state_dict()


class _Layers(nn.Module):
    """A keypoint head up to its heatmaps, without the losses."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head.layers(x)


def image_batch(device: str) -> list[dict]:
    """An image of 800 x 1333 pixels with five objects, as a data loader gives it."""
    random = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, 800, 1333), generator=random, dtype=torch.uint8)
    corners = torch.rand(5, 2, generator=random) * torch.tensor([900.0, 400.0])
    boxes = torch.cat([corners, corners + 300], dim=1)
    objects = Instances((800, 1333), gt_boxes=Boxes(boxes), gt_classes=torch.arange(5))
    objects.gt_masks = BitMasks(torch.ones(5, 800, 1333, dtype=torch.bool))
    return [{"image": image, "instances": objects, "height": 800, "width": 1333}]


MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_{}1x.yaml"
KEYPOINT_RCNN = "COCO-Keypoints/keypoint_rcnn_R_50_FPN_{}1x.yaml"
TWINS = (
    Twins(
        name="R50-FPN backbone, 800x1344, 1 block",
        with_blocks=MASK_RCNN.format("NL_"),
        without=MASK_RCNN.format(""),
        part=lambda model: model.backbone,
        inputs=lambda device: torch.rand(1, 3, 800, 1344, device=device),
    ),
    *(
        Twins(
            name=f"keypoint head, {regions} regions, 4 blocks",
            with_blocks=KEYPOINT_RCNN.format("NL_head_"),
            without=KEYPOINT_RCNN.format(""),
            part=lambda model: _Layers(model.roi_heads.keypoint_head),
            inputs=lambda device, n=regions: torch.rand(
                n, 256, 14, 14, device=device, requires_grad=True
            ),
        )
        for regions in (20, 100)
    ),
    Twins(
        name="Mask R-CNN R50-FPN, complete, 1 block",
        with_blocks=MASK_RCNN.format("NL_"),
        without=MASK_RCNN.format(""),
        part=lambda model: model,
        inputs=image_batch,
    ),
)


def run_model(model: nn.Module, inputs: Any, training: bool, dtype: torch.dtype) -> None:
    """An inference, or a training step: forward, backward, update by SGD."""
    model.train(training)
    device = next(model.parameters()).device.type
    half = torch.autocast(device, dtype, enabled=dtype != torch.float32)
    with torch.set_grad_enabled(training), half, EventStorage():
        result = model(inputs)
    if not training:
        return
    results = result.values() if isinstance(result, dict) else [result]
    sum(value.float().mean() for value in results).backward()
    parameters = [p for p in model.parameters() if p.requires_grad]
    torch.optim.SGD(parameters, lr=0.0, momentum=0.9).step()
    model.zero_grad()


def time_twins(
    twins: Twins, training: bool, rounds: int, device: str, dtype: torch.dtype
) -> dict[str, list[float]]:
    """Seconds of both, in turn."""
    inputs = twins.inputs(device)
    models = {"with": twins.build(True, device), "without": twins.build(False, device)}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            start = now(device)
            run_model(model, inputs, training, dtype)
            times[name].append(now(device) - start)
            gc.collect()
    return {name: values[1:] for name, values in times.items()}  # the first warms up


def model_memory(
    number: int, blocks: bool, training: bool, device: str, dtype: torch.dtype
) -> int | None:
    """Peak bytes beyond the model and its input; to be called once in a process."""
    torch.set_num_threads(1)
    twins = TWINS[number]
    inputs, model = twins.inputs(device), twins.build(blocks, device)
    gc.collect()
    before = start_peak(device)
    if before is None:
        return None
    run_model(model, inputs, training, dtype)
    return peak_since_start(device) - before


def model_table(rounds: int, device: str, dtype: torch.dtype) -> str:
    rows = []
    for number, twins in enumerate(tqdm(TWINS, desc=f"models, {device} {dtype}", file=sys.stderr)):
        for training in (False, True):
            times = time_twins(twins, training, rounds, device, dtype)
            more = statistics.median(
                a / b for a, b in zip(times["with"], times["without"], strict=True)
            )
            peaks = [
                in_own_process(model_memory, number, blocks, training, device, dtype)
                for blocks in (False, True)
            ]
            memory = ["not measured" if p is None else f"{p / 1e6:.0f}" for p in peaks]
            seconds = [f"{statistics.median(times[n]):.3f}" for n in ("without", "with")]
            rows.append([
                twins.name, "training step" if training else "inference", *seconds,
                f"{100 * (more - 1):+.1f} %", *memory,
            ])  # fmt: skip
    return "### Whole models, with and without blocks\n\n" + tabulate(
        rows,
        ["model", "", "without, s", "with, s", "time", "peak without, MB", "peak with, MB"],
        tablefmt="github", disable_numparse=True,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ main
def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def report(quick: bool) -> Iterator[str]:
    """The parts of the report, as Markdown, each as soon as it is there."""
    command = shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]])
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    yield (
        "# Benchmarks\n\n"
        f"{datetime.date.today()}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"load of the machine at the start {load}. Command: `{command}`\n\n{METHOD}"
    )
    runs = [("cpu", torch.float32)]
    if torch.cuda.is_available():
        runs += [("cuda", torch.float32), ("cuda", torch.bfloat16)]
    sizes, rounds = (SIZES[:2], 3) if quick else (SIZES, ROUNDS)
    for device, dtype in runs:
        yield f"## {device.upper()}, {str(dtype).removeprefix('torch.')}: {machine(device)}"
        yield model_table(3 if quick else MODEL_ROUNDS, device, dtype)
        yield block_table(rounds, device, dtype)
        yield from operation_tables(sizes, rounds, device, dtype)
    if len(runs) == 1:
        yield "## CUDA\n\nNot measured: this machine has no CUDA device."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"only up to N = {SIZES[1]}: a few minutes, not half an hour",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the tables there too, as Markdown"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = []
    for part in report(args.quick):
        print(part, end="\n\n", flush=True)
        parts.append(part)
        if args.output:
            args.output.write_text("\n\n".join(part.rstrip() for part in parts) + "\n", "utf-8")


if __name__ == "__main__":
    main()
