#!/usr/bin/env python
"""Export a model to TorchScript or ONNX, or its weights to safetensors, and check each file."""

from nl_detectron.commands.export import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
