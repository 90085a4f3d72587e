"""Which metrics a data set is evaluated by."""

import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from ..errors import UserError


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_dir: str | None = None
) -> COCOEvaluator:
    """Return the COCO evaluator for what the model predicts and the data set annotates.

    Boxes always; masks with ``MODEL.MASK_ON``; keypoints with ``MODEL.KEYPOINT_ON`` where the data
    set's metadata has ``keypoint_names``. Results go to `output_dir` (default:
    ``OUTPUT_DIR/inference``). The COCO API itself computes the figures, not a faster variant.
    """
    metadata = MetadataCatalog.get(dataset_name)
    kind = metadata.get("evaluator_type", "coco")
    if kind != "coco":
        raise UserError(
            f"data set '{dataset_name}' wants evaluator_type '{kind}', but only 'coco' is known "
            "here; give its evaluation by overriding Trainer.build_evaluator"
        )
    tasks = ["bbox"]
    if cfg.MODEL.MASK_ON:
        tasks.append("segm")
    if cfg.MODEL.KEYPOINT_ON and metadata.get("keypoint_names"):
        tasks.append("keypoints")
    return COCOEvaluator(
        dataset_name,
        tasks=tuple(tasks),
        output_dir=output_dir or os.path.join(cfg.OUTPUT_DIR, "inference"),
        use_fast_impl=False,
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
    )
