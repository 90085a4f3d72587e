"""The wheel: its content, and its use in a bare environment."""

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
import tiny_run
from documentation import ROOT, commands, page_file, run_steps, words
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PAGE = ROOT / "docs/real_images.md"
SMALL = """
    MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 1 SOLVER.MAX_ITER 2
    SOLVER.STEPS () SOLVER.BASE_LR 1e-4
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def names_in(folder: str) -> set[str]:
    names = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.*")}
    return {name for name in names if "__pycache__" not in name}


def test_wheel_contains_only_package_and_configs(wheel):
    """Neither tests nor tools, nor the research code in experiments/."""
    expected = {f"nl_detectron/{name}" for name in names_in("nl_detectron")}
    expected |= {f"nl_detectron/configs/{name}" for name in names_in("configs")}
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


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
            objects = "".join(
                f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>5</ymin>"
                f"<xmax>{x + 20}</xmax><ymax>30</ymax></bndbox></object>"
                for name, x in (("RBC", 3), ("WBC", 25), ("Platelets", 40))
            )
            (root / f"Annotations/{stem}.xml").write_text(
                "<annotation><size><width>64</width><height>48</height></size>"
                f"{objects}</annotation>"
            )


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
    metrics = tiny_run.metrics(folder / "output/cells")
    assert {"bbox/AP-RBC", "bbox/AP-WBC", "bbox/AP-Platelets"} <= metrics[-1].keys()
    assert len(list(folder.glob("drawn/test_?.jpg"))) == 4
    for name in ("attention/index.html", "exported/detector.ts", "exported/classes.json"):
        assert (folder / name).is_file()


def test_both_ways_to_start_the_command(bare):
    """Run both in an environment without the packages of the tests."""
    programs, folder = bare

    assert subprocess.run([programs / "python", "-c", "import pytest"], env={}).returncode == 1
    for start in (["nl-detectron"], ["python", "-m", "nl_detectron"]):
        command = [programs / start[0], *start[1:], "--help"]
        assert b"export" in subprocess.check_output(command, cwd=folder, env={})
