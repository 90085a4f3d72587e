#!/usr/bin/env python
"""Train a table of the paper, or evaluate the released weights, and compare the figures."""

from nl_detectron.commands.reproduce import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
