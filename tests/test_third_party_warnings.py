"""Warnings about other packages' code are hidden by scripts, and by nothing else."""

import subprocess
import sys

import pytest
import tiny_run

SCRIPT = """
import logging, multiprocessing, warnings
from nl_detectron.utils.errors import run_script
import torch
if __name__ == "__main__":
    filters = [(str(message), kind.__name__) for _, message, kind, *_ in warnings.filters]
    assert not any("script" in message for message, _ in filters), "the import has left its filter"
    assert any(kind == "TracerWarning" for _, kind in filters), "the import has removed torch's"
logging.basicConfig()

def warn():
    torch.meshgrid(torch.zeros(1), torch.zeros(1))
    torch.jit.script(torch.nn.Identity())
    warnings.warn("of the user's own code")
    logging.getLogger("torch.utils.cpp_extension").warning("No CUDA runtime is found, using X")
    logging.getLogger("torch.utils.cpp_extension").warning("something else")

def main():
    warn()
    child = multiprocessing.get_context("spawn").Process(target=warn)
    child.start()
    child.join()

if __name__ == "__main__":
    run_script(main)
"""


@pytest.mark.parametrize("options", [[], ["-W", "default"]])
def test_scripts_hide_warnings_in_all_processes(options: list[str], tmp_path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, *options, str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        # Scripts that ran in this process have left filters for those that it starts.
        env=tiny_run.whole_environment() | {"PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    hidden = 2 if options else 0  # with filters of the user's own, in both processes
    assert done.stderr.count("torch.meshgrid") == hidden
    assert done.stderr.count("`torch.jit.script` is deprecated") >= hidden
    assert bool(options) == ("`torch.jit.script` is deprecated" in done.stderr)
    assert done.stderr.count("UserWarning: of the user's own code") == 2
    assert done.stderr.count("something else") == 2
    assert done.stderr.count("No CUDA runtime") == 1  # logged: hidden here, not where no run starts
