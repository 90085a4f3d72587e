"""Training on dirty data: it stops with one line that names the file, or loses nothing.

The fuzz tests have a fixed budget; ``NL_DETECTRON_FUZZ_EXAMPLES=20000 python -m pytest
tests/test_dirty_data.py -k fuzz`` looks further.
"""

import copy
import itertools
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dirty
import pytest
import torch
from detectron2.config import CfgNode, LazyCall, get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.datasets import load_coco_json
from dirty import CASES, FILES, IMAGES, Files, fuzz
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch._utils import ExceptionWrapper

import nl_detectron
from nl_detectron.data.build import (
    DataError,
    DataErrorMapper,
    annotation_errors,
    build_test_loader,
    build_train_loader,
    check_metadata,
    instantiate_loader,
)
from nl_detectron.data.validation import check_file
from nl_detectron.data.validation.coco import Expected
from nl_detectron.data.validation.kinds import KINDS, Report, Severity
from nl_detectron.data.validation.run import Run
from nl_detectron.utils.errors import ConfigError, UserError

NAME = "dirty_data"


@contextmanager
def registered(files: Files, **metadata: Any) -> Iterator[CfgNode]:
    """Register a data set for the time being; yield a config that trains and tests on it."""
    values = {"keypoint_names": dirty.POINTS, "keypoint_flip_map": dirty.FLIPS, **metadata}
    MetadataCatalog.get(NAME).set(
        json_file=str(files.annotations),
        image_root=str(files.images),
        evaluator_type="coco",
        **{key: value for key, value in values.items() if value is not None},
    )
    DatasetCatalog.register(
        NAME, lambda: load_coco_json(str(files.annotations), str(files.images), NAME)
    )
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (NAME,)
    cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = True
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 3
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.1] * 3
    cfg.INPUT.MIN_SIZE_TRAIN = (dirty.HEIGHT,)
    cfg.INPUT.MIN_SIZE_TEST = dirty.HEIGHT
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 1
    try:
        yield cfg
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    new = Files(tmp_path)
    new.write_images()
    new.write_annotations()
    return new


def prepared(cfg: CfgNode) -> list[dict]:
    """Return every image and its annotations as training sees them."""
    torch.manual_seed(0)
    with annotation_errors([NAME]):
        records = get_detection_dataset_dicts([NAME], filter_empty=False)
    mapper = DataErrorMapper(DatasetMapper(cfg, True))
    return [mapper(record) for record in records]


def attempted(cfg: CfgNode) -> tuple[list[dict], UserError | None]:
    """Return what `prepared` does, and the error that a user would be told."""
    try:
        return prepared(cfg), None
    except UserError as error:
        return [], error


def objects(files: Files) -> int:
    content = json.loads(files.annotations.read_text(encoding="utf-8"))
    return sum(not annotation.get("iscrowd") for annotation in content.get("annotations", []))


def checked(files: Files) -> Report:
    return check_file(
        files.annotations,
        files.images,
        expected=Expected(masks=True, keypoints=True, num_keypoints=3),
    )


# What the check says, against what training does


@pytest.mark.parametrize("how", CASES)
def test_training_names_the_file_or_loses_nothing(files: Files, how: str) -> None:
    spoil, kinds = CASES[how]
    spoil(files)
    is_error = any(KINDS[kind].severity is Severity.ERROR for kind in kinds.split())
    with registered(files) as cfg:
        items, error = attempted(cfg)
    if error is not None:
        assert is_error, error
        assert "\n" not in str(error)
        assert str(files.folder) in str(error) or NAME in str(error)
    elif not is_error:
        assert sum(len(item["instances"]) for item in items) == objects(files)


@pytest.mark.parametrize("how", IMAGES)
def test_a_bad_image_is_named(files: Files, how: str) -> None:
    IMAGES[how][0](files)
    with registered(files) as cfg, pytest.raises(DataError) as caught:
        prepared(cfg)
    assert str(files.images / ("b.png" if "PNG" in how else "a.jpg")) in str(caught.value)


@pytest.mark.parametrize("how", FILES)
def test_a_bad_annotation_file_is_named(files: Files, how: str) -> None:
    FILES[how][0](files)
    with registered(files) as cfg, pytest.raises(DataError, match=NAME):
        build_train_loader(cfg)


def test_annotations_that_training_cannot_use_name_their_image(files: Files) -> None:
    dirty.a("keypoints", [7, 6, 2])(files)
    with registered(files) as cfg, pytest.raises(DataError) as caught:
        prepared(cfg)
    assert str(files.images / "a.jpg") in str(caught.value)


def test_programming_errors_stay_as_they_are(files: Files) -> None:
    record = {"file_name": str(files.images / "a.jpg")}
    with pytest.raises(KeyError) as caught:
        DataErrorMapper(lambda record: record["pixels"])(record)
    assert str(files.images / "a.jpg") in caught.value.__notes__[0]
    with pytest.raises(KeyError):
        DataErrorMapper(lambda record: record["pixels"])({})
    with registered(files), pytest.raises(KeyError), annotation_errors([NAME]):
        raise KeyError("the data set is clean")


# Through the loaders of a run


@pytest.mark.parametrize("workers", [0, 1])
def test_the_train_loader_names_the_file_also_from_a_worker(files: Files, workers: int) -> None:
    for name in ("a.jpg", "b.png"):
        dirty.image(name, lambda data: data[: len(data) // 2])(files)
    with registered(files) as cfg:
        cfg.DATALOADER.NUM_WORKERS = workers
        loader = build_train_loader(cfg)
        with pytest.raises(DataError) as caught:
            next(iter(loader))
    assert str(files.images) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_test_loader_names_the_file(files: Files) -> None:
    dirty.image("b.png", lambda data: b"")(files)
    with registered(files) as cfg:
        batches = iter(build_test_loader(cfg, NAME))
        assert next(batches)[0]["image"].shape == (3, dirty.HEIGHT, dirty.WIDTH)
        with pytest.raises(DataError, match=r"b\.png"):
            next(batches)
        dirty.text(lambda text: text[:-1])(files)
        with pytest.raises(DataError, match=r"data\.json"):
            build_test_loader(cfg, NAME)


def test_lazy_configs_name_the_file_with_any_mapper(files: Files) -> None:
    dirty.image("a.jpg", lambda data: b"")(files)
    with registered(files):
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
        dirty.text(lambda text: text[:-1])(files)
        with pytest.raises(DataError, match=r"data\.json"):
            instantiate_loader(config)


def test_clean_data_passes_as_through_detectron2s_own_loader(files: Files) -> None:
    with registered(files) as cfg:
        cfg.INPUT.RANDOM_FLIP = "none"
        cfg.SEED = 3
        ours, theirs = build_train_loader(cfg), build_detection_train_loader(cfg)
        for loaders in itertools.islice(zip(ours, theirs, strict=False), 4):
            mine, stock = (batch[0] for batch in loaders)
            assert mine["instances"].gt_boxes.tensor.shape[1] == 4
            assert mine.keys() == stock.keys()
    records = [{"file_name": str(files.images / "a.jpg"), "n": n} for n in range(2)]
    assert [DataErrorMapper(lambda record: record["n"])(record) for record in records] == [0, 1]


def test_more_categories_than_classes_stop_before_the_first_step(files: Files) -> None:
    with registered(files) as cfg:
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
        with pytest.raises(ConfigError, match="NUM_CLASSES"):
            build_train_loader(cfg)
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
        build_train_loader(cfg)


def test_keypoints_without_a_flip_map_stop_before_data_is_read(files: Files) -> None:
    dirty.text(lambda text: "")(files)  # it is not read
    with registered(files, keypoint_flip_map=None) as cfg:
        with pytest.raises(ConfigError, match=NAME):
            check_metadata(Run.from_config(cfg))
        cfg.MODEL.KEYPOINT_ON = False
        check_metadata(Run.from_config(cfg))


def test_an_error_keeps_its_line_between_processes() -> None:
    error = DataError("image 'a: b.jpg': it is bad; DataErrors happen")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    try:
        raise error
    except DataError:
        wrapped = ExceptionWrapper(where="in a worker")
    with pytest.raises(DataError) as caught:
        wrapped.reraise()
    assert str(caught.value) == str(error)
    assert "Traceback" in caught.value.__notes__[0]


# Fuzz

JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 1, 2, 17, 10**6, 2**53, 2**63, 10**30, 10**400])
    | st.floats()
    | st.sampled_from(["", "1", "a.jpg", "b.png", "../images/a.jpg", "person", "\ud800", "\0"])
    | st.text(max_size=5)
    | st.lists(st.none() | st.floats() | st.integers(-5, 60), max_size=9)
    | st.lists(st.lists(st.integers(-5, 60) | st.floats(), max_size=8), max_size=2)
    | st.dictionaries(st.sampled_from(["size", "counts", "id"]), st.integers(0, 50), max_size=2)
    | st.fixed_dictionaries(
        {
            "size": st.just([dirty.HEIGHT, dirty.WIDTH]),
            "counts": st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=9)
            | st.lists(st.integers(0, dirty.PIXELS), max_size=4),
        }
    )
)
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 2**16),
        st.sampled_from(["put", "put", "drop", "repeat", "swap", "shift", "scale"]),
        JUNK,
        st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=4,
)


def places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield all containers in JSON data with each of their keys."""
    keys = list(node) if isinstance(node, dict) else range(len(node))
    for key in keys:
        yield node, key
        if isinstance(node[key], dict | list):
            yield from places(node[key])


def mutate(content: dict[str, Any], where: int, how: str, junk: Any, other: int) -> None:
    found = list(places(content))
    if not found:
        return
    node, key = found[where % len(found)]
    value = node[key]
    is_number = type(value) in (int, float)
    if how == "put":
        node[key] = junk
    elif how == "drop":
        del node[key]
    elif how == "repeat" and isinstance(node, list):
        node.append(copy.deepcopy(value))
    elif how == "swap":
        other_node, other_key = found[other % len(found)]
        node[key] = copy.deepcopy(other_node[other_key])
    elif how == "shift" and is_number and type(junk) in (int, float):
        node[key] = value + min(max(junk, -(10**9)), 10**9)
    elif how == "scale" and is_number:
        node[key] = value * (other % 7 - 2)


def assert_told_or_trained(files: Files, text: str) -> None:
    """Check and train on an annotation file: the two must agree on whether it can be used."""
    files.annotations.write_text(text, encoding="utf-8")
    report = checked(files)
    report.as_text().encode()
    json.dumps(report.as_dict())
    with registered(files) as cfg:
        items, error = attempted(cfg)
    if error is not None:
        assert report.count(Severity.ERROR), error
        assert "\n" not in str(error)
    elif not report.count(Severity.ERROR):
        assert sum(len(item["instances"]) for item in items) == objects(files)


@fuzz
@given(mutations=MUTATIONS)
def test_fuzz_annotations(files: Files, mutations: list[tuple[int, str, Any, int]]) -> None:
    content = dirty.clean()
    for mutation in mutations:
        mutate(content, *mutation)
    assert_told_or_trained(files, json.dumps(content))


@fuzz
@given(at=st.integers(0, 2400), length=st.integers(0, 40), junk=st.text(max_size=3))
def test_fuzz_the_text_of_an_annotation_file(files: Files, at: int, length: int, junk: str) -> None:
    text = json.dumps(dirty.clean())
    assert_told_or_trained(files, text[:at] + junk + text[at + length :])


@fuzz
@given(
    name=st.sampled_from(["a.jpg", "b.png"]),
    edits=st.lists(st.tuples(st.floats(0, 0.999), st.binary(max_size=4)), max_size=3),
    keep=st.floats(0.5, 1),
)
def test_fuzz_image_files(
    files: Files, name: str, edits: list[tuple[float, bytes]], keep: float
) -> None:
    path = files.images / name
    good = path.read_bytes()
    data = bytearray(good)
    for place, patch in edits:
        at = int(place * len(data))
        data[at : at + len(patch)] = patch
    path.write_bytes(data[: int(keep * len(data))])
    report = checked(files)
    with registered(files) as cfg:
        _, error = attempted(cfg)
    path.write_bytes(good)
    assert bool(report.count(Severity.ERROR)) == (error is not None)
    assert error is None or str(path) in str(error)
