"""Which metrics a data set is evaluated by."""

import os
from typing import Any

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from omegaconf import DictConfig

from ..config import Config
from ..errors import UserError


def build_evaluator(cfg: Config, name: str, output_dir: str | None = None) -> Any:
    """Return the COCO evaluator for what the model predicts and the data set annotates.

    Boxes always; masks with ``MODEL.MASK_ON``; keypoints with ``MODEL.KEYPOINT_ON`` where the data
    set's metadata has ``keypoint_names``. Results go to `output_dir` (default:
    ``OUTPUT_DIR/inference``). The COCO API itself computes the figures, not a faster variant.

    A LazyConfig says itself what its ``dataloader.evaluator`` is and where results go.
    """
    if isinstance(cfg, DictConfig):
        return instantiate(cfg.dataloader.evaluator)
    metadata = MetadataCatalog.get(name)
    kind = metadata.get("evaluator_type", "coco")
    if kind != "coco":
        raise UserError(
            f"data set '{name}' wants evaluator_type '{kind}', but only 'coco' is known "
            "here; give its evaluation by overriding Trainer.build_evaluator"
        )
    tasks = ["bbox"]
    if cfg.MODEL.MASK_ON:
        tasks.append("segm")
    if cfg.MODEL.KEYPOINT_ON and metadata.get("keypoint_names"):
        tasks.append("keypoints")
    return COCOEvaluator(
        name,
        tasks=tuple(tasks),
        output_dir=output_dir or os.path.join(cfg.OUTPUT_DIR, "inference"),
        use_fast_impl=False,
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    )
