"""Configs and models by name, with a table of their results.

``model_zoo.csv`` has a row per config: published figures, figures measured with this code,
parameters and multiply-adds, and a checkpoint. Sources: arXiv 1711.07971, Tables 2 to 6 (paper);
MODEL_ZOO.md of facebookresearch/detectron2 (detectron2); README of
facebookresearch/video-nonlocal-net (official).
"""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from torch import nn

from ..checkpoint import Checkpointer
from ..config import add_nonlocal_config, load_any_config, setting
from ..utils.errors import UserError, nearest

TABLE = Path(__file__).with_suffix(".csv")

Figures = tuple[float | None, ...]
"""Figures of one metric, one per column; None where the source does not give it."""


class ModelZooError(UserError, RuntimeError):
    """A config or a trained model that the zoo does not have, or a file that is not the zoo's."""


@dataclass(frozen=True)
class Metric:
    """A group of figures, in %. The first one is compared.

    Args:
        name: name in the tables.
        key: the figures are called ``<key>/<column>`` in a run's ``metrics.json``.
        columns: names of the figures.
    """

    name: str
    key: str
    columns: tuple[str, ...]


METRICS = {
    metric.name: metric
    for metric in (
        Metric("box", "bbox", ("AP", "AP50", "AP75")),
        Metric("mask", "segm", ("AP", "AP50", "AP75")),
        Metric("keypoint", "keypoints", ("AP", "AP50", "AP75")),
        Metric("video", "video", ("top1", "top5")),
        Metric("actions", "video", ("mAP",)),
    )
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One config of the zoo.

    Attributes:
        config: file name relative to ``configs/``, with ``.yaml``; a ``.py`` of the same name is
            the same model.
        section: table of the README that it belongs to.
        name: short name, unique in its section.
        model: network, without blocks and schedule.
        task: ``box``, ``mask``, ``keypoint`` or ``video``.
        metrics: metrics that evaluate it.
        schedule: name of the schedule; the README explains it.
        blocks: its non-local blocks, in words; empty for a baseline.
        baseline: config of the same model without blocks; empty for a baseline.
        paper: the paper's figures by metric, given to the config with the nearest recipe.
        detectron2: figures of Detectron2's own model with the same recipe, without blocks.
        official: figures of the authors' own code with the same recipe.
        measured: figures of this code; empty for a config that nobody has run.
        parameters: learned and frozen weights.
        multiply_adds: multiply-adds of one forward pass on the table's ``input``, frames x height
            x width.
        checkpoint: address of a trained model; empty where there is none.
        sha256: SHA-256 of that file, in hexadecimal.
    """

    config: str
    section: str
    name: str
    model: str
    task: str
    metrics: tuple[Metric, ...]
    schedule: str
    blocks: str
    baseline: str
    paper: Mapping[str, Figures]
    detectron2: Mapping[str, Figures]
    official: Mapping[str, Figures]
    measured: Mapping[str, Figures]
    parameters: int
    multiply_adds: int
    checkpoint: str
    sha256: str


def read_rows() -> list[dict[str, str]]:
    """Return the rows of ``model_zoo.csv``."""
    with open(TABLE, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def make_entry(row: Mapping[str, str]) -> Entry:
    """Return the entry of a row of ``model_zoo.csv``."""

    def figures(source: str) -> dict[str, Figures]:
        found = {}
        for metric in METRICS.values():
            values = [row.get(f"{source}_{metric.name}_{column}") for column in metric.columns]
            if values[0]:
                found[metric.name] = tuple(float(value) if value else None for value in values)
        return found

    return Entry(
        config=row["config"],
        section=row["section"],
        name=row["name"],
        model=row["model"],
        task=row["task"],
        schedule=row["schedule"],
        blocks=row["blocks"],
        baseline=row["baseline"],
        paper=figures("paper"),
        detectron2=figures("detectron2"),
        official=figures("official"),
        measured=figures("measured"),
        checkpoint=row["checkpoint"],
        sha256=row["sha256"],
        metrics=tuple(METRICS[name] for name in row["metrics"].split()),
        parameters=int(row["parameters"]),
        multiply_adds=int(row["multiply_adds"]),
    )


ENTRIES = tuple(make_entry(row) for row in read_rows())


def find_entry(config_path: str) -> Entry | None:
    """Return the entry of a config, ``.yaml`` or ``.py``, or None if the zoo has none."""
    name = config_path.removesuffix(".py").removesuffix(".yaml") + ".yaml"
    return next((entry for entry in ENTRIES if entry.config == name), None)


def get_config_file(config_path: str) -> str:
    """Return the path of a config file of the package.

    Args:
        config_path: name relative to ``configs/``, with ``.yaml`` or ``.py``, e.g.
            ``"COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml"``.

    Raises:
        ModelZooError: a RuntimeError, if there is no such file.
    """
    path = Path(str(files("nl_detectron").joinpath("configs", config_path)))
    if not path.is_file():
        raise ModelZooError(
            f"{config_path} not available in Model Zoo!"
            f"{nearest(config_path, [entry.config for entry in ENTRIES])}"
        )
    return str(path)


def get_checkpoint_url(config_path: str) -> str:
    """Return the address of the model that was trained with a config.

    Args:
        config_path: as for `get_config_file`.

    Raises:
        ModelZooError: a RuntimeError, if there is no trained model; it gives the command that
            trains one.
    """
    get_config_file(config_path)
    entry = find_entry(config_path)
    if entry is None or not entry.checkpoint:
        raise ModelZooError(
            f"Pretrained model for {config_path} is not available! To train it: nl-detectron "
            f"train --config-file {config_path} --num-gpus 8"
        )
    return entry.checkpoint


def get_config(config_path: str, trained: bool = False) -> Any:
    """Return the config of a model: a CfgNode for ``.yaml``, a DictConfig for ``.py``.

    Args:
        config_path: as for `get_config_file`.
        trained: start from the zoo's trained model instead of the config's own weights.

    Raises:
        ModelZooError: see `get_config_file` and `get_checkpoint_url`.
    """
    config_file = get_config_file(config_path)
    if config_file.endswith(".py"):
        cfg = LazyConfig.load(config_file)
        if trained:
            cfg.train.init_checkpoint = get_checkpoint_url(config_path)
        return cfg
    cfg = get_cfg()
    add_nonlocal_config(cfg)
    cfg.merge_from_file(config_file)
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
    return cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> nn.Module:
    """Return a model, in training mode, with the weights that its config names.

    Args:
        config_path: as for `get_config_file`.
        trained: load the zoo's trained model, after its SHA-256 has been checked. Otherwise the
            config's own weights are loaded, usually a network pretrained on ImageNet.
        device: device of the model. Default: the config's device, the CPU where there is no GPU.

    Raises:
        ModelZooError: also if the downloaded file is not the one in the table.
    """
    cfg = load_any_config(get_config_file(config_path), device=device)
    weights = _download(config_path) if trained else setting(cfg, "MODEL.WEIGHTS")
    model = (
        build_model(cfg)
        if isinstance(cfg, CfgNode)
        else instantiate(cfg.model).to(cfg.train.device)
    )
    Checkpointer(model).load(weights)
    return model


def _download(config_path: str) -> str:
    """Download the trained model of a config and return its path, if its SHA-256 is right."""
    path = PathManager.get_local_path(get_checkpoint_url(config_path))
    expected = find_entry(config_path).sha256  # type: ignore[union-attr]
    with open(path, "rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if actual != expected:
        raise ModelZooError(
            f"{path} is not the checkpoint of the Model Zoo: expected SHA-256 {expected}, got "
            f"{actual}; nothing was loaded, delete the file to download it again"
        )
    return path
