"""The pages' commands and code, the site's generated parts, and files that hold the version."""

import argparse
import ast
import itertools
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, ROI_MASK_HEAD_REGISTRY, build_backbone
from detectron2.modeling.roi_heads import build_mask_head
from documentation import PAGES, ROOT, blocks, commands, leaves, run_steps, words

import nl_detectron
from nl_detectron import __main__ as command_line
from nl_detectron.config import NonLocalOptions, defaults, load_config, load_lazy_config
from nl_detectron.data import make_clips, make_shapes
from nl_detectron.data.datasets.synthetic.clips import CLASSES
from nl_detectron.layers import NonLocalBlock

# Files that the pages let the reader make, and what stands for them here.
SCRIPTS = dict.fromkeys(("train_boxes.py", "voc_to_coco.py"), "train_net.py")
CONFIGS = {
    "output/quickstart/config.yaml": "configs/quickstart.yaml",
    "output/config.yaml": "configs/COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_backbone_1x.yaml",
    "hands.yaml": "configs/COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_backbone_1x.yaml",
    "cells.yaml": "configs/quickstart.yaml",
    "output/cells/config.yaml": "configs/quickstart.yaml",
    "output/quickstart-video/config.yaml": "configs/quickstart_video.yaml",
    "small.yaml": "configs/quickstart_video.yaml",
    "gestures.yaml": "configs/Kinetics/i3d_R_50_NL5_8x8.yaml",
    "tags.yaml": "configs/Kinetics/i3d_R_50_NL5_8x8.yaml",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()


class ParsedError(BaseException):
    """A script has read its command line."""


def check_command(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """Check that scripts, flags, values, configs and their keys, targets and extras exist."""
    program, *line = words(command)
    if program == "torchrun":
        program, line = "python", line[line.index("train_net.py") :]
    if program == "make":
        for word in line:
            pattern = rf"^{word.partition('=')[0]}(:| \?=)"  # a target, or a variable
            assert re.search(pattern, MAKEFILE, re.MULTILINE), f"the Makefile has no {word}"
    elif program == "pip":
        extras = re.findall(r"\.\[([\w,]+)\]", command)
        assert {*itertools.chain(*(e.split(",") for e in extras))} <= {
            *PROJECT["optional-dependencies"]
        }
    elif program == "nl-detectron" and line not in ([], ["--help"]):
        check_script(monkeypatch, [program, *line])
    elif program == "python" and not line[0].startswith("-"):
        check_script(monkeypatch, line)
    else:
        known = {".", "git", "jupyter", "tensorboard", "mkdocs", "ruff", "python", "nl-detectron"}
        assert program in known or (ROOT / program).exists()


def check_script(monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    """Let a script or `nl-detectron` parse its command line, and load the config with its keys."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> None:
        raise ParsedError(original(self, args, namespace))

    def script() -> None:
        runpy.run_path(str(ROOT / SCRIPTS.get(line[0], line[0])), run_name="__main__")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(ParsedError) as end:
        command_line.main() if line[0] == "nl-detectron" else script()
    (args,) = end.value.args
    if config := getattr(args, "config_file", None):
        path = ROOT / CONFIGS.get(config, config)
        (load_lazy_config if path.suffix == ".py" else load_config)(path, args.opts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_code_blocks_are_valid(monkeypatch, page):
    """Each language is checked; a block of another one would not be."""
    for command in commands(page):
        check_command(monkeypatch, command)
    for block in blocks(page):
        assert block.language in {"bash", "sh", "python", "yaml", "text", "diff"}, block
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "yaml" and not block.file:
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


def test_snippets_of_the_readme(tmp_path):
    found = run_page("README.md")
    assert torch.equal(found["z"], found["x"])
    assert found["weights"].shape == (2, 240, 60)
    assert hasattr(found["mask_rcnn"].backbone.bottom_up.res4, "nonlocal_after_4")

    (diff,) = (b.text for b in blocks(ROOT / "README.md") if b.language == "diff")
    (config,) = (b.text for b in blocks(ROOT / "README.md") if b.language == "yaml")
    (tmp_path / "mine.yaml").write_text(config)
    names = {"get_cfg": get_cfg, "default_setup": lambda cfg, args: None}
    exec(re.sub("^.", "", diff, flags=re.MULTILINE), names)
    args = argparse.Namespace(config_file=str(tmp_path / "mine.yaml"), opts=[])
    assert names["setup"](args).MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS == [[], [], [-2], []]


def test_snippets_for_ones_own_project():
    found = run_page("docs/own_project.md")
    assert torch.equal(found["x"], found["y"])
    built = [n for n, m in found["mask_rcnn"].named_modules() if isinstance(m, NonLocalBlock)]
    assert built == ["backbone.bottom_up.res4.nonlocal_after_4"]


def test_snippets_for_extending(monkeypatch):
    for registry in (ROI_MASK_HEAD_REGISTRY, BACKBONE_REGISTRY):
        monkeypatch.setattr(registry, "_obj_map", dict(registry._obj_map))
    run_page("docs/extending.md")
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_my_backbone"
    cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [0], [], []]
    nl_detectron.check_config(cfg)
    assert hasattr(build_backbone(cfg).res3, "nonlocal_after_0")
    cfg.MODEL.ROI_MASK_HEAD.update({"NAME": "NonLocalMaskHead", "NUM_CONV": 4, "CONV_DIM": 8})
    head = build_mask_head(cfg, ShapeSpec(channels=4, width=14, height=14))
    x = torch.randn(2, 8, 14, 14)
    assert torch.equal(head.nonlocal_after_mask_fcn2(x), x)


@pytest.mark.parametrize(
    ("pages", "video", "small", "made"),
    [
        (
            ["first_run.md", "look.md", "export.md"],
            False,
            """MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.FPN.OUT_CHANNELS 16
            MODEL.ROI_BOX_HEAD.FC_DIM 16 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64
            SOLVER.IMS_PER_BATCH 1 SOLVER.MAX_ITER 2 SOLVER.STEPS () SOLVER.BASE_LR 1e-4""",
            """drawn/people.jpg found.json attention/index.html exported/detector.ts
            statistics/statistics.csv""",
        ),
        (
            ["first_run_video.md", "look.md", "export.md"],
            True,
            """INPUT.MIN_SIZE_TRAIN (32,) INPUT.MIN_SIZE_TEST 32 SOLVER.IMS_PER_BATCH 2
            SOLVER.MAX_ITER 2 SOLVER.WARMUP_ITERS 0 TEST.CLIPS 1 DATALOADER.NUM_WORKERS 0""",
            """drawn.mp4 scores.json attention-video/clip.png
            exported-video/classifier.ts statistics-video/statistics.csv""",
        ),
    ],
    ids=["images", "video"],
)
def test_commands_after_a_quickstart_run(tmp_path, pages, video, small, made):
    for name in ("configs", "demo", "tools", "train_net.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    image = tiny_run.write_small(make_shapes, tmp_path / "cache") / "val/000001.jpg"
    clip = tiny_run.write_small(make_clips, tmp_path / "cache") / "val/000001.mp4"
    (tmp_path / "photos").mkdir()
    for name in ("people.jpg", "street.jpg", "photos/people.jpg", "clip.mp4"):
        shutil.copy(clip if name == "clip.mp4" else image, tmp_path / name)

    config = "configs/quickstart_video.yaml" if video else "configs/quickstart.yaml"
    steps: list[list[str] | str] = [["train_net.py", "--config-file", config, *shlex.split(small)]]
    for page in (ROOT / "docs" / name for name in pages):
        for command in commands(page):
            program, *line = words(command.replace("onnx", "torchscript"))  # ONNX takes seconds
            if program == "python" and ("video" in command) == video:
                trains = line[0] == "train_net.py" and "--eval-only" not in line
                steps.append(line + shlex.split(small) * trains)
        python = (b.text for b in blocks(page) if b.language == "python")
        steps += [text for text in python if ("video" in text) == video]
    assert len(steps) > 8
    run_steps(tmp_path, steps, NL_DETECTRON_CACHE=str(tmp_path / "cache"))

    run = f"output/{Path(config).stem.replace('_', '-')}"
    listed = {row[0] for row in rows_after(f"docs/{pages[0]}", "| file | content |")}
    made_by_make = {"demo/", "attention/", "without-block/"}
    for name in made.split() + [f"{run}/{name}" for name in listed - made_by_make]:
        assert (tmp_path / name).stat().st_size > 0, name


def rows_after(page: str, head: str) -> list[list[str]]:
    """Return the cells of the table with that first line."""
    rest = (ROOT / page).read_text().split(f"\n{head}\n")[1].splitlines()[1:]
    lines = itertools.takewhile(lambda line: line.startswith("|"), rest)
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def test_video_quickstart_matches_page():
    rows = rows_after("docs/first_run_video.md", "| class | told by |")
    assert rows == [[clip_class.name, clip_class.told_by] for clip_class in CLASSES]
    cfg = load_config("configs/quickstart_video.yaml")
    assert (cfg.TEST.CLIPS, cfg.TEST.CROPS) == (3, 1)
    assert cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS == [[], [-1], [], []]


def test_video_configs_match_networks_page():
    for count, *places in rows_after(
        "docs/video_networks.md", "| blocks | ResNet-50 | ResNet-101 |"
    ):
        for depth, place in zip((50, 101), places, strict=True):
            cfg = load_config(f"configs/Kinetics/c2d_R_{depth}_NL{count}_32x2.yaml")
            assert ast.literal_eval(place) == cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS
    head = "| what | paper | official code | key, and what the configs have |"
    text = "\n".join(cells[-1] for cells in rows_after("docs/video_networks.md", head))
    for key in re.findall(r"\b((?:MODEL|SOLVER|TEST)(?:\.[A-Z_]+)+)", text):
        attrgetter(key)(cfg)


def test_all_config_keys_are_documented():
    (text,) = re.findall(r"```yaml\n(.*?)```", defaults.__doc__, re.DOTALL)
    assert re.findall(r"^ +\w+: [^#\n]+$", text, re.MULTILINE) == []  # a value without a comment
    documented = leaves(yaml.safe_load(re.sub(r"\n *\.\.\..*", "", text)))
    cfg = get_cfg()
    before = set(leaves(cfg))
    nl_detectron.add_nonlocal_config(cfg)
    added = {key: value for key, value in leaves(cfg).items() if key not in before}
    as_above = {key for key in added if key.startswith("MODEL.ROI_KEYPOINT_HEAD")} - set(documented)
    assert as_above == {f"{defaults.HEAD_KEY}.{k}" for k in NonLocalOptions.default_node()}
    assert documented == {key: value for key, value in added.items() if key not in as_above}


def test_readme_numbers_match_experiments_page():
    rest = (ROOT / "README.md").read_text().split("\n## When does it help?\n")[1]
    figures = re.findall(r"\d+\.\d\b", rest.split("\n## ")[0])
    assert len(figures) >= 8
    assert {*figures} <= {*re.findall(r"\d+\.\d\b", (ROOT / "docs/experiments.md").read_text())}


def test_reliability_page_lists_existing_tests():
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/reliability.md").read_text())
    assert [name for name in named if f"def {name}(" not in tests] == []


def test_links_of_the_readme_lead_to_files():
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_ci_runs_what_is_promised():
    commands = re.findall(r"^make \w+", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert {"make test", "make lint", "make docs"} <= {*commands}


def test_version_is_consistent():
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert heading[1] == citation["version"] == nl_detectron.__version__
    assert citation["license"] == PROJECT["license"]
