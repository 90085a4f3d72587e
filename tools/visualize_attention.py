#!/usr/bin/env python
"""Draw the attention weights of a model's non-local blocks on images or videos."""

from nl_detectron.commands.attention import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
