#!/usr/bin/env python
"""Write a trained model and its parts as TorchScript or ONNX, or its weights as safetensors, and
check each file against it."""

from nl_detectron.commands.export import main
from nl_detectron.utils.errors import run_script

if __name__ == "__main__":
    run_script(main)
