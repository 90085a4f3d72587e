#!/usr/bin/env python
"""Train and evaluate a model from a YAML or LazyConfig (.py) file."""

from nl_detectron.commands.train import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
