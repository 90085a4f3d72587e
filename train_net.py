#!/usr/bin/env python
"""Train and evaluate: Detectron2's command line, for YAML and LazyConfig files."""

from nl_detectron.commands.train import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
