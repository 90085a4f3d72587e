"""Names and category ids of the classes travel with a run, and come out of every tool."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from pycocotools.coco import COCO
from video_networks import build, video_cfg

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.commands import demo
from nl_detectron.commands import export as export_command
from nl_detectron.config import load_config
from nl_detectron.data.catalog import class_metadata, read_class_names
from nl_detectron.engine import Predictor, VideoPredictor, argument_parser, main
from nl_detectron.utils.errors import ConfigError, UserError

NAMES = ["red cell", "platelet"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on categories 10 and 20 and images from 1000 on; config and weights are copied."""
    folder = tmp_path_factory.mktemp("classes")
    tiny_run.write_run(folder)
    content = json.loads((folder / "tiny.json").read_text())
    for image in content["images"]:
        image["id"] += 1000
    for annotation in content["annotations"]:
        annotation["image_id"] += 1000
        annotation["category_id"] *= 10
    content["categories"] = [{"id": 10 * i, "name": name} for i, name in enumerate(NAMES, 1)]
    (folder / "tiny.json").write_text(json.dumps(content))
    registered(folder)
    line = ["--config-file", folder / "tiny.yaml", "SOLVER.MAX_ITER", 1]
    line += ["DATASETS.TRAIN", "('tiny_of_classes',)", "DATASETS.TEST", "('tiny_of_classes',)"]
    main(argument_parser().parse_args(list(map(str, line))))
    for catalog in (DatasetCatalog, MetadataCatalog):
        catalog.remove("tiny_of_classes")
    (folder / "copied").mkdir()
    for name in ("config.yaml", "model_final.pth"):
        shutil.copy(folder / "output" / name, folder / "copied")
    return folder


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Run the demo without registered datasets, and return its JSON."""

    def run_main(*arguments: object) -> list[dict[str, Any]]:
        copied, found = trained / "copied", trained / "found.json"
        line = ["demo.py", "--config-file", copied / "config.yaml", "--json", found, *arguments]
        line += ["--confidence-threshold", 0, "--opts", "MODEL.WEIGHTS", copied / "model_final.pth"]
        monkeypatch.setattr("sys.argv", list(map(str, line)))
        monkeypatch.setattr(demo, "has_screen", lambda: False)
        demo.main()
        return json.loads(found.read_text())

    return run_main


def registered(folder: Path) -> str:
    name = "tiny_of_classes"
    register_coco_instances(name, {}, str(folder / "tiny.json"), str(folder / "images"))
    return name


def rows(results: list[dict[str, Any]]) -> list[tuple]:
    return sorted(
        (r["image_id"], r["category_id"], round(r["score"], 4), *(round(v, 1) for v in r["bbox"]))
        for r in results
    )


def test_demo_json_equals_evaluation_results(
    trained: Path, run: Callable[..., list[dict[str, Any]]]
) -> None:
    evaluated = json.loads((trained / "output/inference/coco_instances_results.json").read_text())
    results = run("--input", registered(trained))
    assert rows(results) == rows(evaluated)
    assert len(COCO(trained / "tiny.json").loadRes(results).anns) == len(evaluated) > 0


def test_category_ids_from_checkpoint_or_class_names(
    trained: Path, run: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    (tmp_path / "classes.json").write_text(
        '{"categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}]}'
    )
    images = ("--input", trained / "images", "--output", tmp_path)
    assert {result["category_id"] for result in run(*images)} == {10, 20}
    results = run(*images, "--class-names", tmp_path / "classes.json")
    assert {result["category_id"] for result in results} == {3, 7}
    assert {result["image_id"] for result in results} == set(range(8))


def test_export_keeps_class_names(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, weights = (trained / "copied" / name for name in ("config.yaml", "model_final.pth"))
    assert Predictor(config, weights=weights).metadata.thing_classes == NAMES

    def export(weights: Path, *words: str) -> None:
        line = ["export_model.py", "--config-file", config, "--output", tmp_path, *words]
        monkeypatch.setattr("sys.argv", [*map(str, line), "--opts", "MODEL.WEIGHTS", str(weights)])
        assert export_command.main() == 0

    export(weights, "--format", "safetensors")
    export(weights, "--format", "torchscript", "--part", "backbone")
    exported = Predictor(config, weights=tmp_path / "model.safetensors")
    named = Predictor(config, weights=weights, classes=tmp_path / "classes.json")
    for predictor in (exported, named):
        assert predictor.metadata.thing_classes == NAMES
        ids = predictor.metadata.thing_dataset_id_to_contiguous_id
        assert ids == {10: 0, 20: 1}
    with pytest.raises(UserError, match=r"model\.safetensors"):
        export(tmp_path / "model.safetensors", "--format", "safetensors")


def test_without_names_there_is_a_warning(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = torch.load(trained / "copied" / "model_final.pth", weights_only=True)["model"]
    torch.save({"model": state}, tmp_path / "plain.pth")
    config = trained / "copied" / "config.yaml"
    with caplog.at_level(logging.WARNING, "nl_detectron"):
        predictor = Predictor(config, weights=tmp_path / "plain.pth")
    assert "--class-names" in caplog.text
    assert predictor.metadata.thing_classes == ["0", "1"]
    (tmp_path / "names.txt").write_text("a\nb\n")
    named = Predictor(config, weights=tmp_path / "plain.pth", classes=tmp_path / "names.txt")
    assert named.metadata.thing_classes == ["a", "b"]
    with pytest.raises(ConfigError, match=r"MODEL\.ROI_HEADS\.NUM_CLASSES"):
        Predictor(config, weights=tmp_path / "plain.pth", classes=["a", "b", "c"])


def test_unnamed_classes_are_numbered(trained: Path) -> None:
    """NUM_CLASSES may be left at more than there are categories."""
    cfg = load_config(trained / "tiny.yaml", ["MODEL.ROI_HEADS.NUM_CLASSES", "4"])
    ids = {10: 0, 20: 1}
    found = class_metadata(cfg, {"thing_classes": NAMES, "thing_dataset_id_to_contiguous_id": ids})
    assert found.thing_classes == [*NAMES, "2", "3"]
    assert found.thing_dataset_id_to_contiguous_id == ids


def test_video_predictor_has_checkpoint_class_names(tmp_path: Path) -> None:
    cfg = video_cfg()
    cfg.DATASETS.TEST = ()
    cfg.MODEL.WEIGHTS = str(tmp_path / "w.pth")
    names = [f"class of number {c}" for c in range(cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES)]
    checkpointer = Checkpointer(build(cfg), str(tmp_path))
    checkpointer.metadata = {"thing_classes": names}
    checkpointer.save("w")
    assert VideoPredictor(cfg).classes == names


@pytest.mark.parametrize(
    "content",
    ["{", '{"categories": [{"id": 1}]}', '{"categories": 3}', "[1]", '{"a": 1}', '{"a": "x"}'],
)
def test_invalid_class_names_give_one_line_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "names.json").write_text(content)
    with pytest.raises(UserError, match=r"\A.*names\.json.*\Z"):
        read_class_names(tmp_path / "names.json")
