"""`make setup`: its steps, its stamp and its errors."""

import os
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import setup_env
from packaging.utils import canonicalize_name
from test_wheel import closure

ROOT = Path(__file__).resolve().parents[1]

INPUTS = (
    "pyproject.toml",
    "constraints.txt",
    "tools/provision_detectron2.py",
    "tools/setup_env.py",
)
# Stands for .venv's Python, and for uv: notes its arguments, and fails on demand.
STUB = """\
#!/bin/sh
here="{bin}"
echo "$@" >> "$here/calls"
case "$*" in
  *"install --"*) test ! -e "$here/install_fails" ;;
  *"import cv2"*) test ! -e "$here/no_libgl" ;;
  *provision_detectron2.py*) test ! -e "$here/provision_fails" ;;
esac
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the setup's files, with a .venv whose Python is STUB."""
    (tmp_path / "tools").mkdir()
    for name in ("Makefile", *INPUTS):
        shutil.copy(ROOT / name, tmp_path / name)
    bin_folder, path = tmp_path / ".venv" / "bin", tmp_path / "path"
    for folder, name in ((bin_folder, "python"), (path, "uv")):
        folder.mkdir(parents=True)
        (folder / name).write_text(STUB.format(bin=bin_folder))
        (folder / name).chmod(0o755)
    site_packages = tmp_path / ".venv/lib/python3.11/site-packages"
    site_packages.mkdir(parents=True)

    def make(*arguments, uv=False):
        """Return the finished process and the calls of STUB."""
        calls = bin_folder / "calls"
        calls.write_text("")
        # These tests may run under make themselves, which this one shall not know.
        env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        env["PATH"] = f"{path}:/usr/bin:/bin" if uv else "/usr/bin:/bin"
        command = ["make", f"PYTHON={sys.executable}", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        return done, calls.read_text().splitlines()

    return SimpleNamespace(root=tmp_path, bin=bin_folder, site_packages=site_packages, make=make)


def assert_one_line_error(done, named):
    (error,) = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0
    assert error.startswith("error: ")
    assert named in error


def provisioned(calls):
    return any("provision_detectron2.py" in call for call in calls)


@pytest.mark.parametrize("uv", [False, True])
def test_installs_the_package_then_detectron2_once(tree, uv):
    done, calls = tree.make("setup", uv=uv)
    assert done.returncode == 0, done.stderr
    (install,) = (i for i, call in enumerate(calls) if "--editable" in call)
    assert provisioned(calls[install + 1 :])
    assert calls[install].startswith("pip install --python" if uv else "-m pip install")
    assert not any("opencv-python-headless" in call for call in calls)
    done, calls = tree.make("setup", uv=uv)
    assert (done.returncode, calls) == (0, [])


@pytest.mark.parametrize("name", INPUTS)
def test_a_changed_input_is_installed(tree, name):
    tree.make("setup")
    os.utime(tree.root / name, (time.time() + 1,) * 2)
    _, calls = tree.make("setup")
    assert any("--editable" in call for call in calls)


@pytest.mark.parametrize("step", ["install", "provision"])
def test_setup_resumes_after_failure(tree, step):
    (tree.bin / f"{step}_fails").touch()
    for _ in range(2):  # a failed setup does not count as done
        done, calls = tree.make("setup")
        assert_one_line_error(done, step)
    assert provisioned(calls) == (step == "provision")
    (tree.bin / f"{step}_fails").unlink()
    done, calls = tree.make("setup")
    assert done.returncode == 0
    assert provisioned(calls)


def test_half_installed_packages_are_installed_again(tree):
    for file in ("whole-1.0.dist-info/RECORD", "half-1.0.dist-info/METADATA"):
        (tree.site_packages / file).parent.mkdir()
        (tree.site_packages / file).touch()
    tree.make("setup")
    assert [path.name for path in tree.site_packages.iterdir()] == ["whole-1.0.dist-info"]


def test_headless_opencv_without_libgl(tree):
    (tree.bin / "no_libgl").touch()
    _, calls = tree.make("setup")
    assert any("opencv-python-headless" in call for call in calls)


def test_broken_venv_is_not_thrown_away(tree):
    (tree.bin / "python").unlink()
    (tree.bin / "python").write_text("#!/bin/sh\nexit 1\n")
    (tree.bin / "python").chmod(0o755)
    assert_one_line_error(tree.make("setup")[0], str(tree.root / ".venv"))
    assert tree.site_packages.exists()


def python_of_version(folder, version):
    """A command that checks its version as if it were `version`."""
    pretend = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    command = folder / "python"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{pretend}" "$2"\n')
    command.chmod(0o755)
    return command


def test_wrong_python_gives_one_line_error(tree):
    for python in (python_of_version(tree.root, (3, 10, 9)), tree.root / "no-such-python"):
        assert_one_line_error(tree.make("setup", f"PYTHON={python}")[0], str(python))


def test_detectron2_of_a_checkout_is_copied_with_its_configs(tree):
    for name in ("detectron2/model_zoo/__init__.py", "linked/one.yaml"):
        (tree.root / "a checkout" / name).parent.mkdir(parents=True)
        (tree.root / "a checkout" / name).touch()
    (tree.root / "a checkout/configs").symlink_to("linked")
    (tree.bin / "python").write_text('#!/bin/sh\necho "$PYTHONPATH" "$@"\n')
    options = ["test", "--assume-old=.venv/setup.stamp", "DETECTRON2=a checkout", "TESTS=one.py"]
    copy = tree.root / "output/detectron2"
    assert re.fullmatch(f"{copy}:.*pytest one.py", tree.make(*options)[0].stdout.splitlines()[-1])
    assert (copy / "detectron2/model_zoo/configs/one.yaml").exists()


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("setup", []),
        ("test", ["-m pytest tests"]),
        ("lint", ["ruff check", "mypy", "lint-imports"]),
        ("docs", ["mkdocs build --strict"]),
        ("bench", ["tools/benchmark.py"]),
        ("quickstart", ["OUTPUT_DIR output/quickstart", "numbers: output/quickstart/metrics.json"]),
        ("quickstart", ["--output output/quickstart/demo", "images: output/quickstart/demo"]),
        ("quickstart-video", ["output/quickstart-video/demo", "output/quickstart-video/attention"]),
        ("quickstart-video", ["OUTPUT_DIR $run", "output/quickstart-video/without-block"]),
    ],
)
def test_targets_install_first_and_write_to_their_folders(tree, target, parts):
    done, _ = tree.make("--dry-run", target, "PYTHON=")
    setup, _, rest = done.stdout.partition("setup_env.py")
    assert ".venv" not in setup
    assert all(part in rest for part in parts)
    assert f"make {target} " in tree.make("help")[0].stdout


def test_constraints_pin_the_whole_environment():
    """Return every installed package that the setup requires, with its version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    needed = closure(f"nl_detectron[{setup_env.EXTRAS}]") - {"nl-detectron"}
    assert needed <= pins.keys()
    assert {name: metadata.version(name) for name in needed} == {n: pins[n] for n in needed}
