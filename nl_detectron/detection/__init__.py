"""Detection in images: loaders whose errors name the bad file, and the evaluator."""

from ..data.build import DataError, DataErrorMapper, build_test_loader, build_train_loader
from ..evaluation.coco_evaluation import build_evaluator

__all__ = [
    "DataError",
    "DataErrorMapper",
    "build_evaluator",
    "build_test_loader",
    "build_train_loader",
]
