"""``tools/reproduce.py`` as a user starts it, also killed on the way and started again."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import tiny_run

from nl_detectron.commands.reproduce import read_results


class Reproduction:
    """One command line, whose runs go to ``folder/output``.

    Args:
        arguments: ``--table`` or ``--released`` and more.
        opts: ``KEY VALUE ...`` in one text, with '' for an empty value.
        environment: besides one thread, no GPU, and this checkout's package.
    """

    def __init__(
        self, folder: Path, *arguments: object, opts: str, environment: dict[str, str]
    ) -> None:
        self.output, self._log = folder / "output", folder / "log.txt"
        values = ["" if word == "''" else word for word in opts.split()]
        line = ["tools/reproduce.py", *arguments, "--output", self.output, "--opts", *values]
        self._command = [sys.executable, *map(str, line)]
        self._environment = tiny_run.whole_environment(environment)

    def kill_in(self, row: str) -> None:
        """Start it, and kill all of its processes after the first checkpoint of `row`."""
        process = self._start()
        while not (self.output / row / "last_checkpoint").exists():
            assert process.poll() is None, self.log
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert not read_results(self.output / row, trained=True)

    def finish(self) -> None:
        """Start it, or start it again, and wait for its end."""
        assert self._start().wait(timeout=300) == 0, self.log

    @property
    def log(self) -> str:
        """What it has printed since it was started last."""
        return self._log.read_text()

    def starts(self, row: str) -> list[int]:
        """Return the iterations at which the trainings of a row have started."""
        words = "Starting training from iteration "
        lines = (self.output / row / "log.txt").read_text().splitlines()
        return [int(line.split(words)[1]) for line in lines if words in line]

    def report(self, name: str) -> list[dict[str, str]]:
        with open(self.output / name, newline="") as file:
            return list(csv.DictReader(file))

    def _start(self) -> subprocess.Popen[bytes]:
        with open(self._log, "wb") as log:
            return subprocess.Popen(
                self._command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=tiny_run.ROOT,
                env=self._environment,
                start_new_session=True,
            )
