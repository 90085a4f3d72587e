"""``tools/with_detectron2.py``: a command with another Detectron2; its checkout stays as it is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SEE = """
import detectron2, detectron2.model_zoo, importlib.resources, pathlib
print(detectron2.NAME)
files = importlib.resources.files("detectron2") / "model_zoo" / "configs"
print(sorted(path.name for path in files.iterdir()))
"""


@pytest.fixture
def detectron2(tmp_path: Path) -> Path:
    """The relevant files of a checkout, before its setup.py has linked the configs."""
    root = tmp_path / "a checkout"
    for name, text in {
        "detectron2/__init__.py": "NAME = 'of the checkout'",
        "detectron2/model_zoo/__init__.py": "",
        "configs/one.yaml": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools/with_detectron2.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def files(root: Path) -> set[Path]:
    return set(root.rglob("*"))


@pytest.mark.parametrize("linked", [False, True])
def test_the_checkout_is_imported_with_its_configs(detectron2, linked):
    if linked:  # as setup.py leaves it
        (detectron2 / "detectron2/model_zoo/configs").symlink_to(detectron2 / "configs")
    before = files(detectron2)
    done = run(detectron2, sys.executable, "-B", "-c", SEE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["of the checkout", "['one.yaml']"]
    assert files(detectron2) == before


def test_exit_status_is_passed_on(detectron2):
    assert run(detectron2, sys.executable, "-c", "raise SystemExit(7)").returncode == 7


def test_invalid_checkout_gives_one_line_error(tmp_path):
    done = run(tmp_path, "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path} is not a checkout of Detectron2: no ")
    assert done.stderr.count("\n") == 1


def test_make_test_uses_with_detectron2(detectron2):
    """Run the command of `make test DETECTRON2=...`, without the setup."""
    options = ["--dry-run", "--assume-old=setup", f"DETECTRON2={detectron2}", "TESTS=tests/x.py"]
    done = subprocess.run(
        ["make", *options, "test"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f'tools/with_detectron2.py "{detectron2}"' in done.stdout
    assert "pytest tests/x.py" in done.stdout
