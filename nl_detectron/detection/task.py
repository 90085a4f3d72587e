"""Detection of objects in images, with masks and keypoints, as a task of the engine."""

from ..data.build import build_test_loader, build_train_loader, check_metadata
from ..data.validation.run import Run
from ..evaluation.coco_evaluation import build_evaluator
from ..tasks import Task

TASK = Task(
    build_train_loader=build_train_loader,
    build_test_loader=build_test_loader,
    build_evaluator=build_evaluator,
    check=lambda cfg: check_metadata(Run.of(cfg)),
)
