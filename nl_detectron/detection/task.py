"""Detection of objects in images, with masks and keypoints, as a task of the engine."""

from omegaconf import DictConfig

from ..config import Config
from ..dataset_check import Run
from ..tasks import Task
from .evaluation import build_evaluator
from .loading import build_test_loader, build_train_loader, check_metadata


def _check(cfg: Config) -> None:
    is_lazy = isinstance(cfg, DictConfig)
    check_metadata(Run.from_lazy_config(cfg) if is_lazy else Run.from_config(cfg))


TASK = Task(
    build_train_loader=build_train_loader,
    build_test_loader=build_test_loader,
    build_evaluator=build_evaluator,
    check=_check,
)
