"""The pages' commands and code, the site's generated parts, and files that hold the version."""

import argparse
import ast
import itertools
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import cv2
import docs_site
import pytest
import tiny_run
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ROI_MASK_HEAD_REGISTRY, build_backbone
from detectron2.modeling.roi_heads import build_mask_head
from documentation import PAGES, ROOT, Block, blocks, commands, run_steps, words

import nl_detectron
from nl_detectron import __main__ as command_line
from nl_detectron.config import load_config, load_lazy_config
from nl_detectron.data.datasets.synthetic.clips import CLASSES
from nl_detectron.layers import NonLocalBlock

# Files that the pages let the reader make, and what stands for them here.
SCRIPTS = dict.fromkeys(("train_boxes.py", "train_gestures.py", "voc_to_coco.py"), "train_net.py")
CONFIGS = {
    "output/quickstart/config.yaml": "configs/quickstart.yaml",
    "output/config.yaml": "configs/COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_backbone_1x.yaml",
    "hands.yaml": "configs/COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_backbone_1x.yaml",
    "cells.yaml": "configs/quickstart.yaml",
    "output/cells/config.yaml": "configs/quickstart.yaml",
    "output/quickstart-video/config.yaml": "configs/quickstart_video.yaml",
    "gestures.yaml": "configs/Kinetics/i3d_R_50_NL5_8x8.yaml",
    "tags.yaml": "configs/Kinetics/i3d_R_50_NL5_8x8.yaml",
}
# The quickstart in seconds; the commands of the pages follow on its results.
TINY = """
    MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 1 SOLVER.MAX_ITER 2
    SOLVER.STEPS () SOLVER.BASE_LR 1e-4
"""

TINY_VIDEO = """
    INPUT.MIN_SIZE_TRAIN (32,) INPUT.MIN_SIZE_TEST 32 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2
    SOLVER.WARMUP_ITERS 0 TEST.CLIPS 1 DATALOADER.NUM_WORKERS 0
"""

VIDEO = "output/quickstart-video"  # whose commands follow on the other quickstart

EVERY_COMMAND = [(page, command) for page in PAGES for command in commands(page)]
EVERY_PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]


def name_of(value: Any) -> str:
    """Return what a page or a block is called in the name of a test."""
    return value.page.name if isinstance(value, Block) else getattr(value, "name", str(value))


class ParsedError(BaseException):
    """Thrown in the place where a script has read its command line."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


def parse(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], object], line: list[str]
) -> argparse.Namespace:
    """Return what a script makes of its command line; its own parser refuses wrong ones."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise ParsedError(original(self, args, namespace))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(ParsedError) as end:
        run()
    return end.value.arguments


def check_python(monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    if line[0] == "-c":
        ast.parse(line[1])
        return
    if line[:2] == ["-m", "nl_detectron"]:
        check_command(monkeypatch, line[2:])
        return
    script = str(ROOT / SCRIPTS.get(line[0], line[0]))
    assert Path(script).is_file(), f"there is no {script}"
    check_config(parse(monkeypatch, lambda: runpy.run_path(script, run_name="__main__"), line))


def check_command(monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    if line not in ([], ["--help"]):
        check_config(parse(monkeypatch, command_line.main, ["nl-detectron", *line]))


def check_config(args: argparse.Namespace) -> None:
    if config := getattr(args, "config_file", None):
        path = ROOT / CONFIGS.get(config, config)
        (load_lazy_config if path.suffix == ".py" else load_config)(path, args.opts)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def check_make(line: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in line:
        variable, is_set, _ = word.partition("=")
        pattern = rf"^{variable} \?=" if is_set else rf"^{word}:"
        assert re.search(pattern, makefile, re.MULTILINE), f"the Makefile has no {word}"


def check_pip(line: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (target,) = (word for word in line if word.startswith("."))
    named = re.fullmatch(r"\.(?:\[([\w,]+)\])?", target)
    assert named, target
    assert set(filter(None, (named[1] or "").split(","))) <= set(extras)


@pytest.mark.parametrize(("page", "command"), EVERY_COMMAND, ids=name_of)
def test_commands_fit_what_they_call(monkeypatch, page, command):
    """Scripts, their flags and values, configs and their keys, targets and extras exist."""
    program, *line = words(command)
    if program == "make":
        check_make(line)
    elif program == "pip":
        check_pip(line)
    elif program == "python":
        check_python(monkeypatch, line)
    elif program == "nl-detectron":
        check_command(monkeypatch, line)
    elif program == "torchrun":
        script = next(i for i, word in enumerate(line) if word.endswith(".py"))
        check_python(monkeypatch, line[script:])
    else:
        known = program in ("git", "mkdocs", "ruff") or (ROOT / program).is_file()
        assert known or line == [".venv/bin/activate"], f"{program} in {page}"


def test_a_wrong_command_is_found(monkeypatch):
    """The check above sees a flag, a choice, a key, a target and an extra that do not exist."""
    with pytest.raises(SystemExit):
        check_python(monkeypatch, ["tools/plot_metrics.py", "RUN", "--out", "x", "--no-such-flag"])
    with pytest.raises(SystemExit):
        check_python(monkeypatch, ["tools/reproduce.py", "--table", "77"])
    with pytest.raises(SystemExit):
        check_command(monkeypatch, ["exprot", "--config-file", "hands.yaml"])
    with pytest.raises(nl_detectron.utils.errors.ConfigError, match=r"SOLVER\.LR"):
        check_python(monkeypatch, shlex.split("train_net.py --config-file hands.yaml SOLVER.LR 1"))
    with pytest.raises(AssertionError, match="no_such_target"):
        check_make(["no_such_target"])
    with pytest.raises(AssertionError):
        check_pip(["install", ".[no_such_extra]"])


def test_blocks_say_what_they_are():
    """Each language is checked by one of the tests; a block without one would not be."""
    for page in PAGES:
        assert {b.language for b in blocks(page)} <= {"bash", "sh", "python", "yaml", "text"}, page
    assert len(EVERY_COMMAND) > 40
    assert len(EVERY_PYTHON) > 8


@pytest.mark.parametrize("block", EVERY_PYTHON, ids=name_of)
def test_python_is_valid(block):
    ast.parse(block.text)


@pytest.mark.parametrize(
    "block",
    [b for page in PAGES for b in blocks(page) if b.language == "yaml" and not b.file],
    ids=name_of,
)
def test_config_examples_are_valid(block):
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(block.text)))
    nl_detectron.check_config(cfg)


def run_page(name: str, **names_before: Any) -> dict[str, Any]:
    """Run the Python of a page, in one namespace; return that."""
    namespace = {"__name__": "__page__", **names_before}
    for block in blocks(ROOT / name):
        if block.language == "python" and not block.file:
            exec(compile(block.text, name, "exec"), namespace)
    return namespace


def test_context_page_runs():
    names = run_page("docs/context.md")
    assert torch.equal(names["z"], names["clips"])  # a fresh block
    torch.testing.assert_close(names["weights"].sum(-1), torch.ones(6, 8 * 7 * 7))


def test_snippets_of_the_readme():
    cfg, x = get_cfg(), torch.randn(1, 256, 5, 7)
    found = run_page("README.md", cfg=cfg, x=x)
    nl_detectron.check_config(cfg)
    assert found["y"].shape == x.shape
    assert found["weights"].shape == (1, 35, 35)


def test_snippets_for_ones_own_project():
    found = run_page("docs/own_project.md")
    assert torch.equal(found["x"], found["y"])  # "the identity, exactly"
    built = [n for n, m in found["mask_rcnn"].named_modules() if isinstance(m, NonLocalBlock)]
    assert built == ["backbone.bottom_up.res4.nonlocal_after_4"]


def test_snippets_for_extending():
    name = "NonLocalMaskHead"
    try:
        run_page("docs/extending.md")
        cfg = get_cfg()
        nl_detectron.add_nonlocal_config(cfg)
        cfg.MODEL.BACKBONE.NAME = "build_my_backbone"
        cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [0], [], []]
        nl_detectron.check_config(cfg)
        assert hasattr(build_backbone(cfg).res3, "nonlocal_after_0")
        cfg.MODEL.ROI_MASK_HEAD.update({"NAME": name, "NUM_CONV": 4, "CONV_DIM": 8})
        head = build_mask_head(cfg, ShapeSpec(channels=4, width=14, height=14))
        torch.manual_seed(0)
        cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
        stock = build_mask_head(cfg, ShapeSpec(channels=4, width=14, height=14))
        missing, unexpected = head.load_state_dict(stock.state_dict(), strict=False)
        assert all("nonlocal_after_mask_fcn2" in key for key in missing)
        assert missing
        assert not unexpected
        x = torch.randn(2, 4, 14, 14)
        assert torch.equal(head.layers(x), stock.layers(x))
    finally:
        ROI_MASK_HEAD_REGISTRY._obj_map.pop(name, None)
        BACKBONE_REGISTRY._obj_map.pop("build_my_backbone", None)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands need: configs and scripts, images, a tiny nl_shapes."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "demo", "tools", "train_net.py"):
        (folder / name).symlink_to(ROOT / name)
    cache = tiny_run.write_small_shapes(folder / "cache")
    (folder / "photos").mkdir()
    for number, image in enumerate(sorted(cache.glob("*/val/*.jpg"))):
        shutil.copy(image, folder / "photos")
        shutil.copy(image, folder / ("people.jpg", "street.jpg")[number])
    return folder


def test_commands_after_the_quickstart_run(checkout):
    """All of the pages 'First run', 'Look at it and ship it' and of README's section, in order."""
    tiny = [word.strip('"') for word in TINY.split()]
    steps: list[list[str] | str] = [
        ["train_net.py", "--config-file", "configs/quickstart.yaml", *tiny]
    ]
    pages = [ROOT / "docs/first_run.md", ROOT / "docs/look.md", ROOT / "README.md"]
    for command in dict.fromkeys(c for page in pages for c in commands(page)):
        program, *line = words(command)
        if program != "python" or "--num-gpus" in line or line[0] in SCRIPTS or VIDEO in command:
            continue
        if line[0] == "train_net.py":
            line = [*line, *tiny]
        if line[0] == "tools/export_model.py":  # ONNX takes ten seconds and has its own tests
            line = ["torchscript" if word == "onnx" else word for word in line]
        steps.append(line)
    python = (b.text for b in blocks(ROOT / "docs/look.md") if b.language == "python")
    steps += [text for text in python if VIDEO not in text]
    assert len(steps) >= 9
    run_steps(checkout, steps, NL_DETECTRON_CACHE=str(checkout / "cache"))

    listed = re.findall(
        r"^\| `([\w./]+)` \|", (ROOT / "docs/first_run.md").read_text(), re.MULTILINE
    )
    made = {"demo/"}  # made by the Makefile's second command
    assert len(listed) == 6
    for name in set(listed) - made:
        assert (checkout / "output/quickstart" / name).exists(), name
    assert {p.name for p in (checkout / "drawn").iterdir()} >= {
        p.name for p in (checkout / "photos").iterdir()
    }
    assert isinstance(json.loads((checkout / "found.json").read_text()), list)
    assert (checkout / "attention/index.html").stat().st_size > 1000
    assert cv2.imread(str(checkout / "curves.png")) is not None
    assert list((checkout / "exported").glob("*.ts"))


def test_commands_after_the_quickstart_for_video_run(tmp_path):
    """All of the page 'First run with video', in order, then of 'Look at it and ship it'."""
    for name in ("configs", "demo", "tools", "train_net.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    tiny_run.write_small_clips(tmp_path / "cache")
    (video,) = (tmp_path / "cache").glob("*/val/000001.mp4")
    shutil.copy(video, tmp_path / "clip.mp4")
    training = ["train_net.py", "--config-file", "configs/quickstart_video.yaml"]
    steps: list[list[str] | str] = [[*training, *TINY_VIDEO.split()]]
    for command in commands(ROOT / "docs/first_run_video.md"):
        program, *line = words(command)
        if program == "python":
            steps.append([*line, *TINY_VIDEO.split()] if line[:3] == training else line)
    assert len(steps) == 6
    look = ROOT / "docs/look.md"
    steps += [words(command)[1:] for command in commands(look) if VIDEO in command]
    steps += [b.text for b in blocks(look) if b.language == "python" and VIDEO in b.text]
    assert len(steps) == 11
    done = run_steps(tmp_path, steps, NL_DETECTRON_CACHE=str(tmp_path / "cache"))
    assert "nl_clips_val, 3 videos, 10 clips x 1 crop" in done.stdout
    run = tmp_path / "output/quickstart-video"
    found = json.loads((run / "metrics.json").read_text().splitlines()[-1])
    assert "video/top1-looks" in found
    assert (run / "inference/scores_nl_clips_val.npz").exists()
    scores = json.loads((tmp_path / "scores.json").read_text())
    top = ast.literal_eval(done.stdout.splitlines()[-1])
    assert {name for name, _ in top} < {clip_class.name for clip_class in CLASSES}
    assert scores["frames"] == 28
    assert (tmp_path / "exported-video/classifier.ts").exists()
    assert (tmp_path / "drawn.mp4").stat().st_size > 1000
    for image in ("curves.png", "sheet.png", "attention-video/clip.png"):
        assert cv2.imread(str(tmp_path / image)) is not None


def test_make_quickstart_is_what_the_page_says():
    """The Makefile trains into the folder that the pages read, and draws into its ``demo``."""
    recipe = (ROOT / "Makefile").read_text()
    assert "quickstart := output/quickstart" in recipe
    assert "--output $(quickstart)/demo" in recipe


def rows_after(page: str, head: str) -> list[list[str]]:
    """Return the cells of the table with that first line."""
    rest = (ROOT / page).read_text().split(f"\n{head}\n")[1].splitlines()[1:]
    lines = itertools.takewhile(lambda line: line.startswith("|"), rest)
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def test_the_embedded_clips_are_those_of_the_page():
    rows = rows_after("docs/first_run_video.md", "| class | told by |")
    assert rows == [[clip_class.name, clip_class.told_by] for clip_class in CLASSES]


def test_blocks_of_the_page_are_those_of_the_configs():
    rows = rows_after("docs/video_networks.md", "| blocks | ResNet-50 | ResNet-101 |")
    assert [count for count, *_ in rows] == ["1", "5", "10"]
    for count, *places in rows:
        for depth, place in zip((50, 101), places, strict=True):
            cfg = load_config(f"configs/Kinetics/c2d_R_{depth}_NL{count}_32x2.yaml")
            assert ast.literal_eval(place) == cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS


def test_differences_name_keys_that_there_are():
    head = "| what | paper | official code | key, and what the configs have |"
    text = "\n".join(cells[-1] for cells in rows_after("docs/video_networks.md", head))
    cfg = load_config("configs/Kinetics/i3d_R_50_32x2.yaml")
    keys = re.findall(r"\b((?:MODEL|SOLVER|TEST)(?:\.[A-Z_]+)+)", text)
    assert len(keys) > 8
    for key in keys:
        attrgetter(key)(cfg)


def test_make_quickstart_video_is_what_the_page_says():
    recipe = (ROOT / "Makefile").read_text()
    page = (ROOT / "docs/first_run_video.md").read_text()
    assert "video := output/quickstart-video" in recipe
    assert "`output/quickstart-video`" in page
    cfg = load_config("configs/quickstart_video.yaml")
    assert f"{cfg.TEST.CLIPS} clips of each video" in page
    assert cfg.TEST.CROPS == 1
    assert cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS == [[], [-1], [], []]  # "one in res3"
    files = [
        cells[0] for cells in rows_after("docs/first_run_video.md", "| file | what it holds |")
    ]
    made_by_make = {"demo/clips.png", "without-block/"}
    assert all(f"$(video)/{name.rstrip('/')}" in recipe for name in made_by_make)
    assert set(files) - made_by_make == {"metrics.json", "inference/scores_nl_clips_val.npz"}


def test_every_config_key_is_in_the_reference():
    table = docs_site.config_table()
    cfg = get_cfg()
    known = set(_flat(cfg))
    nl_detectron.add_nonlocal_config(cfg)
    for key in set(_flat(cfg)) - known:
        section, _, name = key.rpartition(".")
        rows = table.split(f"## {section}\n")[1].split("\n## ")[0]
        assert len(re.findall(rf"^\| `{name}` \| `.+` \| .+ \|$", rows, re.MULTILINE)) == 1, key


def _flat(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for name, value in node.items():
        keys += _flat(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [prefix + name]
    return keys


@pytest.mark.parametrize(
    ("docstring", "problem"),
    [
        ("A: 1  # one\n  B: 2  # nothing adds it", "has not.*S.B"),
        ("A: 7  # one", "S.A is 1 by default, in the docstring 7"),
        ("", "S.A is not in the docstring"),
        ("A: 1", "does not say what S.A means"),
    ],
)
def test_a_docstring_that_differs_from_the_config_is_an_error(monkeypatch, docstring, problem):
    from nl_detectron.config import defaults as keys

    def add(cfg: CfgNode) -> None:
        cfg.S = CfgNode({"A": 1})

    monkeypatch.setattr(keys, "add_nonlocal_config", add)
    monkeypatch.setattr(keys, "__doc__", f"```yaml\nS:\n  {docstring}\n```")
    with pytest.raises(ValueError, match=problem):
        docs_site.config_table()


def test_a_docstring_is_read_as_written():
    described = docs_site.described_keys(
        "Text.\n```yaml\nS:\n  A: [1, 2]  # one,\n            # and more\n"
        '  B: {C: 3, D: ""}  # both\nT: 4\n```\n'
    )
    assert described == {
        "S.A": ([1, 2], "one, and more"),
        "S.B.C": (3, "both"),
        "S.B.D": ("", "both"),
        "T": (4, ""),
    }


def test_make_help_lists_every_target():
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^make (\S+)  +\S", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony.split())


def test_warnings_of_the_site_are_errors():
    command = ["make", "--dry-run", "--assume-old=setup", "docs"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"mkdocs build --strict$", done.stdout, re.MULTILINE)
    assert "make docs" in (ROOT / ".ci/run").read_text()


def test_figures_are_those_of_the_pages_that_measure_them():
    """Differences are the experiments' page's, the README's figures those of docs/results.md."""
    results = " ".join((ROOT / "docs/results.md").read_text().split())
    in_short = (ROOT / "README.md").read_text().split("\n## Results\n")[1].split("\n## ")[0]
    experiments = (ROOT / "docs/experiments.md").read_text()
    differences = re.findall(r"[+-][\d.]+ \[[^]]+\]", results)
    assert len(differences) > 4
    for difference in differences:
        assert difference in experiments
    figures = re.findall(r"\d+\.\d+", in_short)
    assert len(figures) > 8
    assert set(figures) <= set(re.findall(r"\d+\.\d+", results))


def test_one_version():
    version = nl_detectron.__version__
    changes = (ROOT / "CHANGELOG.md").read_text()
    heading = re.search(r"^## (\S+)", changes, re.MULTILINE)
    assert heading
    assert heading[1] == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert citation["license"] == project()["license"]


def test_the_workflow_runs_on_the_pythons_that_are_declared():
    declared = project()["requires-python"]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = workflow["jobs"]["ci"]
    pythons = job["strategy"]["matrix"]["python"]
    assert declared == f">={pythons[0]}"
    assert pythons == [f"3.{minor}" for minor in range(11, 11 + len(pythons))]
    assert {"run": ".ci/run"} in job["steps"]


def test_issue_templates_are_forms():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name == "config.yml":
            continue
        assert {"name", "description", "body"} <= set(form), path
        for field in form["body"]:
            assert field["attributes"]["label"], path


def test_pages_of_the_site_are_all_in_the_navigation():
    navigation = re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert set(navigation) == pages | set(docs_site.PAGES)
