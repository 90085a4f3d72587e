"""The zoo: its four functions, its table, and the files that are generated from the table."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo as theirs
from torch import nn

from nl_detectron import model_zoo
from nl_detectron.model_zoo import ENTRIES, tables
from nl_detectron.model_zoo import model_zoo as module
from nl_detectron.utils.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml"
BOX = "COCO-Detection/faster_rcnn_R_50_FPN_NL_1x.yaml"


def arguments(function: Callable) -> list[tuple[str, object]]:
    return [(p.name, p.default) for p in signature(function).parameters.values()]


def test_signatures_are_detectron2s() -> None:
    for name in theirs.__all__:
        assert arguments(getattr(model_zoo, name)) == arguments(getattr(theirs, name))


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


@pytest.mark.parametrize(
    ("config", "metric", "gain"),
    [
        (MASK, "mask", 0.9),
        (MASK.replace("R_50", "R_101"), "mask", 1.1),
        ("COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_NL_1.44x.yaml", "mask", 0.6),
        ("Kinetics/c2d_R_50_NL5_32x2.yaml", "video", 2.0),
        ("Kinetics/i3d_R_101_NL5_32x2.yaml", "video", 1.6),
        ("Kinetics/i3d_R_50_NL5_128x1.yaml", "video", 1.6),
        ("Charades/i3d_R_101_NL5_128x1.yaml", "actions", 2.0),
    ],
)
def test_paper_results_differ_by_stated_gain(config: str, metric: str, gain: float) -> None:
    entry = model_zoo.find_entry(config)
    without = model_zoo.find_entry(entry.baseline)
    assert entry.paper[metric][0] - without.paper[metric][0] == pytest.approx(gain)


def test_unknown_config_suggests_nearest() -> None:
    for ask in (model_zoo.get_config_file, model_zoo.get_checkpoint_url):
        with pytest.raises(RuntimeError, match=r"Detection/faster_rcnn_R_50_FPN_1x\.yaml") as info:
            ask("COCO-Detection/faster_rcn_R_50_FPN_1x.yaml")
        assert isinstance(info.value, UserError)


@pytest.mark.parametrize("config", [MASK, MASK.replace(".yaml", ".py")])
def test_untrained_model_error_gives_training_command(config: str) -> None:
    for ask in (model_zoo.get_config, model_zoo.get):
        with pytest.raises(RuntimeError, match=f"not available!.*--config-file {config}"):
            ask(config, trained=True)


def test_trained_weights_are_checked_and_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trained, path = nn.Linear(2, 2), tmp_path / "model_final.pth"
    torch.save({"model": trained.state_dict()}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = replace(model_zoo.find_entry(BOX), checkpoint=str(path), sha256=sha256)
    monkeypatch.setattr(module, "find_entry", lambda config_path: entry)
    monkeypatch.setattr(module, "build_model", lambda cfg: nn.Linear(2, 2, device=cfg.MODEL.DEVICE))
    assert str(path) == model_zoo.get_config(BOX, trained=True).MODEL.WEIGHTS
    loaded = model_zoo.get(BOX, trained=True, device="cpu")
    assert torch.equal(loaded.weight, trained.weight)
    path.write_bytes(b"another file")
    with pytest.raises(model_zoo.ModelZooError, match=rf"model_final\.pth.*{sha256}"):
        model_zoo.get(BOX, trained=True)


@pytest.mark.parametrize(
    ("name", "text"), [("README.md", tables.readme()), ("results.csv", tables.results_csv())]
)
def test_generated_files_are_up_to_date(name: str, text: str) -> None:
    path = ROOT / "model_zoo" / name
    assert path.read_text(encoding="utf-8") == text, "run: python tools/generate_model_zoo.py"


def test_measured_results_appear_in_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"box": (12.34, 56.7, 8.9), "mask": (11.1, None, None)}
    entries = [replace(e, measured=figures) if e.config == MASK else e for e in ENTRIES]
    monkeypatch.setattr(tables, "ENTRIES", entries)
    assert "| 12.3 / 56.7 / 8.9 |" in re.sub(" +", " ", tables.readme())
