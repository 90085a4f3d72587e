"""The wheel: what it carries, and what it says where there is no Detectron2."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def build_wheel(source: Path, folder: Path) -> Path:
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


def sources(folder: str) -> dict[str, bytes]:
    return {
        path.relative_to(ROOT / folder).as_posix(): path.read_bytes()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_configs_are_in_the_wheel_as_files(wheel):
    configs = sources("configs")
    assert any(name.endswith(".yaml") for name in configs)
    with zipfile.ZipFile(wheel) as archive:
        prefix = "nl_detectron/configs/"
        packed = {
            info.filename.removeprefix(prefix): archive.read(info)
            for info in archive.infolist()
            if info.filename.startswith(prefix)
        }
        types = {info.external_attr >> 28 for info in archive.infolist()}
    assert packed == configs
    assert 0o12 not in types  # symbolic links


def test_the_package_is_in_the_wheel_and_nothing_else(wheel):
    """Neither tests nor tools, nor the research code in experiments/."""
    expected = {f"nl_detectron/{n}" for n in sources("nl_detectron") if not n.startswith("configs")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata_name = next(n for n in names if n.endswith(".dist-info/METADATA"))
        metadata = archive.read(metadata_name).decode()
    others = {name for name in names if not name.startswith("nl_detectron/configs/")}
    dist_info = metadata_name.removesuffix("METADATA")
    assert {n for n in others if not n.startswith(dist_info)} == expected
    assert f"{dist_info}licenses/LICENSE" in names
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: torch>=" in metadata  # a range, no pin


def test_a_wheel_made_from_the_sdist_is_the_same(wheel, tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist"]
    subprocess.run(
        [*command, "--directory", tmp_path], cwd=ROOT, check=True, capture_output=True, text=True
    )
    (sdist,) = tmp_path.glob("*.tar.gz")
    again = build_wheel(sdist, tmp_path / "again")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


@pytest.fixture
def installed(wheel, tmp_path):
    """Run Python in an empty folder, where nothing of the project is but the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()

    def run(*line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *line],
            cwd=tmp_path / "empty",
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
        )

    return run


def test_the_wheel_has_the_command_and_the_configs_it_takes(installed, tmp_path):
    (metadata,) = (tmp_path / "site").glob("*.dist-info")
    (command,) = Distribution.at(metadata).entry_points
    assert (command.name, command.value) == ("nl-detectron", "nl_detectron.__main__:main")
    (tmp_path / "empty/own.yaml").write_text("_BASE_: quickstart.yaml")
    line = ("analyze", "--config-file", "own.yaml", "--input-size", "64", "64")
    done = installed("-m", "nl_detectron", *line)
    assert done.returncode == 0, done.stderr
    assert "nonlocal_after" in done.stdout


def test_import_without_detectron2_says_what_to_do(installed):
    done = installed("-c", "import sys; sys.modules['detectron2'] = None; import nl_detectron")
    assert done.returncode != 0
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line.startswith("ImportError: ")
    assert "Detectron2" in last_line
    assert "install" in last_line.lower()
