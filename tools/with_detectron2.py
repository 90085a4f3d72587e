#!/usr/bin/env python3
"""Run a command with the Detectron2 of a checkout, which needs no build and stays unchanged.

The checkout's Python code comes first on PYTHONPATH, through a temporary folder of links in which
the configs are at the place that Detectron2's setup.py gives them. No compiled part is built.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def link_package(checkout: Path, folder: Path) -> None:
    """Link ``folder/detectron2`` to the package in `checkout`, and add ``model_zoo/configs``.

    Raises FileNotFoundError if `checkout` is not one of Detectron2.
    """
    source, configs = checkout.resolve() / "detectron2", checkout.resolve() / "configs"
    for path in (source / "model_zoo", configs):
        if not path.is_dir():
            raise FileNotFoundError(f"{checkout} is not a checkout of Detectron2: no {path}")
    target = folder / "detectron2"
    others = shutil.ignore_patterns("configs", "__pycache__")
    shutil.copytree(source, target, copy_function=os.symlink, ignore=others)
    (target / "model_zoo/configs").symlink_to(configs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder with Detectron2's repository")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="command and its arguments")
    args = parser.parse_args()
    if not args.command:
        parser.error("no command given")
    with tempfile.TemporaryDirectory() as folder:
        try:
            link_package(args.checkout, Path(folder))
        except FileNotFoundError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        print(f"with the Detectron2 of {args.checkout}", flush=True)
        return subprocess.run(args.command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
