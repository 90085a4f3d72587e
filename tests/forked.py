"""Several processes of one run, without the seconds that importing everything anew would take."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist
from detectron2.utils import comm


def run_forked(count: int, function: Callable[[], None], store: Path) -> list[int]:
    """Run `function` in `count` processes that can talk to each other; return their exit codes.

    Args:
        store: a file of this run alone, which must not exist.
    """

    def in_process(rank: int) -> None:
        dist.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=count)
        comm.create_local_process_group(count)
        function()
        comm.synchronize()

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=in_process, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]
