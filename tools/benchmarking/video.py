"""I3D networks with non-local blocks, next to explicit maps in them and to no blocks."""

import contextlib
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch
from detectron2.modeling import build_model
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from nl_detectron import model_zoo
from nl_detectron.layers import explicit_nonlocal, nonlocal_block

from .measure import alternate, in_own_process, peak, ratio, seconds
from .models import run_model

BLOCKS = {  # residual blocks of res2 to res5 that a block follows (paper, Table 2c)
    0: [[], [], [], []],
    5: [[], [1, 3], [1, 3, 5], []],
    10: [[], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5], []],
}
CONFIGS = {32: "Kinetics/i3d_R_50_32x2.yaml", 128: "Kinetics/i3d_R_50_128x1.yaml"}
CROP = 224
ROUNDS = 3  # a round is minutes of one thread
# Blocks, and whether their maps are explicit.
VARIANTS = ((0, False), (5, False), (5, True), (10, False), (10, True))
Times = dict[tuple[int, bool], list[float]]


@contextmanager
def explicit_maps() -> Iterator[None]:
    """Blocks run `explicit_nonlocal` in the paper's order of multiplication and keep its map."""

    with (
        mock.patch.object(nonlocal_block, "nonlocal_operation", explicit_nonlocal),
        mock.patch.object(nonlocal_block, "cheapest_order", return_value="positions"),
    ):
        yield


def build(frames: int, blocks: int, device: str) -> nn.Module:
    cfg = model_zoo.get_config(CONFIGS[frames])
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = device, ""
    cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = BLOCKS[blocks]
    torch.manual_seed(0)
    return build_model(cfg).backbone


def run(model: nn.Module, clip: Tensor, explicit: bool, training: bool, dtype: torch.dtype) -> None:
    with explicit_maps() if explicit else contextlib.nullcontext():
        run_model(model, clip, training, dtype)


def clip_of(frames: int, device: str) -> Tensor:
    return torch.rand(1, 3, frames, CROP, CROP, device=device)


def time_variants(
    frames: int, training: bool, rounds: int, device: str, dtype: torch.dtype
) -> Times:
    """Measure seconds of every variant, in turn."""
    clip = clip_of(frames, device)
    models = {blocks: build(frames, blocks, device) for blocks in BLOCKS}

    def step(blocks: int, explicit: bool) -> float:
        return seconds(lambda: run(models[blocks], clip, explicit, training, dtype), device)

    return alternate({variant: partial(step, *variant) for variant in VARIANTS}, rounds)


def peak_memory(
    frames: int, blocks: int, explicit: bool, training: bool, device: str, dtype: torch.dtype
) -> int | None:
    """Measure peak bytes beyond the model and its input; see `peak`."""
    torch.set_num_threads(1)
    clip, model = clip_of(frames, device), build(frames, blocks, device)
    return peak(lambda: run(model, clip, explicit, training, dtype), device)


def video_table(rounds: int, device: str, dtype: torch.dtype) -> str:
    rows = []
    for frames in tqdm(CONFIGS, desc=f"video, {device} {dtype}", file=sys.stderr):
        for training in (False, True):
            times = time_variants(frames, training, rounds, device, dtype)
            peaks = {
                variant: in_own_process(peak_memory, frames, *variant, training, device, dtype)
                for variant in VARIANTS
            }
            for blocks in filter(None, BLOCKS):
                rows.append([
                    f"I3D R50, {frames} frames, {blocks} blocks",
                    "forward + backward" if training else "forward",
                    *time_cells(times, blocks), *memory_cells(peaks, blocks),
                ])  # fmt: skip
    return (
        f"### Video networks: one clip of {CROP}x{CROP}, median of {rounds} rounds\n\n"
        "A ratio is explicit / ours of the whole network.\n\n"
        + tabulate(
            rows,
            ["network", "", "without, s", "ours, s", "explicit, s", "ratio",
             "peak without, MB", "ours adds, MB", "explicit adds, MB", "share"],
            tablefmt="github", disable_numparse=True,
        )
    )  # fmt: skip


def time_cells(times: Times, blocks: int) -> list[str]:
    variants = (0, False), (blocks, False), (blocks, True)
    medians = [f"{statistics.median(times[variant]):.2f}" for variant in variants]
    return [*medians, f"{ratio(times, variants[2], variants[1]):.2f}"]


def memory_cells(peaks: dict[tuple[int, bool], int | None], blocks: int) -> list[str]:
    twin, ours, explicit = (peaks[v] for v in ((0, False), (blocks, False), (blocks, True)))
    if twin is None or ours is None or explicit is None:
        return ["not measured", "-", "-", "-"]
    share = f"{100 * (ours - twin) / (explicit - twin):.0f} %" if explicit > twin + 1e6 else "-"
    return [*(f"{b / 1e6:.0f}" for b in (twin, ours - twin, explicit - twin)), share]
