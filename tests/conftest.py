"""Fixtures of all tests: one torch thread per process, separate catalogs, and small models."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dirty
import pytest
import setuptools  # noqa: F401  (before anything imports distutils, which it then refuses to replace)
import tiny_run
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from nl_detectron.commands import check
from nl_detectron.config import load_config
from nl_detectron.layers import nonlocal_ops, pair_sum


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """pytest-xdist runs a process a core; more threads would only fight."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def own_catalogs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the datasets that a test registers."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", catalog.data.copy())


@pytest.fixture(params=[10**9, 0], ids=["small", "large"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways of small inputs, and of large ones in several chunks, at any size."""
    monkeypatch.setattr(nonlocal_ops, "EXPLICIT_MAX_ELEMENTS", request.param)
    monkeypatch.setattr(pair_sum, "EXPLICIT_MAX_PER_POSITION", request.param)
    monkeypatch.setattr(pair_sum, "CHUNK_CHANNELS", 3)


@pytest.fixture
def fpn_cfg() -> CfgNode:
    """A small keypoint R-CNN with stock backbone and head: ResNet-18, FPN, frozen norms."""
    return load_config(
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
        [
            *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""),
            *("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
            *("MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_HEADS.NUM_CLASSES", 2),
            *("MODEL.ROI_BOX_HEAD.NUM_FC", 1, "MODEL.ROI_BOX_HEAD.FC_DIM", 16),
            *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 14),
            *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [16] * 8),
            *("MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", 0),
        ],
    )


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `tiny_run` with ``weights.pth``, random ones that predict something at least."""
    folder = tmp_path_factory.mktemp("detector")
    tiny_run.write_run(folder, heads=True)
    torch.manual_seed(3)
    model = build_model(load_config(folder / "tiny.yaml"))
    torch.save({"model": model.state_dict()}, folder / "weights.pth")
    return folder


@pytest.fixture
def files(tmp_path: Path) -> dirty.Files:
    """A clean dataset, for tests to spoil."""
    return dirty.written(tmp_path)


@pytest.fixture
def check_tool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., tuple[int, list[dict[str, Any]]]]:
    """Return a function that runs ``check_dataset.py`` and returns its status and its JSON."""

    def run(*arguments: object) -> tuple[int, list[dict[str, Any]]]:
        monkeypatch.setattr("sys.argv", ["check_dataset.py", "--json", *map(str, arguments)])
        status = check.main()
        return status, json.loads(capsys.readouterr().out)

    return run
