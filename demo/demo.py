#!/usr/bin/env python
"""Draw what a model finds in images, videos or a webcam, or the classes that it gives videos."""

from nl_detectron.commands.demo import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
