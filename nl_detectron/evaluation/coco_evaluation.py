"""Evaluators of a dataset: Detectron2's, by its ``evaluator_type``."""

import copy
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
from detectron2.config import CfgNode, instantiate
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from detectron2.utils.file_io import PathManager
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from ..config import Config
from ..data.build import annotation_errors
from ..data.validation.kinds import error_text
from ..utils.errors import UserError

_UNLIMITED = 10**6  # detections per image if TEST.DETECTIONS_PER_IMAGE is negative


def build_evaluator(cfg: Config, name: str, output_dir: str | None = None) -> DatasetEvaluator:
    """Return the evaluator of a dataset, as Detectron2's ``train_net.py`` does.

    COCO's AP is measured for boxes, for masks with ``MODEL.MASK_ON``, and for keypoints with
    ``MODEL.KEYPOINT_ON`` if the metadata has ``keypoint_names``. The COCO API computes it from up
    to 100 detections per image, or ``TEST.DETECTIONS_PER_IMAGE`` if that is more.

    A LazyConfig has its own ``dataloader.evaluator``: one, or a list.

    Args:
        cfg: a YAML config or a LazyConfig.
        name: name of the dataset.
        output_dir: folder of the results; ``OUTPUT_DIR/inference`` by default.

    Raises:
        UserError: the ``evaluator_type`` is unknown, or the dataset does not suit its evaluator.
        DataError: an annotation cannot be evaluated.
    """
    if isinstance(cfg, DictConfig):
        return _instantiate(cfg.dataloader.evaluator, cfg)
    kind = MetadataCatalog.get(name).get("evaluator_type", "coco")
    if kind not in _EVALUATORS:
        raise UserError(
            f"dataset '{name}' has evaluator_type '{kind}'; expected one of "
            f"{', '.join(_EVALUATORS)}, or a Trainer that overrides build_evaluator"
        )
    output_dir = output_dir or os.path.join(cfg.OUTPUT_DIR, "inference")
    try:
        with annotation_errors([name]):
            evaluators = [build(cfg, name, output_dir) for build in _EVALUATORS[kind]]
    except (AssertionError, AttributeError, KeyError, OSError) as error:
        raise UserError(
            f"dataset '{name}' cannot be evaluated as '{kind}': {error_text(error)}"
        ) from error
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _coco(cfg: CfgNode, name: str, output_dir: str) -> COCOEvaluator:
    tasks = ["bbox"]
    if cfg.MODEL.MASK_ON:
        tasks.append("segm")
    if cfg.MODEL.KEYPOINT_ON and MetadataCatalog.get(name).get("keypoint_names"):
        tasks.append("keypoints")
    evaluator = COCOEvaluator(
        name,
        tasks=tuple(tasks),
        output_dir=output_dir,
        max_dets_per_image=_max_detections(cfg.TEST.DETECTIONS_PER_IMAGE),
        use_fast_impl=False,
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
        allow_cached_coco=False,
    )
    _complete_annotations(evaluator)
    return evaluator


class _LVISEvaluator(LVISEvaluator):
    def evaluate(self) -> dict[str, dict[str, float]] | None:
        # The newest release of lvis, 0.5.3, uses an alias that NumPy 1.24 has removed.
        with mock.patch.object(np, "float", float, create=True):
            return super().evaluate()


def _lvis(cfg: CfgNode, name: str, output_dir: str) -> LVISEvaluator:
    limit = _max_detections(cfg.TEST.DETECTIONS_PER_IMAGE, 300)
    return _LVISEvaluator(name, output_dir=output_dir, max_dets_per_image=limit)


def _sem_seg(cfg: CfgNode, name: str, output_dir: str) -> SemSegEvaluator:
    return SemSegEvaluator(name, output_dir=output_dir, sem_seg_loading_fn=_read_labels)


def _read_labels(file_name: str, dtype: Any) -> np.ndarray:
    """Read class labels ``(H, W)``. Detectron2's own function raises with NumPy 2."""
    with PathManager.open(file_name, "rb") as file:
        return np.asarray(Image.open(file), dtype=dtype)


def _panoptic(cfg: CfgNode, name: str, output_dir: str) -> COCOPanopticEvaluator:
    return COCOPanopticEvaluator(name, output_dir)


def _by_name(evaluator: type[DatasetEvaluator]) -> Callable[..., DatasetEvaluator]:
    return lambda cfg, name, output_dir: evaluator(name)


_EVALUATORS: dict[str, tuple[Callable[..., DatasetEvaluator], ...]] = {
    "coco": (_coco,),
    "coco_panoptic_seg": (_sem_seg, _coco, _panoptic),
    "sem_seg": (_sem_seg,),
    "lvis": (_lvis,),
    "pascal_voc": (_by_name(PascalVOCDetectionEvaluator),),
    "cityscapes_instance": (_by_name(CityscapesInstanceEvaluator),),
    "cityscapes_sem_seg": (_by_name(CityscapesSemSegEvaluator),),
}


def _max_detections(limit: int, least: int = 100) -> int:
    return max(least, limit) if limit >= 0 else _UNLIMITED


def _instantiate(config: DictConfig | ListConfig, cfg: DictConfig) -> DatasetEvaluator:
    """Return the evaluator of a LazyConfig; a list becomes one evaluator."""
    if isinstance(config, ListConfig):
        return DatasetEvaluators([_instantiate(item, cfg) for item in config])
    target = config.get("_target_")
    if (locate(target) if isinstance(target, str) else target) is not COCOEvaluator:
        return instantiate(config)
    limit = OmegaConf.select(cfg, "model.roi_heads.box_predictor.test_topk_per_image")
    limit = limit or OmegaConf.select(cfg, "model.max_detections_per_image") or 100
    config = copy.deepcopy(config)
    config.setdefault("allow_cached_coco", False)
    config.setdefault("max_dets_per_image", _max_detections(limit))
    evaluator = instantiate(config)
    _complete_annotations(evaluator)
    return evaluator


def _complete_annotations(evaluator: COCOEvaluator) -> None:
    """Add missing values to annotations that COCO's API reads and Detectron2's loader does not.

    ``iscrowd`` is 0, ``area`` that of the mask, or of the box without a mask, and
    ``num_keypoints`` counts the known points.
    """
    coco = evaluator._coco_api
    for annotation in coco.dataset.get("annotations", ()):
        if annotation["image_id"] not in coco.imgs:
            continue
        if annotation.get("iscrowd") is None:
            annotation["iscrowd"] = 0
        if not annotation.get("area"):
            annotation["area"] = _area(coco, annotation)
        if "keypoints" in annotation and annotation.get("num_keypoints") is None:
            annotation["num_keypoints"] = sum(v > 0 for v in annotation["keypoints"][2::3])


def _area(coco: COCO, annotation: dict[str, Any]) -> float:
    if annotation.get("segmentation"):
        return float(mask_util.area(coco.annToRLE(annotation)))
    return annotation["bbox"][2] * annotation["bbox"][3]
