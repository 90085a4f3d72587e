#!/usr/bin/env python3
"""Make .venv with everything that this repository needs: the code behind `make setup`.

uv installs the packages if it is available, otherwise pip does. An interrupted run continues from
that point. The stamp tells make that everything is done.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
EXTRAS = "detectron2,docs,export,lint,test,video"
# Relative, because pip splits these at spaces; it runs in ROOT.
CONSTRAINTS = {
    f"{tool}_{name}": "constraints.txt"
    for tool in ("PIP", "UV")
    for name in ("CONSTRAINT", "BUILD_CONSTRAINT")
}


def run(*command: str | Path) -> None:
    """Run a command that prints to the terminal; end in one line if it fails."""
    status = subprocess.run(command, env={**os.environ, **CONSTRAINTS}, check=False).returncode
    if status:
        sys.exit(
            f"error: '{shlex.join(map(str, command))}' failed, see above; "
            "run 'make setup' again to continue"
        )


def works(code: str) -> bool:
    """Return True if .venv's Python runs `code`."""
    return subprocess.run([PYTHON, "-c", code], capture_output=True, check=False).returncode == 0


def make_venv(uv: str | None) -> None:
    """Make .venv, or complete an existing one, which is never deleted."""
    if os.path.lexists(PYTHON):
        if not (PYTHON.exists() and works("")):
            sys.exit(f"error: {PYTHON} does not run: remove {VENV} and run 'make setup' again")
        if works("import pip"):
            return
    if uv:  # with pip, which takes Detectron2's wheel
        run(uv, "venv", "--seed", "--allow-existing", "--python", sys.executable, VENV)
    else:
        run(sys.executable, "-m", "venv", VENV)


def install_packages(uv: str | None) -> None:
    """Install the pinned packages, and this one in editable mode."""
    for dist_info in VENV.glob("lib/python3*/site-packages/*.dist-info"):
        # RECORD is written last. Without it the installation is incomplete, and pip would trust it.
        if not (dist_info / "RECORD").exists():
            shutil.rmtree(dist_info)
    install: list[str | Path] = (
        [uv, "pip", "install", "--python", PYTHON] if uv else [PYTHON, "-m", "pip", "install"]
    )
    run(*install, "--editable", f".[{EXTRAS}]")
    if not works("import cv2"):  # the system lacks libGL or libX11, which OpenCV's window needs
        run(*install, "--no-deps", "--force-reinstall", "opencv-python-headless")


def main() -> None:
    os.chdir(ROOT)
    uv = shutil.which("uv")
    print(f"[1/3] {VENV}, Python {sys.version.split()[0]}", flush=True)
    make_venv(uv)
    print(f"[2/3] packages by {'uv' if uv else 'pip'}: about 6 GB, a few minutes", flush=True)
    install_packages(uv)
    print("[3/3] Detectron2: an existing one, or the copy in the PyPI wheel LabGym", flush=True)
    run(PYTHON, ROOT / "tools" / "provision_detectron2.py")
    (VENV / "setup.stamp").write_text(str(ROOT), encoding="utf-8")
    print("setup: done")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted; run 'make setup' again to continue")
