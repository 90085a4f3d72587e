#!/usr/bin/env python3
"""Give the environment of the running Python a Detectron2, which PyPI does not have by that name.

An existing detectron2 of any build is kept. Otherwise the pure-Python copy of Detectron2 0.6 inside
the PyPI wheel LabGym 3.1.2 is installed under its own name. Either is verified in the end.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEEL = "labgym==3.1.2"
SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
VERSION = "0.6"

NOTICE = f"""\
Detectron2, copyright (c) Facebook, Inc. and its affiliates, under the Apache License 2.0
(the file LICENSE beside this one). Project: facebookresearch/detectron2.

Source: the folder LabGym/detectron2 of the PyPI wheel {WHEEL}, sha256
{SHA256}.
Nothing else of that wheel is here; LabGym itself is under another licence.

Change: LabGym's name for the package, LabGym.detectron2, is detectron2 again in every Python
file, which makes these files equal to Detectron2's own (commit 59d9fb1b, January 2024).
The compiled extension detectron2._C is not included.
"""

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"
[project]
name = "detectron2"
version = "{version}"
description = "Detectron2 is FAIR's platform for object detection and segmentation"
license = "Apache-2.0"
license-files = ["LICENSE", "NOTICE"]
dependencies = {dependencies}
[tool.hatch.build.targets.wheel]
packages = ["detectron2"]
"""


def find_detectron2() -> str | None:
    """Return a description of this environment's detectron2, or None without one."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:  # a mere folder of that name has no origin
        return None
    try:
        version = importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        version = "(without metadata)"
    return f"detectron2 {version} in {Path(spec.origin).parent}"


def pip(*arguments: str | Path) -> None:
    """Run pip, which prints what it does; end in one line if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    # pip refuses a build constraint where it builds with the backend of the environment.
    environment = {k: v for k, v in os.environ.items() if k != "PIP_BUILD_CONSTRAINT"}
    if subprocess.run(command, env=environment, check=False).returncode:
        sys.exit(f"error: pip {arguments[0]} failed, see above; run the same command again")


def install(folder: Path, sha256: str = SHA256) -> None:
    """Fetch the wheel that carries Detectron2 into `folder`, and install that part of it."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{sha256}\n", encoding="utf-8")
    # The wheel's own requirements (Python < 3.11, TensorFlow, ...) are LabGym's, not Detectron2's.
    options = ["--no-deps", "--ignore-requires-python", "--require-hashes", "--only-binary=:all:"]
    pip("install", *options, "--no-compile", "--target", folder / "wheel", "-r", requirements)

    project = folder / "project"
    shutil.copytree(folder / "wheel" / "LabGym" / "detectron2", project / "detectron2")
    for path in project.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"LabGym.detectron2", b"detectron2"))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    text = PYPROJECT.format(version=VERSION, dependencies=json.dumps(extras["detectron2"]))
    (project / "pyproject.toml").write_text(text, encoding="utf-8")
    (project / "NOTICE").write_text(NOTICE, encoding="utf-8")
    shutil.copy(ROOT / "LICENSE", project)

    backend = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip("wheel", "--no-deps", *backend, "--wheel-dir", folder, project)
    # Two renames, the metadata first: whenever this is cut off, the next run does it again.
    site_packages = Path(sysconfig.get_path("purelib"))
    staging, dist_info = site_packages / ".detectron2.staging", f"detectron2-{VERSION}.dist-info"
    for leftover in (staging, site_packages / dist_info):
        shutil.rmtree(leftover, ignore_errors=True)
    source = ["--no-deps", "--no-index", "--find-links", folder, "--target", staging]
    pip("install", *source, f"detectron2=={VERSION}")
    for name in (dist_info, "detectron2"):
        (staging / name).rename(site_packages / name)
    shutil.rmtree(staging)


def verify() -> None:
    """Run the quickstart's R-CNN, with all three heads, on the CPU."""
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")  # Detectron2 0.6 is older than the deprecations in torch
    logging.disable(logging.WARNING)
    try:
        import torch

        from nl_detectron import model_zoo

        model = model_zoo.get("quickstart.yaml", device="cpu").eval()
        with torch.no_grad():
            model([{"image": torch.zeros(3, 64, 64, dtype=torch.uint8)}])
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        sys.exit(f"error: {find_detectron2()} does not work ({reason})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only verify, install nothing")
    args = parser.parse_args()
    found = find_detectron2()
    if args.check and found is None:
        sys.exit(f"error: there is no detectron2 in this environment: run {__file__}")
    if found is None:
        with tempfile.TemporaryDirectory() as folder:
            install(Path(folder))
    print(f"{'kept' if found else 'installed'}: {find_detectron2()}", flush=True)
    verify()
    print("verified: forward pass of a small R-CNN on the CPU")


if __name__ == "__main__":
    main()
