"""The zoo: its four functions, its table, and the files that are generated from the table."""

import ast
import csv
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from threading import Thread

import pytest
import torch
from detectron2.config import CfgNode

import nl_detectron
from nl_detectron import model_zoo
from nl_detectron.model_zoo import ENTRIES, tables
from nl_detectron.model_zoo import model_zoo as module
from nl_detectron.utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(nl_detectron.__file__).parent
CONFIGS = ROOT / "configs"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml"
BOX = "COCO-Detection/faster_rcnn_R_50_FPN_NL_1x.yaml"
VIDEO_ENTRIES = [entry for entry in ENTRIES if entry.task == "video"]


def signatures(source: str) -> dict[str, list[tuple[str, str | None]]]:
    """Argument names and defaults of the public functions of a module's source."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            names = [argument.arg for argument in node.args.args]
            defaults = [ast.unparse(value) for value in node.args.defaults]
            padded = [None] * (len(names) - len(defaults)) + defaults
            found[node.name] = list(zip(names, padded, strict=True))
    return found


def test_signatures_are_detectron2s() -> None:
    theirs = files("detectron2").joinpath("model_zoo", "model_zoo.py").read_text()
    ours = signatures(Path(module.__file__).read_text())
    assert {name: ours.get(name) for name in signatures(theirs)} == signatures(theirs)
    assert set(ours) & set(signatures(theirs)) <= set(model_zoo.__all__)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.config)
def test_every_entry_has_its_files(entry: model_zoo.Entry) -> None:
    assert Path(model_zoo.get_config_file(entry.config)).samefile(CONFIGS / entry.config)
    if entry.baseline:
        baseline = model_zoo.find_entry(entry.baseline)
        assert baseline is not None
        assert (baseline.blocks, baseline.task) == ("", entry.task)
        assert (baseline.model, baseline.schedule) == (entry.model, entry.schedule)
    assert bool(entry.baseline) == bool(entry.blocks)
    assert entry.task in ("video", entry.metrics[-1].name)


def test_every_config_has_one_entry() -> None:
    leaves = {
        path.relative_to(CONFIGS).as_posix()
        for path in CONFIGS.glob("*/*.yaml")
        if path.parent.name != "experiments"  # no config of the zoo
    }
    assert sorted(leaves) == sorted(entry.config for entry in ENTRIES)


def test_the_papers_figures_are_complete() -> None:
    mask_rows = [entry for entry in ENTRIES if "mask" in entry.paper]
    keypoint_rows = [entry for entry in ENTRIES if "keypoint" in entry.paper]
    assert (len(mask_rows), len(keypoint_rows)) == (6, 3)
    for entry in mask_rows + keypoint_rows:
        for ap, ap50, ap75 in entry.paper.values():
            assert ap < ap75 < ap50  # true of every row of both tables
    gains = [
        round(entry.paper["mask"][0] - model_zoo.find_entry(entry.baseline).paper["mask"][0], 1)
        for entry in mask_rows
        if entry.baseline
    ]
    assert gains == [0.9, 1.1, 0.6]  # section 6: "about 1 point", less for X152


def test_unknown_config_is_a_runtime_error_with_a_suggestion() -> None:
    with pytest.raises(RuntimeError, match=r"COCO-Detection/faster_rcnn_R_50_FPN_1x\.yaml") as info:
        model_zoo.get_config_file("COCO-Detection/faster_rcn_R_50_FPN_1x.yaml")
    assert isinstance(info.value, UserError)
    with pytest.raises(RuntimeError):
        model_zoo.get_config("COCO-Detection")  # a folder is not a config
    with pytest.raises(RuntimeError, match=r"nothing\.yaml"):
        model_zoo.get_checkpoint_url("nothing.yaml")


@pytest.mark.parametrize("config", [MASK, MASK.replace(".yaml", ".py")])
def test_a_model_that_nobody_trained_says_so_and_how_to(config: str) -> None:
    for ask in (
        lambda: model_zoo.get_checkpoint_url(config),
        lambda: model_zoo.get_config(config, trained=True),
        lambda: model_zoo.get(config, trained=True),
    ):
        with pytest.raises(RuntimeError, match="not available!") as info:
            ask()
        command = re.search(r"nl-detectron train --config-file (\S+)", str(info.value))
        assert model_zoo.get_config_file(command[1])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `get` build a ResNet-18 with a thin pyramid, which takes a moment instead of seconds."""

    def tiny_config(config_path: str, trained: bool = False) -> CfgNode:
        cfg = model_zoo.get_config(config_path, trained)
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
        cfg.MODEL.FPN.OUT_CHANNELS = 8
        cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
        cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [0], []]
        cfg.MODEL.WEIGHTS = ""
        return cfg

    monkeypatch.setattr(module, "get_config", tiny_config)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the test's own folder over HTTP on this machine; downloads are cached beside it."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def give_checkpoint(monkeypatch: pytest.MonkeyPatch, url: str, sha256: str) -> None:
    entry = replace(model_zoo.find_entry(BOX), checkpoint=url, sha256=sha256)
    monkeypatch.setattr(module, "find_entry", lambda config_path: entry)


@pytest.mark.usefixtures("tiny")
def test_trained_weights_are_downloaded_checked_and_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str
) -> None:
    trained = model_zoo.get(BOX, device="cpu")
    assert trained.training
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    path = tmp_path / "model_final.pth"
    torch.save({"model": trained.state_dict()}, path)
    url = f"{server}/model_final.pth"
    give_checkpoint(monkeypatch, url, hashlib.sha256(path.read_bytes()).hexdigest())

    assert model_zoo.get_checkpoint_url(BOX) == url
    loaded = model_zoo.get(BOX, trained=True, device="cpu").state_dict()
    assert loaded.keys() == trained.state_dict().keys()
    for key, value in trained.state_dict().items():
        assert torch.equal(value, loaded[key]), key


def test_a_wrong_file_is_refused_before_anything_reads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: str
) -> None:
    path = tmp_path / "model_final.pkl"
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")  # a pickle that runs a command
    give_checkpoint(monkeypatch, f"{server}/model_final.pkl", "0" * 64)

    def build_model(cfg: CfgNode) -> None:
        pytest.fail("built a model for a file that is not the zoo's")

    monkeypatch.setattr(module, "build_model", build_model)
    with pytest.raises(RuntimeError, match=r"model_final\.pkl") as info:
        model_zoo.get(BOX, trained=True)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in str(info.value)
    assert "0" * 64 in str(info.value)
    assert isinstance(info.value, UserError)


@pytest.mark.usefixtures("tiny")
def test_get_puts_the_model_where_it_is_asked_to() -> None:
    with torch.device("meta"):
        assert model_zoo.get(BOX, device="meta").device.type == "meta"


def test_the_zoo_works_installed_elsewhere_and_without_pkg_resources(tmp_path: Path) -> None:
    """As in a wheel: files in site-packages, no link to a checkout."""
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "nl_detectron", ignore=shutil.ignore_patterns("__pycache__"))
    code = f"""
import sys
sys.modules["pkg_resources"] = sys.modules["detectron2.model_zoo"] = None
from nl_detectron import model_zoo
path = model_zoo.get_config_file({MASK!r})
assert path.startswith({str(site)!r}), path
assert model_zoo.get_config({MASK!r}).MODEL.RESNETS.DEPTH == 50
assert model_zoo.get_config({MASK.replace(".yaml", ".py")!r}).train.max_iter == 90000
print(len(model_zoo.ENTRIES))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(site), "PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(len(ENTRIES))


@pytest.mark.parametrize(
    ("name", "text"), [("README.md", tables.readme()), ("results.csv", tables.results_csv())]
)
def test_generated_files_are_up_to_date(name: str, text: str) -> None:
    path = ROOT / "model_zoo" / name
    assert path.read_text(encoding="utf-8") == text, "run: python tools/generate_model_zoo.py"


def test_readme_links_every_config_and_only_files_that_exist() -> None:
    targets = re.findall(r"\]\((?!http)([^)]+)\)", tables.readme())
    for target in targets:
        assert (ROOT / "model_zoo" / target).exists(), target
    linked = {target.removeprefix("../configs/") for target in targets}
    assert {entry.config for entry in ENTRIES} <= linked
    assert {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob("COCO-*/*.py")} <= linked


def test_readme_states_the_schedules_of_the_configs() -> None:
    for entry in ENTRIES:
        iterations = model_zoo.get_config(entry.config).SOLVER.MAX_ITER
        assert re.search(rf"[ ]{re.escape(entry.schedule)} is {iterations:,} ", tables.readme())


def test_measured_figures_reach_the_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    counts = {"parameters": 46_500_000, "multiply_adds": 270_000_000_000}
    measured = {"box_AP": 12.34, "box_AP50": 56.7, "box_AP75": 8.9, "mask_AP": 11.1}
    values = {f"measured_{key}": value for key, value in measured.items()} | counts
    table = tmp_path / "model_zoo.csv"
    table.write_text(tables.with_values({MASK: values}))
    monkeypatch.setattr(module, "TABLE", table)
    entries = [module.make_entry(row) for row in module.read_rows()]
    assert [entry.config for entry in entries] == [entry.config for entry in ENTRIES]
    (entry,) = [entry for entry in entries if entry.measured]
    assert entry.measured == {"box": (12.34, 56.7, 8.9), "mask": (11.1, None, None)}
    assert (entry.config, entry.parameters, entry.multiply_adds) == (MASK, *counts.values())
    monkeypatch.setattr(tables, "ENTRIES", entries)
    readme = re.sub(" +", " ", tables.readme())
    assert "| 12.3 / 56.7 / 8.9 |" in readme
    assert "| 46.5 | 270.0 |" in readme
    assert "12.34,56.7,8.9,11.1,not run,not run," in tables.results_csv()


def test_a_task_brings_its_own_metrics_and_sources() -> None:
    readme = tables.readme()
    assert "| video top1, paper | video top1, official code |" in re.sub(" +", " ", readme)
    assert "| actions mAP, paper" in readme
    rows = {row["config"]: row for row in csv.DictReader(tables.results_csv().splitlines())}
    row = rows["Kinetics/c2d_R_50_NL5_32x2.yaml"]
    assert (row["paper_video_top5"], row["official_video_top1"]) == ("91.0", "73.9")
    assert (row["measured_video_top1"], row["measured_box_AP"]) == ("not run", "")
    row = rows["Charades/i3d_R_101_NL5_128x1.yaml"]
    assert (row["paper_actions_mAP"], row["measured_actions_mAP"]) == ("37.5", "not run")
    assert (row["paper_video_top1"], row["measured_video_top1"]) == ("", "")


def test_names_of_rows_are_unique_among_those_that_are_compared() -> None:
    for section in {entry.section for entry in ENTRIES}:
        names = [entry.name for entry in tables.rows_of(section)]
        assert len(names) == len(set(names)), section


def test_the_papers_figures_of_videos_are_complete() -> None:
    entries_of = {entry.config: entry for entry in VIDEO_ENTRIES}
    accuracies = [entry for entry in VIDEO_ENTRIES if "video" in entry.paper]
    # Tables 2a to 2g: 3 + 3 + 8 + 4 + 1 + 4 + 6 networks that no earlier part of it has.
    assert len(accuracies) == 29
    assert len([entry for entry in VIDEO_ENTRIES if "video" in entry.official]) == 12
    for entry in VIDEO_ENTRIES:
        for figures in (entry.paper, entry.official):
            assert all(top1 < top5 for top1, top5 in [figures.get("video", (0, 1))])

    def gain(config: str) -> float:
        entry = entries_of[config]
        (metric,) = entry.metrics
        paper = entry.paper[metric.name][0] - entries_of[entry.baseline].paper[metric.name][0]
        return round(paper, 1)

    # Differences that the paper's text or tables make.
    assert gain("Kinetics/c2d_R_50_NL5_32x2.yaml") == 2.0
    assert gain("Kinetics/i3d_R_101_NL5_32x2.yaml") == 1.6
    assert gain("Kinetics/i3d_R_50_NL5_128x1.yaml") == 1.6
    assert gain("Charades/i3d_R_101_NL5_128x1.yaml") == 2.0


@pytest.mark.parametrize("entry", VIDEO_ENTRIES, ids=lambda entry: entry.config)
def test_a_video_entry_says_what_its_config_does(entry: model_zoo.Entry) -> None:
    cfg = model_zoo.get_config(entry.config)
    clip = f"{cfg.INPUT.CLIP.FRAMES}x{cfg.INPUT.CLIP.STRIDE}"
    network = {"c2d": "C2D", "i3d_3x1x1": "I3D", "i3d_3x3x3": "I3D 3x3x3"}
    name = network[cfg.MODEL.VIDEO_RESNET.TEMPORAL]
    assert entry.model == f"{name} R{cfg.MODEL.RESNETS.DEPTH}, {clip}"
    is_charades = cfg.DATASETS.TEST == ("charades_val",)
    assert [metric.columns for metric in entry.metrics] == [
        ("mAP",) if is_charades else ("top1", "top5")
    ]
    assert is_charades == cfg.MODEL.VIDEO_CLASSIFIER.MULTI_LABEL
    blocks = cfg.MODEL.RESNETS.NON_LOCAL
    for words, key, value in (
        ("Gaussian", "PAIRWISE", "gaussian"),
        ("dot product", "PAIRWISE", "dot_product"),
        ("concatenation", "PAIRWISE", "concatenation"),
        ("space only", "AXES", "space"),
        ("time only", "AXES", "time"),
    ):
        assert entry.blocks.endswith(f", {words}") == (blocks[key] == value)
