"""Evaluation of detectors and video classifiers on a dataset."""

from detectron2.evaluation import DatasetEvaluator

from ..config import Config, is_video
from . import coco_evaluation


def build_evaluator(cfg: Config, name: str, output_dir: str | None = None) -> DatasetEvaluator:
    """Return the evaluator of the dataset `name` for the model of a config.

    Files go to `output_dir`, by default to ``OUTPUT_DIR/inference``.
    """
    if is_video(cfg):
        from . import video_evaluation  # needs PyAV, which images do not

        return video_evaluation.build_evaluator(cfg, name, output_dir)
    return coco_evaluation.build_evaluator(cfg, name, output_dir)
