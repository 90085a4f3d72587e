#!/usr/bin/env python3
"""Install Detectron2, which PyPI does not have by that name, for the running Python.

An existing detectron2 of any build is kept. Otherwise this installs the pure-Python copy of
Detectron2 0.6 inside the PyPI wheel LabGym 3.1.2 under its own name. It then verifies either one.
"""

import importlib.util
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "labgym==3.1.2"
SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
VERSION = "0.6"

NOTICE = f"""\
Detectron2, copyright (c) Facebook, Inc. and its affiliates, under the Apache License 2.0
(the file LICENSE next to this one). Project: facebookresearch/detectron2.

Source: the folder LabGym/detectron2 of the PyPI wheel {SOURCE}, sha256
{SHA256}.
Nothing else of that wheel is here; LabGym itself is under another license.

Change: LabGym's name for the package, LabGym.detectron2, is detectron2 again in every Python
file, which makes these files equal to Detectron2's own (commit 59d9fb1b, January 2024).
The compiled extension detectron2._C is not included.
"""

METADATA = f"""\
Metadata-Version: 2.4
Name: detectron2
Version: {VERSION}
Summary: Detectron2 is FAIR's platform for object detection and segmentation
License-Expression: Apache-2.0
"""
WHEEL_METADATA = """\
Wheel-Version: 1.0
Generator: nl_detectron
Root-Is-Purelib: true
Tag: py3-none-any
"""


def find_detectron2() -> str | None:
    """Return the file of this environment's detectron2, or None without one."""
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("detectron2")
    return spec.origin if spec else None  # a mere folder of that name has no origin


def pip(*arguments: str | Path) -> None:
    """Run pip with its output; exit with one line if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"error: pip {arguments[0]} failed, see above; run the same command again")


def install(folder: Path) -> None:
    """Fetch the wheel that carries Detectron2 into `folder`, and install that part of it."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{SOURCE} --hash=sha256:{SHA256}\n", encoding="utf-8")
    # The wheel's own requirements (Python < 3.11, TensorFlow, ...) are LabGym's, not Detectron2's.
    pip("download", "--no-deps", "--ignore-requires-python", "--dest", folder, "-r", requirements)
    (source,) = folder.glob("*.whl")
    wheel = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    write_wheel(source, wheel)
    # Overwrite the rest of an interrupted installation.
    pip(
        *("install", "--no-deps", "--no-index", "--ignore-installed"),
        *("--find-links", folder, f"detectron2=={VERSION}"),
    )


def write_wheel(source: Path, target: Path) -> None:
    """Write a wheel of the package detectron2 in the wheel `source`."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = pyproject["project"]["optional-dependencies"]["detectron2"]
    dist_info, init = f"detectron2-{VERSION}.dist-info", "LabGym/detectron2/__init__.py"
    with ZipFile(source) as theirs, ZipFile(target, "w") as ours:
        requirements = "".join(f"Requires-Dist: {requirement}\n" for requirement in needed)
        ours.writestr(f"{dist_info}/METADATA", METADATA + requirements)
        ours.writestr(f"{dist_info}/WHEEL", WHEEL_METADATA)
        ours.writestr(f"{dist_info}/RECORD", "")  # pip lists what it installs
        ours.writestr(f"{dist_info}/licenses/NOTICE", NOTICE)
        ours.write(ROOT / "LICENSE", f"{dist_info}/licenses/LICENSE")
        names = [n for n in theirs.namelist() if n.startswith("LabGym/detectron2/") and n != init]
        for name in [*names, init]:  # pip keeps this order: an interrupted copy is no package
            content = theirs.read(name).replace(b"LabGym.detectron2", b"detectron2")
            ours.writestr(name.removeprefix("LabGym/"), content)


def verify() -> None:
    """Run the quickstart's R-CNN, with all three heads, on the CPU."""
    sys.path.insert(0, str(ROOT))
    try:
        import torch

        from nl_detectron import model_zoo
        from nl_detectron.utils.third_party_warnings import hide_third_party_warnings

        hide_third_party_warnings()
        model = model_zoo.get("quickstart.yaml", device="cpu").eval()
        with torch.no_grad():
            model([{"image": torch.zeros(3, 64, 64, dtype=torch.uint8)}])
    except Exception as error:
        sys.exit(f"error: {find_detectron2()} does not work ({error!r}); uninstall it, start again")


def main() -> None:
    found = find_detectron2()
    if found is None:
        with tempfile.TemporaryDirectory() as folder:
            install(Path(folder))
    print(f"{'kept' if found else 'installed'}: {find_detectron2()}", flush=True)
    verify()
    print("verified: forward pass of a small R-CNN on the CPU")


if __name__ == "__main__":
    main()
