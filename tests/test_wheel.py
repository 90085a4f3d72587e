"""The wheel: its content, and its use in a bare environment."""

import json
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from documentation import ROOT, commands, page_file, run_steps, words
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = ROOT / "docs/real_images.md"
SMALL = """
    MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 1 SOLVER.MAX_ITER 2
    SOLVER.STEPS () SOLVER.BASE_LR 1e-4
"""


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


def names_in(folder: str) -> set[str]:
    paths = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    names = {path.relative_to(ROOT / folder).as_posix() for path in paths}
    return {name for name in names if "__pycache__" not in name}


def test_wheel_contains_only_package_and_configs(wheel):
    """Neither tests nor tools, nor the research code in experiments/."""
    expected = {f"nl_detectron/{name}" for name in names_in("nl_detectron")}
    expected |= {f"nl_detectron/configs/{name}" for name in names_in("configs")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        types = {info.external_attr >> 28 for info in archive.infolist()}
        metadata_file = next(n for n in names if n.endswith(".dist-info/METADATA"))
        fields = archive.read(metadata_file).decode()
    assert 0o12 not in types  # symbolic links
    dist_info = metadata_file.removesuffix("METADATA")
    assert {n for n in names if not n.startswith(dist_info)} == expected
    assert f"{dist_info}licenses/LICENSE" in names
    assert "License-Expression: Apache-2.0" in fields
    assert "Requires-Dist: torch>=" in fields  # a range, no pin


def test_a_wheel_made_from_the_sdist_is_the_same(wheel, tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist"]
    subprocess.run(
        [*command, "--directory", tmp_path], cwd=ROOT, check=True, capture_output=True, text=True
    )
    (sdist,) = tmp_path.glob("*.tar.gz")
    again = build_wheel(sdist, tmp_path / "again")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


def closure(*requirements: str) -> set[str]:
    """Return the names of all installed distributions that requirements need."""
    todo, seen = [Requirement(text) for text in requirements], set()
    while todo:
        requirement = todo.pop()
        for extra in ("", *requirement.extras):
            key = canonicalize_name(requirement.name), extra
            if key not in seen:
                seen.add(key)
                needed = map(Requirement, metadata.requires(key[0]) or ())
                todo += [n for n in needed if not n.marker or n.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory):
    """The programs of an environment with the wheel, its dependencies and Detectron2 alone, and
    an empty folder.
    """
    root, empty = tmp_path_factory.mktemp("bare"), tmp_path_factory.mktemp("empty")
    venv.create(root, symlinks=True)
    (site_packages,) = root.glob("lib/python3*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", root / "bin/python"]
    options = ["--no-deps", "--no-index", "--no-compile", "--quiet"]
    subprocess.run([*pip, "install", *options, wheel], check=True)
    paths = {Path(find_spec("detectron2").origin).parent}
    for name in closure("nl_detectron[detectron2]") - {"nl-detectron"}:
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}
        paths |= {Path(distribution.locate_file(top)) for top in tops}
    for path in paths:
        (site_packages / path.name).symlink_to(path)

    return root / "bin", empty


def write_cells(root: Path) -> None:
    """Write a dataset with the layout of the page's, with few images."""
    random = np.random.default_rng(0)
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, count in (("trainval", 3), ("test", 4)):
        stems = [f"{split}_{number}" for number in range(count)]
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(stems))
        for stem in stems:
            image = random.integers(0, 256, (48, 64, 3), np.uint8)
            cv2.imwrite(str(root / f"JPEGImages/{stem}.jpg"), image)
            boxes = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>5</ymin>"
                f"<xmax>{x + 20}</xmax><ymax>30</ymax></bndbox></object>"
                for name, x in (("RBC", 3), ("WBC", 25), ("Platelets", 40))
            )
            size = "<size><width>64</width><height>48</height></size>"
            xml = f"<annotation>{size}{boxes}</annotation>"
            (root / f"Annotations/{stem}.xml").write_text(xml)


def test_wheel_trains_and_exports_in_bare_environment(bare):
    """The commands of docs/real_images.md in an empty folder, on few and small images."""
    programs, folder = bare
    write_cells(folder / "BCCD_Dataset/BCCD")
    for name in ("voc_to_coco.py", "cells.yaml"):
        (folder / name).write_text(page_file(name))
    steps = []
    for program, *line in map(words, commands(PAGE)):
        if program == "python":
            steps.append(line)
        elif program == "nl-detectron" and "SEED" not in line:
            steps.append([program, *line, *(SMALL.split() if line[0] == "train" else [])])
    wanted = ["check", "train", "demo", "attention", "export"]
    assert [step[1] for step in steps[1:]] == wanted
    done = run_steps(folder, steps, python=programs / "python", PYTHONPATH="")
    assert "--confidence-threshold" in done.stdout  # as the demo of this model finds nothing
    last = json.loads((folder / "output/cells/metrics.json").read_text().splitlines()[-1])
    assert {"bbox/AP-RBC", "bbox/AP-WBC", "bbox/AP-Platelets"} <= set(last)
    drawn = {path.name for path in (folder / "drawn").iterdir()}
    assert drawn == {f"test_{number}.jpg" for number in range(4)}
    assert (folder / "attention/index.html").is_file()
    exported = {path.name for path in (folder / "exported").iterdir()}
    assert exported == {"backbone.ts", "detector.ts", "classes.json"}


def test_both_ways_to_start_the_command(bare):
    """Run both in an environment without the packages of the tests."""
    programs, folder = bare

    def run(*line: str) -> subprocess.CompletedProcess[str]:
        command = [programs / line[0], *line[1:]]
        return subprocess.run(command, cwd=folder, env={}, capture_output=True, text=True)

    assert run("python", "-c", "import pytest").returncode == 1
    for start in (["nl-detectron"], ["python", "-m", "nl_detectron"]):
        done = run(*start, "--help")
        assert done.returncode == 0
        assert "export" in done.stdout
