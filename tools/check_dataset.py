#!/usr/bin/env python
"""Find problems in datasets of images or videos."""

from nl_detectron.commands.check import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
