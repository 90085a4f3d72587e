"""What a config asks of its data sets, and whether they fit it and each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, Self

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig, OmegaConf

from .coco import Coco, Expected
from .kinds import Problem, error, short_repr, warning

NO_FLIP_MAP = error(
    "no-flip-map",
    "a data set for keypoints without keypoint_names or keypoint_flip_map in its metadata: "
    "Detectron2 cannot flip its images",
    "MetadataCatalog.get(name).set(keypoint_names=[...], keypoint_flip_map=[(left, right), ...])",
)
BAD_FLIP_MAP = error(
    "bad-flip-map",
    "a keypoint_flip_map that does not pair the names of keypoint_names",
    "give pairs (left, right) of different names, each name once",
)
KEYPOINT_NUMBER = error(
    "keypoint-number",
    "the model has another number of keypoints than the data set",
    "set MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS to the number of keypoint_names",
)
OKS_SIGMAS = error(
    "oks-sigmas",
    "evaluation needs one TEST.KEYPOINT_OKS_SIGMAS for each keypoint; COCO's 17 are the default",
    "set TEST.KEYPOINT_OKS_SIGMAS",
)
TOO_MANY_CATEGORIES = error(
    "too-many-categories",
    "more categories than the model has classes: training fails, on a GPU without saying why",
    "set MODEL.ROI_HEADS.NUM_CLASSES to the number of categories",
)
TOO_FEW_CATEGORIES = warning(
    "too-few-categories",
    "fewer categories than the model has classes: evaluation fails if it predicts one of the rest",
    "set MODEL.ROI_HEADS.NUM_CLASSES to the number of categories",
)
CATEGORIES_DIFFER = error(
    "categories-differ",
    "a data set's categories, in the order of their ids, are not those of its metadata or of the "
    "first one to train on: labels would be mixed up",
    "give all data sets of a config the same categories",
)
MISSING_CATEGORY = warning(
    "category-only-in-train",
    "a category that is trained but has no object to evaluate it on",
    "add images that show it",
)
SHARED_FILE = warning(
    "file-in-train-and-test",
    "an image that is trained and evaluated on: the figures are too good",
    "remove it from one of the two",
)

_CLASSES_KEYS = {
    "GeneralizedRCNN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "PanopticFPN": "MODEL.ROI_HEADS.NUM_CLASSES",
    "RetinaNet": "MODEL.RETINANET.NUM_CLASSES",
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a config says about data. Names of the attributes as in `Expected`."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    masks: bool
    mask_format: Literal["polygon", "bitmask"]
    keypoints: bool
    num_keypoints: int | None
    min_keypoints: int
    num_classes: int | None
    oks_sigmas: tuple[float, ...]
    classes_key: str = "MODEL.ROI_HEADS.NUM_CLASSES"

    @classmethod
    def of(cls, cfg: CfgNode | DictConfig) -> Self:
        """Return what a YAML config or a LazyConfig says."""
        return cls.from_config(cfg) if isinstance(cfg, CfgNode) else cls.from_lazy_config(cfg)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Self:
        key = _CLASSES_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
        head = cfg.MODEL.ROI_KEYPOINT_HEAD
        return cls(
            train=tuple(cfg.DATASETS.TRAIN),
            test=tuple(cfg.DATASETS.TEST),
            masks=cfg.MODEL.MASK_ON,
            mask_format=cfg.INPUT.MASK_FORMAT,
            keypoints=cfg.MODEL.KEYPOINT_ON,
            num_keypoints=head.NUM_KEYPOINTS if cfg.MODEL.KEYPOINT_ON else None,
            min_keypoints=head.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
            num_classes=attrgetter(key)(cfg) if key else None,
            oks_sigmas=tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS),
            classes_key=key or cls.classes_key,
        )

    @classmethod
    def from_lazy_config(cls, cfg: DictConfig) -> Self:
        def value(key: str, default: Any) -> Any:
            found = OmegaConf.select(cfg, key, default=default)
            return default if found is None else found

        def names(part: str) -> tuple[str, ...]:
            found = value(f"dataloader.{part}.dataset.names", ())
            return (found,) if isinstance(found, str) else tuple(found)

        mapper = "dataloader.train.mapper"
        evaluators = value("dataloader.evaluator", {})
        if OmegaConf.is_dict(evaluators):
            evaluators = [evaluators]
        sigmas = [e.get("kpt_oks_sigmas") for e in evaluators if OmegaConf.is_dict(e)]
        is_rcnn = value("model.roi_heads", None) is not None
        key = "model.roi_heads.num_classes" if is_rcnn else "model.num_classes"
        return cls(
            train=names("train"),
            test=names("test"),
            masks=value(f"{mapper}.use_instance_mask", False),
            mask_format=value(f"{mapper}.instance_mask_format", "polygon"),
            keypoints=value(f"{mapper}.use_keypoint", False),
            num_keypoints=value("model.roi_heads.keypoint_head.num_keypoints", None),
            min_keypoints=value("dataloader.train.dataset.min_keypoints", 0),
            num_classes=value(key, None),
            oks_sigmas=next((tuple(found) for found in sigmas if found), ()),
            classes_key=key,
        )

    def expected(self, name: str) -> Expected:
        """Return what is asked of the data set `name`."""
        role: Literal["train", "test"] | None = None
        if (name in self.train) != (name in self.test):
            role = "train" if name in self.train else "test"
        # Without its heads, Detectron2 does not look at masks and keypoints.
        return Expected(
            role=role,
            masks=self.masks,
            mask_format=self.mask_format,
            keypoints=self.keypoints,
            num_keypoints=self.num_keypoints,
            min_keypoints=self.min_keypoints if name in self.train else 0,
        )


def problems_of_metadata(run: Run) -> Iterator[Problem]:
    """Yield what is wrong with keypoints in the metadata, without reading a data set."""
    if not run.keypoints:
        return
    for name in run.train:
        metadata, where = MetadataCatalog.get(name), f"data set '{name}'"
        names, flips = metadata.get("keypoint_names"), metadata.get("keypoint_flip_map")
        for key, found in (("keypoint_names", names), ("keypoint_flip_map", flips)):
            if found is None:
                yield Problem(NO_FLIP_MAP, where, f"no {key}")
        if names is None or flips is None:
            continue
        flipped = [side for pair in flips for side in pair]
        if unknown := [side for side in flipped if side not in names]:
            yield Problem(BAD_FLIP_MAP, where, f"{short_repr(unknown)} not in keypoint_names")
        elif len(set(flipped)) < len(flipped) or any(len(pair) != 2 for pair in flips):
            yield Problem(BAD_FLIP_MAP, where, f"keypoint_flip_map is {short_repr(flips)}")
        if run.num_keypoints not in (None, len(names)):
            found = f"{run.num_keypoints} in the model, {len(names)} keypoint_names"
            yield Problem(KEYPOINT_NUMBER, where, found)
    sigmas = len(run.oks_sigmas) or 17
    if run.test and run.num_keypoints not in (None, sigmas):
        yield Problem(OKS_SIGMAS, "the config", f"{sigmas} for {run.num_keypoints} keypoints")


@dataclass(frozen=True)
class Summary:
    """What is compared between data sets: categories in the order of ids, used ones, files."""

    name: str
    categories: Sequence[str]
    used: frozenset[str]
    files: frozenset[str]

    @classmethod
    def of(cls, name: str, coco: Coco) -> Self:
        by_id = {i: str(c.get("name")) for i, c in sorted(coco.category_by_id.items())}
        objects = [a.get("category_id") for a in coco.annotations if not a.get("iscrowd")]
        return cls(
            name,
            list(by_id.values()),
            frozenset(by_id[i] for i in objects if i in by_id),
            frozenset(i["file_name"] for i in coco.images if i.get("file_name") is not None),
        )


def problems_between(run: Run, summaries: Sequence[Summary]) -> Iterator[Problem]:
    """Yield where data sets do not fit the model, their metadata, or each other."""
    train = [s for s in summaries if s.name in run.train]
    first = (train or list(summaries))[:1]
    for summary in summaries:
        yield from _problems_of_categories(run, summary, first[0])
    only_test = [s for s in summaries if s.name not in run.train]
    trained = frozenset[str]().union(*(s.used for s in train))
    for summary in only_test:
        for category in sorted(trained & set(summary.categories) - summary.used):
            yield Problem(MISSING_CATEGORY, f"data set '{summary.name}'", short_repr(category))
        for other in train:
            if MetadataCatalog.get(summary.name).get("image_root") == MetadataCatalog.get(
                other.name
            ).get("image_root"):
                for file in sorted(summary.files & other.files):
                    where = f"data sets '{other.name}' and '{summary.name}'"
                    yield Problem(SHARED_FILE, where, short_repr(file))


def _problems_of_categories(run: Run, summary: Summary, first: Summary) -> Iterator[Problem]:
    where, number = f"data set '{summary.name}'", len(summary.categories)
    if run.num_classes is not None and number != run.num_classes:
        kind = TOO_MANY_CATEGORIES if number > run.num_classes else TOO_FEW_CATEGORIES
        yield Problem(kind, where, f"{number} categories, {run.num_classes} classes")
    metadata = MetadataCatalog.get(summary.name).get("thing_classes")
    for other, names in (("its metadata", metadata), (f"'{first.name}'", first.categories)):
        if names is not None and list(names) != list(summary.categories):
            found = (
                f"{short_repr(list(summary.categories))}, but in {other} {short_repr(list(names))}"
            )
            yield Problem(CATEGORIES_DIFFER, where, found)
