"""The command line ``nl-detectron``."""

import argparse
import sys
from importlib import import_module

from .utils.errors import run_script

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
    lines = [f"  {command:11}{purpose}" for command, purpose in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="nl-detectron",
        usage="nl-detectron COMMAND ...",
        epilog="\n".join(["commands:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        choices=COMMANDS,
        metavar="COMMAND",
        help="nl-detectron COMMAND --help lists its arguments",
    )
    command = parser.parse_args(sys.argv[1:2] or ["--help"]).command
    sys.argv[:2] = [f"nl-detectron {command}"]  # the program's name for argparse
    return import_module(f".commands.{command}", __package__).main()


if __name__ == "__main__":
    main()
