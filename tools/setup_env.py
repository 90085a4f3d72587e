#!/usr/bin/env python3
"""Make .venv, with everything that this repository needs in it: what `make setup` runs.

Every step looks at what is there first, so that an interrupted run goes on where it stopped, and
a stamp makes the run after a finished one immediate. pip's output is in .venv/setup.log.
"""

import hashlib
import os
import shutil
import subprocess
import sys

from provision_detectron2 import ROOT, SetupError, explain, run_pip

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
STAMP = VENV / "setup.stamp"
EXTRAS = "detectron2,docs,export,lint,test,video"
GIGABYTES_NEEDED = 8
# Relative, because pip splits these at spaces; it runs in ROOT. The second is for newer pips.
PIP_ENV = {"PIP_CONSTRAINT": "constraints.txt", "PIP_BUILD_CONSTRAINT": "constraints.txt"}


def fingerprint() -> str:
    """Return a digest of everything that the result of the set-up depends on."""
    digest = hashlib.sha256(str(ROOT).encode())  # an editable install knows its folder
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "tools/provision_detectron2.py",
        "tools/setup_env.py",
    ):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def works(*arguments: str) -> bool:
    """Whether .venv's Python, run with `arguments`, succeeds."""
    return subprocess.run([PYTHON, *arguments], capture_output=True, check=False).returncode == 0


def make_venv() -> None:
    """Make .venv, or complete it; one that is in use is never thrown away."""
    if os.path.lexists(PYTHON):
        if not (
            PYTHON.exists() and works("-c", "import sys; sys.exit(sys.version_info < (3, 11))")
        ):
            raise SetupError(f"{PYTHON} is broken or older than 3.11: remove {VENV} and run again")
        if works("-m", "pip", "--version"):
            return
    command = [sys.executable, "-m", "venv", str(VENV)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split()) or "no reason given"
        raise SetupError(
            f"'{' '.join(command)}' failed: {reason} (on Debian and Ubuntu: apt install"
            " python3-venv; or name another Python: make setup PYTHON=...)"
        )


def install_packages() -> None:
    """Install the pinned packages, and this one in editable mode."""
    site_packages = next((VENV / "lib").glob("python3*/site-packages"))
    if not (site_packages / "torch").exists():
        free = shutil.disk_usage(VENV).free / 1e9
        if free < GIGABYTES_NEEDED:
            raise SetupError(
                f"the set-up needs {GIGABYTES_NEEDED} GB of disk, and {VENV} has {free:.1f} GB"
                " free: free some space and run again"
            )
    for dist_info in site_packages.glob("*.dist-info"):
        # pip writes RECORD last: without it the installation was cut off, but pip would trust it.
        if not (dist_info / "RECORD").exists():
            shutil.rmtree(dist_info)
    pip("install", "--editable", f".[{EXTRAS}]")


def ensure_cv2_loads() -> None:
    """Replace OpenCV by its build without a window where the system has no libGL or libX11."""
    if not works("-c", "import cv2"):
        pip("install", "--no-deps", "--force-reinstall", "opencv-python-headless")
        say("      the system lacks a library that OpenCV's window needs: took the headless build")


def pip(*arguments: str) -> None:
    """Run .venv's pip under the constraints, with its current line shown on a terminal."""
    run_pip(arguments, log=LOG, python=str(PYTHON), env=PIP_ENV, on_line=show_progress)
    show_progress("")


def show_progress(line: str) -> None:
    """Overwrite the terminal's line with `line`; nothing where there is no terminal."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r\033[K{line.strip()[:width]}", end="", flush=True)


def say(text: str) -> None:
    print(text, flush=True)


def set_up() -> None:
    expected = fingerprint()
    if STAMP.exists() and STAMP.read_text(encoding="utf-8") == expected and PYTHON.exists():
        say("set-up: everything is in .venv already")
        return
    say(f"[1/3] virtual environment {VENV}, Python {sys.version.split()[0]}")
    make_venv()
    STAMP.unlink(missing_ok=True)
    say(f"[2/3] packages of constraints.txt: about 6 GB, a few minutes (details: {LOG})")
    install_packages()
    ensure_cv2_loads()
    say("[3/3] Detectron2")
    provision = ROOT / "tools" / "provision_detectron2.py"
    status = subprocess.run([PYTHON, provision, "--log", LOG], check=False).returncode
    if status:
        sys.exit(status)  # the tool has said why
    STAMP.write_text(expected, encoding="utf-8")
    say("set-up: done")


def main() -> int:
    os.chdir(ROOT)
    try:
        set_up()
    except (SetupError, OSError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; run 'make setup' again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
