"""Accuracy or average precision of videos and of single clips."""

import logging
import os
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.video.build import load_videos
from ..utils.errors import UserError
from .metrics import label_ranks, mean_average_precision

logger = logging.getLogger(__name__)


class VideoEvaluator(DatasetEvaluator):
    """Top-1 and top-5 accuracy, or mean average precision for videos with several labels.

    The results are in %: ``top1``, ``top5`` or ``mAP`` of videos, by their pooled scores, and
    ``clip_top1``, ``clip_top5`` or ``clip_mAP``, with every view as one sample. Each video counts
    exactly once, with any number of processes.

    Args:
        records: ``video_id`` and ``labels`` (list of int) of each video in the dataset.
        name: name of the dataset.
        num_classes: C.
        multi_label: measure mean average precision instead of accuracy.
        protocol: description for the results, e.g. "10 clips x 3 crops of 256, mean of softmax".
        output_dir: folder of ``scores_<name>.npz``, which has ``video_id``, ``scores`` (N, C),
            ``labels`` bool (N, C) and ``protocol``.
        groups: class indices by name of the group; each group adds a ``top1-<name>``.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        *,
        name: str,
        num_classes: int,
        multi_label: bool,
        protocol: str,
        output_dir: str | os.PathLike[str],
        groups: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.name = name
        self.multi_label = multi_label
        self.protocol = protocol
        self.output_dir = Path(output_dir)
        self.groups = groups or {}
        self._ids = [record["video_id"] for record in records]
        self._positions = {video_id: i for i, video_id in enumerate(self._ids)}
        self._labels = np.zeros((len(records), num_classes), bool)
        for row, record in zip(self._labels, records, strict=True):
            row[list(record["labels"])] = True
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # by position

    def reset(self) -> None:
        self._found = {}

    def process(self, inputs: Iterable[Mapping], outputs: Iterable[Mapping]) -> None:
        for video, output in zip(inputs, outputs, strict=True):
            position = self._positions[video["video_id"]]
            scores, views = (output[key].cpu().numpy() for key in ("scores", "view_scores"))
            if not (np.isfinite(scores).all() and np.isfinite(views).all()):
                raise UserError(
                    f"dataset '{self.name}': the scores of video {video['video_id']!r} must be "
                    "finite, got NaN or infinity; check the weights"
                )
            if not self.multi_label:  # accuracy only needs the rank of the label
                views = label_ranks(views, np.broadcast_to(self._labels[position], views.shape))
            self._found[position] = scores, views

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        gathered = comm.gather(self._found)
        if not comm.is_main_process():
            return None
        found = dict(ChainMap(*gathered))
        rows = [found[position] for position in range(len(self._ids))]
        scores, views = map(np.stack, zip(*rows, strict=True))
        metrics = self._metrics(scores, views)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        np.savez(
            self.output_dir / f"scores_{self.name}.npz",
            video_id=np.array(self._ids),
            scores=scores,
            labels=self._labels,
            protocol=np.array(self.protocol),
        )
        logger.info(
            f"{self.name}, {len(found)} videos, {self.protocol}: "
            + ", ".join(f"{key} {value:.2f}" for key, value in metrics.items())
        )
        return {"video": metrics}

    def _metrics(self, scores: np.ndarray, views: np.ndarray) -> dict[str, float]:
        labels = self._labels
        if self.multi_label:
            num_views = views.shape[1]
            clips = views.reshape(-1, views.shape[2]), labels.repeat(num_views, axis=0)
            return {
                "mAP": 100 * mean_average_precision(scores, labels),
                "clip_mAP": 100 * mean_average_precision(*clips),
            }
        ranks = label_ranks(scores, labels)
        metrics = {
            f"{kind}top{k}": 100 * float((found < k).mean())
            for kind, found in (("", ranks), ("clip_", views))
            for k in (1, 5)
        }
        for group, classes in self.groups.items():
            of_group = labels[:, list(classes)].any(axis=1)
            if of_group.any():
                metrics[f"top1-{group}"] = 100 * float((ranks[of_group] < 1).mean())
        return metrics


def build_evaluator(cfg: CfgNode, name: str, output_dir: str | None = None) -> VideoEvaluator:
    """Return the evaluator of the dataset `name` by the test protocol of `cfg`.

    Metadata ``class_groups`` (class indices by name of the group) adds a result for each group.
    Files go to `output_dir`, by default to ``OUTPUT_DIR/inference``.
    """
    classifier, test = cfg.MODEL.VIDEO_CLASSIFIER, cfg.TEST
    views = f"{test.CLIPS} clips x {test.CROPS} crops of {cfg.INPUT.MIN_SIZE_TEST}"
    probabilities = "sigmoid" if classifier.MULTI_LABEL else "softmax"
    return VideoEvaluator(
        [video for video in load_videos(name) if "error" not in video],
        name=name,
        num_classes=classifier.NUM_CLASSES,
        multi_label=classifier.MULTI_LABEL,
        protocol=f"{views}, {test.VIEW_POOLING} of {probabilities}",
        output_dir=output_dir or os.path.join(cfg.OUTPUT_DIR, "inference"),
        groups=MetadataCatalog.get(name).get("class_groups"),
    )
