#!/usr/bin/env python
"""Draw where a model's non-local blocks look, in images or in videos."""

from nl_detectron.commands.attention import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
