"""Accuracy or average precision of videos and of single clips."""

import logging
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn

from ..data.video.build import TestLoader, build_test_loader, load_videos
from ..utils.errors import UserError
from .metrics import label_ranks, mean_average_precision
from .score_file import ScoreFile, weights_digest

logger = logging.getLogger(__name__)


class VideoEvaluator(DatasetEvaluator):
    """Top-1 and top-5 accuracy, or mean average precision for videos with several labels.

    The results are in %: ``top1``, ``top5`` or ``mAP`` of videos, by their pooled scores, and
    ``clip_top1``, ``clip_top5`` or ``clip_mAP``, with every view as one sample. Each video counts
    exactly once, with any number of processes.

    A finished video's scores go to a file at once, so memory stays bounded. After `resume`, the
    scores of an interrupted evaluation count, if the weights and the settings are the same.

    Args:
        records: ``video_id`` and ``labels`` (list of int) of each video in the dataset.
        name: name of the dataset.
        num_classes: C.
        num_views: V, the number of views of each video.
        multi_label: measure mean average precision instead of accuracy.
        protocol: description for the results, e.g. "10 clips x 3 crops of 256, mean of softmax".
        settings: all settings that the scores depend on, as text.
        output_dir: folder of ``scores_<name>.npz``, which has ``video_id``, ``scores`` (N, C),
            ``labels`` bool (N, C) and ``protocol``.
        groups: class indices by name of the group; each group adds a ``top1-<name>``.
        allow_missing: count and skip videos without scores, instead of raising an error.
    """

    def __init__(
        self,
        records: Sequence[Mapping[str, Any]],
        *,
        name: str,
        num_classes: int,
        num_views: int,
        multi_label: bool,
        protocol: str,
        settings: str,
        output_dir: str | os.PathLike[str],
        groups: Mapping[str, Sequence[int]] | None = None,
        allow_missing: bool = False,
    ) -> None:
        self.name = name
        self.multi_label = multi_label
        self.protocol = protocol
        self.output_dir = Path(output_dir)
        self.groups = groups or {}
        self.allow_missing = allow_missing
        self._ids = [record["video_id"] for record in records]
        self._positions = {video_id: i for i, video_id in enumerate(self._ids)}
        self._labels = np.zeros((len(records), num_classes), bool)
        labels = [list(record["labels"]) for record in records]
        for i, of_video in enumerate(labels):
            self._labels[i, of_video] = True
        self._settings = "\0".join([name, protocol, settings, repr(self._ids), repr(labels)])
        self._shape = (num_views, num_classes)
        # Average precision needs all scores of a view, accuracy only the rank of the label.
        views = ("<f4", self._shape) if multi_label else ("<i4", (num_views,))
        self._dtype = np.dtype(
            [("position", "<i8"), ("scores", "<f4", (num_classes,)), ("views", *views)]
        )
        self._file: ScoreFile | None = None

    def resume(self, model: nn.Module) -> frozenset[Any]:
        """Continue an interrupted evaluation of the same weights; call this in all processes.

        Returns:
            Ids of the finished videos, which the loader must skip.
        """
        self._open(weights_digest(model))
        assert self._file is not None
        found = comm.all_gather(self._file.read()["position"].tolist())
        done = frozenset(self._ids[i] for positions in found for i in positions)
        if done:
            logger.info(
                f"{self.name}: using the scores of {len(done)} of {len(self._ids)} videos from an "
                "interrupted evaluation of the same weights"
            )
        return done

    def reset(self) -> None:
        if self._file is None:
            self._open(comm.all_gather(uuid.uuid4().hex)[0])

    def process(self, inputs: Iterable[Mapping], outputs: Iterable[Mapping]) -> None:
        assert self._file is not None, "reset() comes first"
        for video, output in zip(inputs, outputs, strict=True):
            views = output["view_scores"].cpu().numpy()
            record = np.zeros((), self._dtype)
            position = record["position"] = self._positions[video["video_id"]]
            record["scores"] = output["scores"].cpu().numpy()
            self._check_finite([position], np.vstack([views, record["scores"]])[None])
            if not self.multi_label:
                views = label_ranks(views, np.broadcast_to(self._labels[position], views.shape))
            record["views"] = views
            self._file.append(record)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        assert self._file is not None, "reset() comes first"
        gathered = comm.gather(self._file.read())
        if not comm.is_main_process():
            self._file = None
            return None
        records = np.concatenate(gathered)
        records = records[np.argsort(records["position"], kind="stable")]
        self._check_complete(records["position"])
        metrics = self._metrics(records)
        self._write(records)
        logger.info(
            f"{self.name}, {len(records)} videos, {self.protocol}: "
            + ", ".join(f"{key} {value:.2f}" for key, value in metrics.items())
        )
        self._file.remove()
        self._file = None
        return {"video": metrics}

    def _open(self, weights: str) -> None:
        self._file = ScoreFile(
            self.output_dir / f"unfinished_{self.name}",
            identity=f"{self._settings}\0{weights}",
            dtype=self._dtype,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
        )
        if comm.is_main_process():
            self._file.remove_others()
        comm.synchronize()
        self._file.open()

    def _check_complete(self, positions: np.ndarray) -> None:
        """Raise UserError unless each video was evaluated exactly once."""
        counts = np.bincount(positions, minlength=len(self._ids))
        twice = [self._ids[i] for i in np.flatnonzero(counts > 1)]
        missing = [self._ids[i] for i in np.flatnonzero(counts == 0)]
        if twice:
            raise UserError(
                f"dataset '{self.name}': {len(twice)} videos were evaluated more than once; the "
                f"first is {twice[0]!r}"
            )
        if missing and not self.allow_missing:
            raise UserError(f"dataset '{self.name}': {len(missing)} of {len(counts)} videos were "
                            f"not evaluated; the first is {missing[0]!r}")  # fmt: skip
        if missing:
            logger.warning(f"{self.name}: {len(missing)} of {len(counts)} videos have no scores")

    def _check_finite(self, positions: Sequence[int] | np.ndarray, scores: np.ndarray) -> None:
        """Raise UserError if a video has a score that is infinite or NaN, which has no rank."""
        bad = ~np.isfinite(scores).reshape(len(scores), -1).all(axis=1)
        if bad.any():
            raise UserError(
                f"dataset '{self.name}': the scores of video "
                f"{self._ids[positions[bad.argmax()]]!r} must be finite, got NaN or infinity; "
                "check the weights"
            )

    def _metrics(self, records: np.ndarray) -> dict[str, float]:
        labels, scores, views = (
            self._labels[records["position"]],
            records["scores"],
            records["views"],
        )
        if self.multi_label:
            num_views = views.shape[1]
            without = int((~labels.any(axis=0)).sum())
            if without:
                logger.warning(f"{self.name}: mAP skips {without} classes, which have no video")
            clips = views.reshape(-1, views.shape[2]), labels.repeat(num_views, axis=0)
            return {
                "mAP": 100 * mean_average_precision(scores, labels),
                "clip_mAP": 100 * mean_average_precision(*clips),
            }
        ranks = label_ranks(scores, labels)
        metrics = {
            f"{kind}top{k}": _per_cent(found < k)
            for kind, found in (("", ranks), ("clip_", views))
            for k in (1, 5)
        }
        for group, classes in self.groups.items():
            of_group = labels[:, list(classes)].any(axis=1)
            if of_group.any():
                metrics[f"top1-{group}"] = _per_cent(ranks[of_group] < 1)
        return metrics

    def _write(self, records: np.ndarray) -> None:
        np.savez(
            self.output_dir / f"scores_{self.name}.npz",
            video_id=np.array([self._ids[i] for i in records["position"]]),
            scores=records["scores"],
            labels=self._labels[records["position"]],
            protocol=np.array(self.protocol),
        )


def _per_cent(right: np.ndarray) -> float:
    return 100 * float(right.mean()) if right.size else float("nan")


def build_evaluator(cfg: CfgNode, name: str, output_dir: str | None = None) -> VideoEvaluator:
    """Return the evaluator of the dataset `name` by the test protocol of `cfg`.

    Metadata ``class_groups`` (class indices by name of the group) adds a result for each group.
    Files go to `output_dir`, by default to ``OUTPUT_DIR/inference``.
    """
    classifier = cfg.MODEL.VIDEO_CLASSIFIER
    return VideoEvaluator(
        load_videos(name),
        name=name,
        num_classes=classifier.NUM_CLASSES,
        num_views=cfg.TEST.CLIPS * cfg.TEST.CROPS,
        multi_label=classifier.MULTI_LABEL,
        protocol=protocol_of(cfg),
        settings=_scoring_settings(cfg),
        output_dir=output_dir or os.path.join(cfg.OUTPUT_DIR, "inference"),
        groups=MetadataCatalog.get(name).get("class_groups"),
        allow_missing=cfg.DATALOADER.SKIP_BAD_VIDEOS,
    )


def without_finished(cfg: CfgNode, name: str, model: nn.Module, loader: Any, evaluator: Any) -> Any:
    """Return `loader` without the videos that an interrupted evaluation of `model` has finished.

    Loaders and evaluators of other classes than ours start from the beginning.
    """
    if not (isinstance(loader, TestLoader) and isinstance(evaluator, VideoEvaluator)):
        return loader
    done = evaluator.resume(model)
    return build_test_loader(cfg, name, without=done) if done else loader


def protocol_of(cfg: CfgNode) -> str:
    """Describe the test protocol, e.g. "10 clips x 3 crops of 256, mean of softmax"."""
    probabilities = "sigmoid" if cfg.MODEL.VIDEO_CLASSIFIER.MULTI_LABEL else "softmax"
    return (
        f"{_count(cfg.TEST.CLIPS, 'clip')} x {_count(cfg.TEST.CROPS, 'crop')} of "
        f"{cfg.INPUT.MIN_SIZE_TEST}, {cfg.TEST.VIEW_POOLING} of {probabilities}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _scoring_settings(cfg: CfgNode) -> str:
    """Return the parts of `cfg` that scores of given weights depend on, as text."""
    parts = cfg.clone()
    parts.defrost()
    del parts.MODEL["WEIGHTS"], parts.MODEL["DEVICE"]
    return "\n".join(part.dump() for part in (parts.MODEL, parts.INPUT, parts.TEST))
