"""tools/provision_detectron2.py, against a small synthetic wheel and a bare environment."""

import base64
import csv
import hashlib
import os
import subprocess
import sys
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
    "LabGym/detector.py": b"import LabGym.detectron2\n",
    "LabGym/detectron2/__init__.py": INIT,
    "LabGym/detectron2/config/__init__.py": b"def get_cfg():\n    return 'LabGym'\n",
    "LabGym/detectron2/model_zoo/configs/base.yaml": b"MODEL: {}\n",
    "labgym-3.1.2.dist-info/METADATA": b"Metadata-Version: 2.1\nName: LabGym\nVersion: 3.1.2\n"
    b"Requires-Python: <3.11\nRequires-Dist: tensorflow\n",
    "labgym-3.1.2.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n",
    "labgym-3.1.2.dist-info/RECORD": b"",
}


def make_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    wheel = folder / "labgym-3.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return wheel


@pytest.fixture
def wheel(tmp_path):
    return make_wheel(tmp_path / "index", WHEEL_FILES)


@pytest.fixture
def offline(monkeypatch, wheel):
    """Let pip see the synthetic wheel and nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


@pytest.fixture
def bare(tmp_path, offline, wheel):
    """A virtual environment that holds nothing, with pip and the tool importable from outside."""
    folder = tmp_path / "venv"
    venv.create(folder, symlinks=True)
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    (borrowed / "pip").symlink_to(Path(pip.__file__).parent)
    python = folder / "bin" / "python"
    environment = {**os.environ, "PYTHONPATH": f"{borrowed}:{tool.ROOT / 'tools'}"}

    def run(*arguments):
        return subprocess.run(
            [python, *map(str, arguments)], env=environment, capture_output=True, text=True
        )

    def provision(*, before=""):
        sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
        return run(
            "-c",
            "import sysconfig; from pathlib import Path; import provision_detectron2 as tool\n"
            f"{before}\n"
            f"print(tool.provision(log=Path({str(tmp_path / 'log')!r}), sha256={sha256!r},"
            " site_packages=Path(sysconfig.get_path('purelib'))))",
        )

    site_packages = next(folder.glob("lib/python3*/site-packages"))
    return SimpleNamespace(run=run, provision=provision, site_packages=site_packages)


def files_in(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def test_assemble_takes_only_detectron2_under_its_own_name(wheel, tmp_path):
    tool.assemble(wheel, tmp_path / "site")
    package = tmp_path / "site" / "detectron2"
    assert files_in(package) == {
        "__init__.py",
        "config/__init__.py",
        "model_zoo/configs/base.yaml",
    }
    assert (package / "__init__.py").read_bytes() == INIT.replace(b"LabGym.", b"")
    # A mention of LabGym that is not the package's name is left alone.
    assert b"'LabGym'" in (package / "config/__init__.py").read_bytes()
    assert (package / "model_zoo/configs/base.yaml").read_bytes() == b"MODEL: {}\n"


def test_record_lists_every_file_with_its_hash(wheel, tmp_path):
    site = tmp_path / "site"
    tool.assemble(wheel, site)
    rows = list(csv.reader((site / tool.DIST_INFO / "RECORD").open()))
    assert {row[0] for row in rows} == files_in(site)
    for name, digest, size in rows:
        if not name.endswith("RECORD"):
            content = (site / name).read_bytes()
            expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            assert digest == "sha256=" + expected.rstrip("=")
            assert int(size) == len(content)


def test_licence_and_notice_come_along(wheel, tmp_path):
    tool.assemble(wheel, tmp_path)
    licences = tmp_path / tool.DIST_INFO / "licenses"
    assert "Apache License" in (licences / "LICENSE").read_text()
    notice = (licences / "NOTICE").read_text()
    assert tool.WHEEL in notice
    assert tool.WHEEL_SHA256 in notice
    assert "Change:" in notice


def test_wheel_without_detectron2_is_refused(tmp_path):
    wheel = make_wheel(tmp_path / "index", {"LabGym/__init__.py": b""})
    with pytest.raises(tool.SetupError, match=r"holds no Detectron2: LabGym/detectron2/__init__"):
        tool.assemble(wheel, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_download_gives_the_wheel_of_the_right_hash(offline, wheel, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    got = tool.download(target, log=tmp_path / "log", sha256=sha256)
    assert got.parent == target
    assert got.read_bytes() == wheel.read_bytes()


def test_download_refuses_another_hash_in_one_line(offline, tmp_path):
    with pytest.raises(tool.SetupError, match="sha256") as caught:
        tool.download(tmp_path, log=tmp_path / "log", sha256="0" * 64)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "log") in str(caught.value)
    assert not list(tmp_path.glob("*.whl"))


def test_download_of_a_missing_wheel_names_it(offline, wheel, tmp_path):
    wheel.unlink()
    with pytest.raises(tool.SetupError, match=r"PyPI has no labgym==3\.1\.2"):
        tool.download(tmp_path, log=tmp_path / "log")


def test_pip_and_importlib_see_what_was_installed(bare):
    done = bare.provision()
    assert "installed from the PyPI wheel labgym==3.1.2: detectron2 0.6 in" in done.stdout
    code = "import importlib.metadata as m, detectron2; print(detectron2.get_cfg())"
    assert bare.run("-c", code + "; print(m.version('detectron2'))").stdout == "LabGym\n0.6\n"
    assert "detectron2==0.6" in bare.run("-m", "pip", "list", "--format=freeze").stdout
    assert bare.run("-m", "pip", "freeze").stdout.strip() == "detectron2==0.6"
    # The requirements are real: this environment lacks them, and pip says so.
    assert "detectron2 0.6 requires fvcore, which is not installed" in (
        bare.run("-m", "pip", "check").stdout
    )
    bare.run("-m", "pip", "uninstall", "--yes", "detectron2")
    assert files_in(bare.site_packages) == set()


def test_installs_once(bare):
    bare.provision()
    assert bare.provision().stdout.startswith("kept: detectron2 0.6 in ")


@pytest.mark.parametrize("with_metadata", [False, True])
def test_keeps_any_detectron2_that_is_there(bare, with_metadata):
    (bare.site_packages / "detectron2").mkdir()
    (bare.site_packages / "detectron2/__init__.py").write_text("mine = True\n")
    if with_metadata:
        (bare.site_packages / "detectron2-0.7.dist-info").mkdir()
        metadata = "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.7\n"
        (bare.site_packages / "detectron2-0.7.dist-info/METADATA").write_text(metadata)
    before = files_in(bare.site_packages)
    done = bare.provision()
    described = "detectron2 0.7" if with_metadata else "detectron2 (without metadata)"
    assert done.stdout.startswith(f"kept: {described} in {bare.site_packages}")
    assert files_in(bare.site_packages) == before
    assert (bare.site_packages / "detectron2/__init__.py").read_text() == "mine = True\n"


def test_keeps_an_editable_checkout(bare, tmp_path):
    (tmp_path / "checkout/detectron2").mkdir(parents=True)
    (tmp_path / "checkout/detectron2/__init__.py").touch()
    (bare.site_packages / "checkout.pth").write_text(f"{tmp_path / 'checkout'}\n")
    assert f"in {tmp_path / 'checkout/detectron2'}" in bare.provision().stdout
    assert files_in(bare.site_packages) == {"checkout.pth"}


def test_registered_without_files_is_an_error_with_the_way_out(bare):
    (bare.site_packages / "detectron2-0.7.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: detectron2\nVersion: 0.7\n"
    (bare.site_packages / "detectron2-0.7.dist-info/METADATA").write_text(metadata)
    done = bare.run(tool.__file__, "--check")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip uninstall detectron2" in done.stderr


@pytest.mark.parametrize(
    ("method", "call"), [("write_bytes", 1), ("write_bytes", 4), ("rename", 1), ("rename", 2)]
)
def test_killed_at_any_step_leaves_no_half_and_is_made_good(bare, method, call):
    """The process dies, with no chance to tidy up, at the given call of a method of Path."""
    killer = (
        "import os\n"
        f"real, calls = Path.{method}, []\n"
        "def deadly(self, *arguments):\n"
        "    calls.append(self)\n"
        f"    if len(calls) == {call}: os._exit(9)\n"
        "    return real(self, *arguments)\n"
        f"Path.{method} = deadly"
    )
    assert bare.provision(before=killer).returncode == 9
    assert bare.run("-c", "import detectron2").returncode == 1

    assert bare.provision().stdout.startswith("installed from")
    assert bare.run("-c", "import detectron2").returncode == 0
    top = {path.name for path in bare.site_packages.iterdir()}
    assert top == {"detectron2", tool.DIST_INFO}


def test_check_installs_nothing(bare):
    done = bare.run(tool.__file__, "--check")
    assert done.returncode == 1
    assert done.stderr.startswith("error: there is no detectron2 in this environment")
    assert files_in(bare.site_packages) == set()


def test_check_fails_in_one_line_when_detectron2_does_not_work(bare):
    bare.provision()
    done = bare.run(tool.__file__, "--check")  # this environment has no torch
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "detectron2 does not work (ModuleNotFoundError: No module named 'torch')" in done.stderr


def test_detectron2_of_this_environment_passes_the_check():
    done = subprocess.run(
        [sys.executable, tool.__file__, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert done.stderr == ""
