"""The seam between images and video: what the engine and the scripts ask of a task.

A task is a package with a module ``task.py`` that exports ``TASK``: ``nl_detectron/detection`` and
``nl_detectron/video``. It is imported when a config asks for it, so detection does not need the
libraries that read videos. Nothing outside the two packages assumes either of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from .config import Config

# By the class of the model. Any other class is a detector, as in Detectron2 itself.
_PACKAGES = {"VideoClassifier": "video"}
_DEFAULT_PACKAGE = "detection"


class BuildEvaluator(Protocol):
    def __call__(
        self, cfg: Config, name: str, output_dir: str | None = None
    ) -> DatasetEvaluator: ...


def _whole_loader(cfg: Config, name: str, model: nn.Module, loader: Any, evaluator: Any) -> Any:
    return loader


def _nothing(cfg: Config) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Task:
    """What differs between tasks, besides the model. `cfg` is a YAML config or a LazyConfig.

    Args:
        build_train_loader: ``(cfg)``: batches, each a list of dicts, without end.
        build_test_loader: ``(cfg, name)``: batches of the data set `name`, each sample once.
        build_evaluator: ``(cfg, name, output_dir=None)``: its metrics. Files go to `output_dir`,
            by default to ``OUTPUT_DIR/inference``.
        go_on: ``(cfg, name, model, loader, evaluator)``: the loader without the samples of which
            the evaluator has results already, from an evaluation of `model` that was cut off.
        check: ``(cfg)``: raise `ConfigError` for what cannot be trained or evaluated, from
            the config and the metadata of its data sets alone, before a process starts.
        start: ``(cfg)``: remove what an earlier run left in ``OUTPUT_DIR`` and a new one would
            take for its own; before each run that is not resumed.
        report: ``(cfg)``: log at the end of a run, also of one that failed, what it left out.
    """

    build_train_loader: Callable[[Config], Iterable[list[dict[str, Any]]]]
    build_test_loader: Callable[[Config, str], Iterable[list[dict[str, Any]]]]
    build_evaluator: BuildEvaluator
    check: Callable[[Config], None]
    go_on: Callable[[Config, str, nn.Module, Any, Any], Any] = _whole_loader
    start: Callable[[Config], None] = _nothing
    report: Callable[[Config], None] = _nothing


def task_of(cfg: Config) -> Task:
    """Return the task of a config, by the class of its model (``MODEL.META_ARCHITECTURE``)."""
    if isinstance(cfg, CfgNode):
        name = cfg.MODEL.META_ARCHITECTURE
    else:
        target = cfg.model.get("_target_", "")
        name = str(getattr(target, "__name__", target)).rpartition(".")[2]
    package = _PACKAGES.get(name, _DEFAULT_PACKAGE)
    return import_module(f".{package}.task", __package__).TASK


def is_video(cfg: CfgNode) -> bool:
    """Whether a config's model takes videos."""
    return _PACKAGES.get(cfg.MODEL.META_ARCHITECTURE) == "video"
