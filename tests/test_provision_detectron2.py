"""tools/provision_detectron2.py, with a small synthetic wheel and a bare environment."""

import hashlib
import os
import subprocess
import tempfile
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pip
import provision_detectron2 as tool
import pytest

INIT = b'from LabGym.detectron2.config import get_cfg\n__version__ = "0.6"\n'
WHEEL_FILES = {
    "LabGym/__init__.py": b"raise ImportError('LabGym itself must not be taken')\n",
    "LabGym/detectron2/__init__.py": INIT,
    # A mention of LabGym that is not the package's name is left alone.
    "LabGym/detectron2/config/__init__.py": b"def get_cfg():\n    return 'LabGym'\n",
    "LabGym/detectron2/model_zoo/configs/base.yaml": b"MODEL: {}\n",
    "labgym-3.1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: LabGym\nVersion: 3.1.2\n"
    b"Requires-Python: <3.11\nRequires-Dist: tensorflow\n",
    "labgym-3.1.2.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
    "labgym-3.1.2.dist-info/RECORD": b"",
}


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """An empty virtual environment whose pip sees the synthetic wheel and nothing else."""
    wheel = tmp_path / "index" / "labgym-3.1.2-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in WHEEL_FILES.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    folder, borrowed = tmp_path / "venv", tmp_path / "borrowed"
    venv.create(folder, symlinks=True)
    borrowed.mkdir()
    (borrowed / "pip").symlink_to(Path(pip.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": f"{borrowed}:{tool.ROOT / 'tools'}"}

    def run(*arguments):
        command = [folder / "bin" / "python", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    right = hashlib.sha256(wheel.read_bytes()).hexdigest()

    def install(sha256=right):
        code = f"import provision_detectron2 as tool; tool.SHA256 = {sha256!r}"
        return run("-c", f"{code}; tool.install(tool.Path({tempfile.mkdtemp(dir=tmp_path)!r}))")

    site_packages = next(folder.glob("lib/python3*/site-packages"))
    return SimpleNamespace(run=run, install=install, site_packages=site_packages)


def files_in(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_installs_detectron2_alone_under_its_own_name(bare, is_interrupted):
    if is_interrupted:  # pip copies in this order, and RECORD comes last
        for leftover in ("detectron2-0.6.dist-info/METADATA", "detectron2/config/__init__.py"):
            (bare.site_packages / leftover).parent.mkdir(parents=True)
            (bare.site_packages / leftover).write_text("Name: detectron2\nVersion: 0.6\n")
    done = bare.install()
    assert done.returncode == 0, done.stdout + done.stderr
    files = files_in(bare.site_packages)
    inside = {name.removeprefix("LabGym/") for name in WHEEL_FILES if "detectron2/" in name}
    assert {name for name in files if name.startswith("detectron2/")} == inside
    assert {name.split("/")[0] for name in files} == {"detectron2", "detectron2-0.6.dist-info"}
    assert (bare.site_packages / "detectron2/__init__.py").read_bytes() == INIT.replace(
        b"LabGym.", b""
    )
    licenses = bare.site_packages / "detectron2-0.6.dist-info" / "licenses"
    assert "Apache License" in (licenses / "LICENSE").read_text()
    notice = (licenses / "NOTICE").read_text()
    assert all(part in notice for part in (tool.SOURCE, "Change:"))
    assert bare.run("-m", "pip", "freeze").stdout.strip() == "detectron2==0.6"
    # The requirements are real: this environment lacks them, and pip says so.
    assert "fvcore" in bare.run("-m", "pip", "check").stdout
    bare.run("-m", "pip", "uninstall", "--yes", "detectron2")
    assert files_in(bare.site_packages) == set()


def test_another_hash_is_refused(bare):
    done = bare.install("0" * 64)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert files_in(bare.site_packages) == set()


def test_keeps_a_checkout_that_is_there(bare, tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2/__init__.py").touch()
    (bare.site_packages / "checkout.pth").write_text(f"{tmp_path}\n")
    done = bare.run(tool.__file__)
    assert done.returncode == 1  # it does not work: there is no torch
    assert done.stdout.startswith("kept: ")
    assert str(tmp_path / "detectron2") in done.stdout
    assert files_in(bare.site_packages) == {"checkout.pth"}
