"""``DATASETS.REGISTER``: entries, their errors, and the hint at it for an unknown dataset."""

import json
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from nl_detectron.config import load_config
from nl_detectron.data import check_datasets, register_datasets
from nl_detectron.utils.errors import ConfigError, UserError

IMAGES = {"name": "own_images", "json_file": "own.json", "image_root": "."}
VIDEOS = {"name": "own_videos", "root": "."}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def config(*entries: object) -> CfgNode:
    cfg = load_config("quickstart.yaml")
    cfg.DATASETS.REGISTER = list(entries)
    cfg.freeze()
    return cfg


def test_entry_is_registered_with_metadata() -> None:
    points = {"keypoint_names": ["left", "right"], "keypoint_flip_map": [["left", "right"]]}
    videos = {**VIDEOS, "list_file": "list.txt", "classes": ["wave", "point"], "multi_label": True}
    cfg = config({**IMAGES, **points}, videos)
    register_datasets(cfg)
    Path("own.json").write_text(
        json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]})
    )
    assert DatasetCatalog.get("own_images") == []
    metadata = MetadataCatalog.get("own_images")
    assert (metadata.image_root, metadata.evaluator_type) == (".", "coco")
    assert {key: metadata.get(key) for key in points} == points
    metadata = MetadataCatalog.get("own_videos")
    assert (metadata.list_file, metadata.evaluator_type) == ("list.txt", "video_map")
    assert metadata.thing_classes == ["wave", "point"]


def test_duplicate_entry_must_be_identical() -> None:
    cfg = config(IMAGES, VIDEOS)
    register_datasets(cfg)
    Path("again.yaml").write_text(cfg.dump())  # as a run's own config.yaml
    register_datasets(load_config("again.yaml"))
    for entry in ({**IMAGES, "image_root": "elsewhere"}, {**IMAGES, "name": "coco_2017_train"}):
        with pytest.raises(ConfigError, match=entry["name"]):
            register_datasets(config(entry))


@pytest.mark.parametrize(
    ("entry", "named"),
    [
        ("own_images", "json_file"),
        ({}, "name"),
        ({**IMAGES, "name": ""}, "name"),
        ({"name": "own_images", "json_file": "own.json"}, "image_root"),
        ({"name": "own_videos", "list_file": "list.txt"}, "root"),
        ({**IMAGES, "image_rot": "."}, "'image_root'"),
        ({**IMAGES, "classes": ["a"]}, "classes"),
        ({"name": "own_videos"}, "root"),
    ],
)
def test_invalid_entry_error_contains_index(entry: object, named: str) -> None:
    with pytest.raises(ConfigError, match=rf"\ADATASETS\.REGISTER\[0\].*{named}.*\Z"):
        register_datasets(config(entry))


def test_missing_file_error_mentions_register_key() -> None:
    register_datasets(config(IMAGES))
    with pytest.raises(UserError, match=r"own\.json.*DATASETS\.REGISTER") as error:
        check_datasets(["own_images"])
    assert "DETECTRON2_DATASETS" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said", "unsaid"),
    [
        ("cells_train", "DATASETS.REGISTER", "Did you mean"),  # much of nl_clips_train
        ("coco_2017_tran", "'coco_2017_train'", "DATASETS.REGISTER"),
    ],
)
def test_unknown_dataset_suggests_register_or_nearest(name: str, said: str, unsaid: str) -> None:
    with pytest.raises(UserError, match=f"{name}.*{said}") as error:
        check_datasets([name])
    assert unsaid not in str(error.value)
