"""Time and memory: whole models with and without blocks, the block alone, and loading of clips.

Runs on the CPU (float32, one thread) and, where there is one, on a CUDA device (float32 and
bfloat16). Compare ratios, not seconds: both sides run in turn, in one process.
"""

import nl_detectron  # noqa: F401  (before detectron2: no warnings of its import are shown)

# isort: split
import argparse
import datetime
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from benchmarking import block, loading, models, ways

SECTIONS = ("models", "block", "loading")

METHOD = """\
Each ratio is the median over rounds; in a round both sides run once, in turn. The whole block is
compared with a plain reading of the usual implementation: usual / ours, above 1 ours is faster.
Training is forward and backward with all gradients; inference is without gradients. Whole models
run with and without blocks in turn, with the same weights; a training step is forward, backward and
update, and "time" is the median over rounds of what the blocks add. Batch 1.

CPU times are the process's CPU seconds on one thread, so what others run on the machine counts
little; only loading, which several processes do, is timed by the clock. A peak is memory beyond the
model and its input, measured in a process of its own: on the CPU the high-water mark of its
resident memory (everything counts, library buffers too; good to about 1 MB), on CUDA that of
torch's allocator.
"""


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    name = found[1] if found else platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"


def report(args: argparse.Namespace) -> Iterator[str]:
    """Yield the parts of the report, as Markdown, as they are measured."""
    command = shlex.join(["python", "tools/benchmark.py", *sys.argv[1:]])
    yield (
        "# Benchmarks\n\n"
        f"{datetime.date.today()}, torch {torch.__version__}, Python {platform.python_version()}. "
        f"Command: `{command}`\n\n{METHOD}"
    )
    rounds = 1 if args.quick else 7
    runs = [("cpu", torch.float32)]
    if torch.cuda.is_available():
        runs += [("cuda", torch.float32), ("cuda", torch.bfloat16)]
    for device, dtype in runs:
        yield f"## {device.upper()}, {str(dtype).removeprefix('torch.')}: {machine(device)}"
        if "models" in args.sections:
            yield models.model_table(rounds, device, dtype)
        if "block" in args.sections:
            yield block.block_table(rounds, device, dtype)
            yield ways.ways_table(rounds, device, dtype)
        if "loading" in args.sections and device == "cpu":
            yield loading.loading_table(args.quick)
    if len(runs) == 1:
        yield "## CUDA\n\nNot measured: this machine has no CUDA device."


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="all by default"
    )
    parser.add_argument("--quick", action="store_true", help="one round")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for part in report(parser.parse_args()):
        print(part, end="\n\n", flush=True)


if __name__ == "__main__":
    main()
