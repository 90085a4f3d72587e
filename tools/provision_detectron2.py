#!/usr/bin/env python3
"""Give the environment of the running Python a Detectron2, which PyPI does not have by that name.

A detectron2 that is there already, of any build, is kept. Otherwise the pure-Python copy of
Detectron2 0.6 inside the PyPI wheel LabGym 3.1.2 is taken, under the name that it had before
LabGym renamed it. Either is verified in the end: imports, registries, an R-CNN's forward pass.
"""

import argparse
import base64
import csv
import errno
import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

WHEEL = "labgym==3.1.2"
WHEEL_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
FOLDER = "LabGym/detectron2/"
VERSION = "0.6"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
INSTALLER = "nl_detectron"

NOTICE = f"""\
Detectron2, copyright (c) Facebook, Inc. and its affiliates, under the Apache License 2.0
(the file LICENSE beside this one). Project: facebookresearch/detectron2.

Source: the folder {FOLDER} of the PyPI wheel {WHEEL}, sha256
{WHEEL_SHA256}.
Nothing else of that wheel is here; LabGym itself is under another licence.

Change: LabGym's name for the package, LabGym.detectron2, is detectron2 again in every Python
file, which makes these files equal to Detectron2's own (commit 59d9fb1b, January 2024).
The compiled extension detectron2._C is not included.
"""

DISK_FULL = "the disk is full: free some space (or point TMPDIR to where there is some), run again"

# What pip's output says about the failures that a person can do something about; the first wins.
CAUSES = (
    (
        r"DO NOT MATCH THE HASHES",
        "a downloaded file does not have the sha256 that is expected of it: try again, and if it"
        " stays so, do not use that file",
    ),
    (r"No space left on device|Disk quota exceeded", DISK_FULL),
    (
        r"connection broken by|Max retries exceeded|Read timed out|Name or service not known"
        r"|name resolution|Failed to establish a new connection",
        "PyPI cannot be reached: check the network and run again",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "PyPI has no {what} for this Python and platform",
    ),
)


class SetupError(Exception):
    """Something that stops the set-up, told in one line with the way out."""


def run_pip(
    arguments: Sequence[str],
    *,
    log: Path,
    python: str = sys.executable,
    env: dict[str, str] | None = None,
    on_line: Callable[[str], None] = lambda line: None,
) -> None:
    """Run pip with its output appended to `log`.

    Raises SetupError, one line that names the likely cause and `log`, when pip fails.
    """
    output = []
    command = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            output.append(line)
            on_line(line.rstrip())
    if process.returncode:
        raise SetupError(f"{likely_cause(''.join(output))} (pip's output: {log})")


def likely_cause(output: str) -> str:
    """Tell in one sentence why pip failed, from what it printed."""
    for pattern, cause in CAUSES:
        if match := re.search(pattern, output, re.IGNORECASE):
            return cause.format(**match.groupdict())
    return "pip failed"


def explain(error: Exception) -> str:
    """Return `error` in one line with the way out."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DISK_FULL
    return str(error)


def find_detectron2() -> str | None:
    """Return a description of the detectron2 that this environment has, or None without one.

    Raises SetupError for one that another installer has registered but that has no files.
    """
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("detectron2")
    # A mere folder of that name, without __init__.py, has no origin.
    place = Path(spec.origin).parent if spec and spec.origin else None
    try:
        distribution = importlib.metadata.distribution("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return f"detectron2 (without metadata) in {place}" if place else None
    if place:
        return f"detectron2 {distribution.version} in {place}"
    if (distribution.read_text("INSTALLER") or "").strip() == INSTALLER:
        return None  # interrupted between the two renames of install()
    raise SetupError(
        f"detectron2 {distribution.version} is registered in this environment, but its files are"
        f" missing: run '{sys.executable} -m pip uninstall detectron2' and then this again"
    )


def download(folder: Path, *, log: Path, sha256: str = WHEEL_SHA256) -> Path:
    """Fetch the wheel that carries Detectron2 into `folder`; pip refuses one of another hash."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{sha256}\n", encoding="utf-8")
    # The wheel's own requirements (Python < 3.11, TensorFlow, ...) are LabGym's, not Detectron2's.
    options = ["--no-deps", "--ignore-requires-python", "--require-hashes", "--only-binary=:all:"]
    target = ["--dest", str(folder), "--requirement", str(requirements)]
    run_pip(["download", *options, *target], log=log)
    return next(folder.glob("*.whl"))


def assemble(wheel: Path, target: Path) -> None:
    """Write the folders ``detectron2`` and its ``.dist-info`` under `target`, from `wheel`."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if n.startswith(FOLDER) and not n.endswith("/")]
        files = {"detectron2/" + n.removeprefix(FOLDER): archive.read(n) for n in names}
    if "detectron2/__init__.py" not in files:
        raise SetupError(f"{wheel.name} holds no Detectron2: {FOLDER}__init__.py is not in it")
    for name, content in files.items():
        if name.endswith(".py"):
            files[name] = content.replace(b"LabGym.detectron2", b"detectron2")

    files[f"{DIST_INFO}/METADATA"] = core_metadata().encode()
    files[f"{DIST_INFO}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: nl_detectron\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{DIST_INFO}/INSTALLER"] = f"{INSTALLER}\n".encode()
    files[f"{DIST_INFO}/licenses/LICENSE"] = (ROOT / "LICENSE").read_bytes()
    files[f"{DIST_INFO}/licenses/NOTICE"] = NOTICE.encode()
    files[f"{DIST_INFO}/RECORD"] = record(files, f"{DIST_INFO}/RECORD").encode()
    for name, content in files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def core_metadata() -> str:
    """Return the METADATA file; the requirements are pyproject.toml's extra ``detectron2``."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        requirements = tomllib.load(file)["project"]["optional-dependencies"]["detectron2"]
    fields = [
        "Metadata-Version: 2.4",
        "Name: detectron2",
        f"Version: {VERSION}",
        "Summary: Detectron2 is FAIR's platform for object detection and segmentation",
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "License-File: NOTICE",
        "Requires-Python: >=3.7",
        *(f"Requires-Dist: {requirement}" for requirement in requirements),
    ]
    return "\n".join(fields) + "\n\n" + NOTICE


def record(files: dict[str, bytes], own_name: str) -> str:
    """Return the RECORD file: a line with path, sha256 and size for each file."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        writer.writerow([name, f"sha256={digest}", len(content)])
    writer.writerow([own_name, "", ""])
    return lines.getvalue()


def install(wheel: Path, site_packages: Path) -> None:
    """Put Detectron2 and its metadata into `site_packages`.

    The package appears there by a rename, whole or not at all, and its metadata just before it:
    whatever moment an interruption comes at, the next run does the work again.
    """
    staging = site_packages / ".detectron2.staging"
    for leftover in (staging, site_packages / DIST_INFO):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        assemble(wheel, staging)
        for name in (DIST_INFO, "detectron2"):
            (staging / name).rename(site_packages / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def verify() -> None:
    """Import Detectron2 and run a small R-CNN with all three heads on the CPU.

    Raises SetupError when the environment's detectron2 cannot do what nl_detectron needs of it.
    """
    importlib.invalidate_caches()
    try:
        with warnings.catch_warnings():
            # Detectron2 0.6 is older than the deprecations in the torch under it.
            warnings.simplefilter("ignore")
            logging.disable(logging.WARNING)
            forward_small_rcnn()
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise SetupError(
            f"this environment's detectron2 does not work ({reason}): repair or uninstall it"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def forward_small_rcnn() -> None:
    """Build a box, mask and keypoint R-CNN from Detectron2's registries and run it once."""
    import torch
    from detectron2.config import get_cfg
    from detectron2.modeling import BACKBONE_REGISTRY, ROI_KEYPOINT_HEAD_REGISTRY, build_model

    BACKBONE_REGISTRY.get("build_resnet_backbone")
    ROI_KEYPOINT_HEAD_REGISTRY.get("KRCNNConvDeconvUpsampleHead")
    cfg = get_cfg()
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.MASK_ON = model.KEYPOINT_ON = True
    model.BACKBONE.NAME = "build_resnet_fpn_backbone"
    model.RESNETS.DEPTH = 18
    model.RESNETS.RES2_OUT_CHANNELS = 64
    model.RESNETS.NORM = "GN"  # with random weights and frozen norms the heatmaps overflow
    model.RESNETS.OUT_FEATURES = model.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    model.FPN.OUT_CHANNELS = 32
    model.RPN.IN_FEATURES = model.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    model.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256]]
    model.ROI_HEADS.NAME = "StandardROIHeads"
    model.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    model.ROI_BOX_HEAD.NUM_FC = 1
    model.ROI_BOX_HEAD.FC_DIM = 32
    model.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    model.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    model.ROI_KEYPOINT_HEAD.CONV_DIMS = [32]
    with torch.no_grad():
        image = torch.zeros(3, 64, 64, dtype=torch.uint8)
        instances = build_model(cfg).eval()([{"image": image}])[0]["instances"]
    for field in ("pred_boxes", "pred_masks", "pred_keypoints"):
        instances.get(field)


def provision(*, log: Path, site_packages: Path, sha256: str = WHEEL_SHA256) -> str:
    """Make sure that there is a detectron2, and return one line that says which and from where."""
    if existing := find_detectron2():
        return f"kept: {existing}"
    with tempfile.TemporaryDirectory() as folder:
        install(download(Path(folder), log=log, sha256=sha256), site_packages)
    return f"installed from the PyPI wheel {WHEEL}: {find_detectron2()}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only verify, install nothing")
    parser.add_argument(
        "--log",
        type=Path,
        default=Path(sys.prefix) / "provision_detectron2.log",
        help="file that pip's output is appended to (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    try:
        if args.check:
            existing = find_detectron2()
            if existing is None:
                raise SetupError(f"there is no detectron2 in this environment: run {__file__}")
            print(f"found: {existing}", flush=True)
        else:
            site_packages = Path(sysconfig.get_path("purelib"))
            print(provision(log=args.log, site_packages=site_packages), flush=True)
        verify()
    except (SetupError, OSError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("verified: imports, registries, forward pass of a small R-CNN on the CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
