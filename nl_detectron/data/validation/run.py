"""Comparison of a config with its datasets, and of the datasets with each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, Self

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf

from ...config import CLASSES_KEYS, dataset_names
from ...utils.errors import short_repr
from ..catalog import classes_differ
from .coco import Coco, Expected
from .kinds import Problem


@dataclass(frozen=True, kw_only=True)
class Run(Expected):
    """The datasets of a config, and its requirements for them.

    Attributes:
        train: names of the datasets to train on.
        test: names of the datasets to evaluate on.
        num_classes: class count of the model; None if it is unknown.
        oks_sigmas: constants of the keypoint evaluation; empty for COCO's 17.
        classes_key: the config's key of `num_classes`.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    num_classes: int | None
    oks_sigmas: tuple[float, ...]
    classes_key: str = "MODEL.ROI_HEADS.NUM_CLASSES"

    @classmethod
    def of(cls, cfg: CfgNode | DictConfig) -> Self:
        """Return the run of a YAML config or a LazyConfig."""
        return cls.from_config(cfg) if isinstance(cfg, CfgNode) else cls.from_lazy_config(cfg)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Self:
        key = CLASSES_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
        head, has_keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD, cfg.MODEL.KEYPOINT_ON
        return cls(
            train=tuple(cfg.DATASETS.TRAIN),
            test=tuple(cfg.DATASETS.TEST),
            masks=cfg.MODEL.MASK_ON,
            mask_format=cfg.INPUT.MASK_FORMAT,
            keypoints=has_keypoints,
            num_keypoints=head.NUM_KEYPOINTS if has_keypoints else None,
            num_classes=attrgetter(key)(cfg) if key else None,
            oks_sigmas=tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS),
            classes_key=key or cls.classes_key,
        )

    @classmethod
    def from_lazy_config(cls, cfg: DictConfig) -> Self:
        value = partial(OmegaConf.select, cfg)
        mapper, evaluators = "dataloader.train.mapper", value("dataloader.evaluator") or []
        evaluators = [evaluators] if OmegaConf.is_dict(evaluators) else evaluators
        sigmas = [e.get("kpt_oks_sigmas") for e in evaluators if OmegaConf.is_dict(e)]
        key = "model.roi_heads.num_classes" if value("model.roi_heads") else "model.num_classes"
        return cls(
            train=dataset_names(cfg, "train"),
            test=dataset_names(cfg, "test"),
            masks=value(f"{mapper}.use_instance_mask", default=False),
            mask_format=value(f"{mapper}.instance_mask_format", default="polygon"),
            keypoints=value(f"{mapper}.use_keypoint", default=False),
            num_keypoints=value("model.roi_heads.keypoint_head.num_keypoints"),
            num_classes=value(key),
            oks_sigmas=next((tuple(found) for found in sigmas if found), ()),
            classes_key=key,
        )

    def expected(self, name: str) -> Expected:
        """Return the requirements for the dataset `name`."""
        if name not in self.train:
            return replace(self, role="test")
        return replace(self, role=None if name in self.test else "train")


def problems_of_metadata(run: Run) -> Iterator[Problem]:
    """Yield problems of the metadata of keypoints, without reading a dataset."""
    if not run.keypoints:
        return
    points, sigmas = run.num_keypoints, len(run.oks_sigmas) or 17
    for name in run.train:
        metadata, where = MetadataCatalog.get(name), f"dataset '{name}'"
        names, flips = metadata.get("keypoint_names"), metadata.get("keypoint_flip_map")
        if names is None or flips is None:
            yield Problem("no-flip-map", where, "no keypoint_names or no keypoint_flip_map")
        elif points not in (None, len(names)):
            detail = f"{points} in the model, {len(names)} keypoint_names"
            yield Problem("keypoint-number", where, detail)
    if run.test and points not in (None, sigmas):
        yield Problem("oks-sigmas", "the config", f"{sigmas} for {points} keypoints")


class Summary(NamedTuple):
    """Categories in the order of ids, and paths of the files of a dataset."""

    name: str
    categories: list[str]
    files: set[str]

    @classmethod
    def of(cls, name: str, coco: Coco, images: Path) -> Self:
        ids = sorted(coco.category_by_id.items(), key=lambda item: (str(type(item[0])), item[0]))
        files = {str(images / i["file_name"]) for i in coco.images if i.get("file_name")}
        return cls(name, [str(category.get("name")) for _, category in ids], files)


def problems_between(run: Run, summaries: Sequence[Summary]) -> Iterator[Problem]:
    """Yield the problems of datasets with the model, their metadata, or each other."""
    train = [s for s in summaries if s.name in run.train]
    for summary in summaries:
        yield from problems_of_categories(run, summary, (train or summaries)[0])
        for other in train if summary.name not in run.train else ():
            where = f"datasets '{other.name}' and '{summary.name}'"
            for file in sorted(summary.files & other.files):
                yield Problem("file-in-train-and-test", where, repr(file))


def problems_of_categories(run: Run, summary: Summary, first: Summary) -> Iterator[Problem]:
    """Yield the problems of a dataset's categories with the model, its metadata, and `first`."""
    metadata = MetadataCatalog.get(summary.name)
    where = f"dataset '{summary.name}' ({metadata.get('json_file', 'no annotation file')})"
    number = len(summary.categories)
    classes = number if run.num_classes is None else run.num_classes
    if number > classes or (0 < number < classes and summary.name in run.test):
        kind = "too-many-categories" if number > classes else "too-few-categories"
        detail = f"{number} categories {short_repr(summary.categories)}"
        yield Problem(kind, where, f"{detail}, but {run.classes_key} is {classes}")
    in_metadata = metadata.get("thing_classes")
    for other, names in (("its metadata", in_metadata), (f"'{first.name}'", first.categories)):
        if classes_differ(names, summary.categories):
            detail = f"{short_repr(summary.categories)}, but in {other} {short_repr(names)}"
            yield Problem("categories-differ", where, detail)
