#!/usr/bin/env python
"""Draw predictions of a model on images, videos or a webcam."""

from nl_detectron.commands.demo import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
