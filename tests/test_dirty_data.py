"""Training on dirty data: it stops with one line that names the file, or loses nothing."""

import copy
import json
import re
from typing import Any

import dirty
import pytest
import torch
from detectron2.config import CfgNode, LazyCall
from detectron2.data import (
    DatasetMapper,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from dirty import CASES, Files
from omegaconf import OmegaConf

from nl_detectron.config import load_config
from nl_detectron.data.build import (
    DataError,
    DataErrorMapper,
    annotation_errors,
    build_test_loader,
    build_train_loader,
    check_metadata,
    instantiate_loader,
)
from nl_detectron.data.validation.kinds import KINDS, Severity
from nl_detectron.data.validation.run import Run
from nl_detectron.utils.errors import ConfigError, UserError

NAME = "dirty_data"


def registered(files: Files, **metadata: Any) -> CfgNode:
    """Register a dataset, and return a config that trains and tests on it."""
    dirty.register(NAME, files, **metadata)
    opts = (
        *("DATASETS.TRAIN", (NAME,), "DATASETS.TEST", (NAME,), "MODEL.ROI_HEADS.NUM_CLASSES", 2),
        *("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 3, "TEST.KEYPOINT_OKS_SIGMAS", [0.1] * 3),
        *("INPUT.MIN_SIZE_TRAIN", (dirty.HEIGHT,), "INPUT.MIN_SIZE_TEST", dirty.HEIGHT),
        *("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 1),
    )
    return load_config("quickstart.yaml", opts)


def attempted(cfg: CfgNode) -> tuple[list[dict], UserError | None]:
    """Return every image as training sees it, and the error that a user would be told."""
    torch.manual_seed(0)
    try:
        with annotation_errors([NAME]):
            records = get_detection_dataset_dicts([NAME], filter_empty=False)
        mapper = DataErrorMapper(DatasetMapper(cfg, True))
        return [mapper(record) for record in records], None
    except UserError as error:
        return [], error


def objects(files: Files) -> int:
    content = json.loads(files.annotations.read_text(encoding="utf-8"))
    return sum(not annotation.get("iscrowd") for annotation in content.get("annotations", []))


# What the check says, against what training does


@pytest.mark.parametrize("how", CASES)
def test_training_reports_file_or_keeps_all_objects(files: Files, how: str) -> None:
    spoil, kinds = CASES[how]
    spoil(files)
    is_error = any(KINDS[kind].severity is Severity.ERROR for kind in kinds.split())
    items, error = attempted(registered(files))
    if error is not None:
        assert is_error, error
        assert re.fullmatch(f".*({re.escape(str(files.folder))}|{NAME}).*", str(error))
    else:
        assert not how.startswith(("file", "image"))
        assert is_error or sum(len(item["instances"]) for item in items) == objects(files)


def test_programming_errors_stay_as_they_are(files: Files) -> None:
    record = {"file_name": str(files.images / "a.jpg")}
    with pytest.raises(KeyError) as caught:
        DataErrorMapper(lambda record: record["pixels"])(record)
    assert str(files.images / "a.jpg") in caught.value.__notes__[0]
    registered(files)
    with pytest.raises(KeyError), annotation_errors([NAME]):
        raise KeyError("the dataset is clean")


# Through the loaders of a run


def test_train_loader_worker_reports_bad_file(files: Files) -> None:
    for name in ("a.jpg", "b.png"):
        dirty.image(name, dirty.half)(files)
    cfg = registered(files)
    cfg.DATALOADER.NUM_WORKERS = 1
    with pytest.raises(DataError) as caught:
        next(iter(build_train_loader(cfg)))
    assert re.fullmatch(f".*{re.escape(str(files.images))}.*", str(caught.value))  # one line


def test_test_loader_reports_bad_file(files: Files) -> None:
    dirty.image("b.png", lambda data: b"")(files)
    batches = iter(build_test_loader(cfg := registered(files), NAME))
    assert next(batches)[0]["image"].shape == (3, dirty.HEIGHT, dirty.WIDTH)
    with pytest.raises(DataError, match=r"b\.png"):
        next(batches)
    dirty.text(lambda text: text[:-1])(files)
    with pytest.raises(DataError, match=r"data\.json"):
        build_test_loader(cfg, NAME)


def test_lazy_config_loader_reports_bad_file(files: Files) -> None:
    dirty.image("a.jpg", lambda data: b"")(files)
    registered(files)
    config = OmegaConf.create(
        LazyCall(build_detection_train_loader)(
            dataset=LazyCall(get_detection_dataset_dicts)(names=NAME),
            mapper=LazyCall(DatasetMapper)(is_train=True, augmentations=[], image_format="BGR"),
            total_batch_size=2,
            num_workers=0,
        ),
        flags={"allow_objects": True},
    )
    before = copy.deepcopy(config)
    with pytest.raises(DataError, match=r"a\.jpg"):
        next(iter(instantiate_loader(config)))
    assert config == before


def test_missing_flip_map_is_refused_before_reading(files: Files) -> None:
    dirty.text(lambda text: "")(files)  # it is not read
    cfg = registered(files, keypoint_flip_map=None)
    with pytest.raises(ConfigError, match=NAME):
        check_metadata(Run.from_config(cfg))
    cfg.MODEL.KEYPOINT_ON = False
    check_metadata(Run.from_config(cfg))
