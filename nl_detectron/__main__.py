"""The command line ``nl-detectron``."""

import sys
from importlib import import_module

from .utils.errors import UserError, nearest, run_script

COMMANDS = {
    "train": "train and evaluate a model",
    "demo": "draw predictions on images, videos or a webcam",
    "attention": "draw attention weights on images or videos",
    "analyze": "count parameters and multiply-adds of a model",
    "check": "find problems in datasets",
    "export": "export a model to TorchScript, ONNX or safetensors",
    "reproduce": "train a table of the paper and compare the results",
    "zoo": "list the configs of the model zoo",
}


def main() -> None:
    """Run the command line of this process and exit with its status."""
    run_script(_run)


def _run() -> int | None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        lines = [f"  {command:11}{purpose}" for command, purpose in COMMANDS.items()]
        print("usage: nl-detectron COMMAND ...\n\ncommands:", *lines, sep="\n")
        print("\nnl-detectron COMMAND --help lists the arguments of a command.")
        return 0
    if name not in COMMANDS:
        guess = nearest(name, list(COMMANDS))
        raise UserError(f"expected a command ({', '.join(COMMANDS)}), got '{name}'.{guess}")
    sys.argv[:2] = [f"nl-detectron {name}"]  # the program's name for argparse
    return import_module(f".commands.{name}", __package__).main()


if __name__ == "__main__":
    main()
