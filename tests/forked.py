"""Several processes of one run, forked to save the seconds of importing everything again."""

import functools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist
from detectron2.utils import comm

_FRESH = "NL_DETECTRON_FRESH_PROCESS"


def in_fresh_process(test: Callable[..., None]) -> Callable[..., None]:
    """Let pytest run `test` in a process of its own: torch's autograd refuses to run after a fork
    where an earlier test has started its threads."""

    @functools.wraps(test)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        if _FRESH in os.environ:
            test(*args, **kwargs)
            return
        node = os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", node],
            cwd=Path(__file__).resolve().parent.parent,
            env={**environment, _FRESH: "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout

    return wrapped


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
