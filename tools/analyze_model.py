#!/usr/bin/env python
"""Count a model's parameters and multiply-adds, with and without its non-local blocks."""

from nl_detectron.commands.analyze import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
