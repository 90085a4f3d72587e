"""The table of all kinds of problems, and the report that counts them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from tabulate import tabulate


class Severity(StrEnum):
    """An error stops training or evaluation, or silently loses data; a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Kind(NamedTuple):
    """A kind of problem, its consequence for a run, and its fix."""

    name: str
    severity: Severity
    meaning: str
    fix: str


class Problem(NamedTuple):
    """One problem: the name of its kind, the entry or file, and the detail."""

    kind: str
    where: str
    detail: str


_ERRORS = (
    # The annotation file
    (
        "unreadable-annotations",
        "the annotation file cannot be opened",
        "check path and permissions",
    ),
    (
        "not-json",
        "the annotation file is truncated or is not JSON in UTF-8",
        "write or copy it again",
    ),
    (
        "not-coco",
        "the file lacks one of COCO's lists: images, annotations, categories",
        "convert it to COCO's format",
    ),
    ("missing-key", "an entry lacks a key that is always read", "add the key"),
    (
        "wrong-type",
        "a value has another type or form than in COCO's format, or is NaN, infinite or too large",
        "write a value of the type in the detail",
    ),
    # References and keys of annotations
    (
        "unknown-image",
        "an annotation of an image that is not in the list; it is lost",
        "add the image, or remove the annotation",
    ),
    (
        "unknown-category",
        "an annotation's category is not in the list",
        "add the category, or correct category_id",
    ),
    ("ignore-flag", "Detectron2 refuses annotations with 'ignore'", "remove the key"),
    # Boxes and masks
    (
        "empty-box",
        "a box without width or height; training silently drops the object",
        "redraw or remove it",
    ),
    (
        "box-outside-image",
        "a box outside its image; training silently drops the object",
        "correct it: bbox is [x, y, width, height] in pixels",
    ),
    (
        "no-mask",
        "an object without a mask where others have one; training a mask head fails",
        "add the mask, remove the object, or train with MODEL.MASK_ON False",
    ),
    (
        "bad-polygon",
        "a polygon of fewer than 3 points or an odd number of coordinates; it is silently dropped, "
        "its object too if it has no other",
        "redraw or remove it",
    ),
    (
        "rle-mask",
        "a run-length mask of a single object, but training is with polygons",
        "train with INPUT.MASK_FORMAT bitmask, and check with --mask-format bitmask",
    ),
    # Keypoints
    (
        "no-keypoints",
        "an object without keypoints where others have them; training a keypoint head fails",
        "add zeros for objects whose points are unknown, as COCO does",
    ),
    (
        "keypoint-count",
        "an object with another number of keypoints than the category or the model has",
        "write x, y, visibility for every point, zeros for unknown ones",
    ),
    # Lists
    (
        "duplicate-image-id",
        "several images have one id; all but the last are lost",
        "give each its own id",
    ),
    (
        "duplicate-annotation-id",
        "several annotations have one id; Detectron2 refuses the file",
        "number the annotations again",
    ),
    (
        "duplicate-category-id",
        "several categories have one id; all but the last are lost",
        "give each its own id",
    ),
    ("no-images", "the list of images is empty", "check the program that wrote the file"),
    ("no-categories", "the list of categories is empty", "add the categories"),
    (
        "no-objects",
        "no image has an annotation other than crowds: nothing to train on, nothing to evaluate",
        "check the program that wrote the file",
    ),
    # Image files
    (
        "missing-image",
        "an image's file is missing",
        "add the file, or remove the image's entry",
    ),
    ("empty-image-file", "an image's file has no bytes", "copy the image again"),
    (
        "unreadable-image",
        "an image's file is truncated or cannot be read as an image",
        "copy or convert it again",
    ),
    (
        "image-depth",
        "an image has more than 8 bits per channel: all but its darkest values would be white",
        "convert it to 8 bits, scaling the relevant range of values",
    ),
    (
        "image-size",
        "an image has another size than its entry says; Detectron2 refuses it",
        "correct width and height, those after rotation by the EXIF orientation",
    ),
    # A config and its datasets
    (
        "no-flip-map",
        "a dataset for keypoints without keypoint_names or keypoint_flip_map in its metadata: "
        "Detectron2 cannot flip its images",
        "add both to its entry in DATASETS.REGISTER, or to its metadata in MetadataCatalog",
    ),
    (
        "keypoint-number",
        "the model has another number of keypoints than the dataset",
        "set MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS to the number of keypoint_names",
    ),
    (
        "oks-sigmas",
        "evaluation needs one TEST.KEYPOINT_OKS_SIGMAS for each keypoint; COCO's 17 are the "
        "default",
        "set TEST.KEYPOINT_OKS_SIGMAS",
    ),
    (
        "too-many-categories",
        "more categories than the model has classes: training fails, on a GPU without a reason",
        "set MODEL.ROI_HEADS.NUM_CLASSES to the number of categories",
    ),
    (
        "too-few-categories",
        "a test set with fewer categories than the model has classes: evaluation fails if the "
        "model predicts one of the rest",
        "set MODEL.ROI_HEADS.NUM_CLASSES to the number of categories",
    ),
    (
        "categories-differ",
        "a dataset's categories, in the order of their ids, are not those of its metadata or of "
        "the first one to train on: labels would be mixed up",
        "give all datasets of a config the same categories",
    ),
    # Videos
    (
        "unreadable-video",
        "a video cannot be decoded to its end; a run stops when it gets there",
        "copy or convert it again, or set DATALOADER.SKIP_BAD_VIDEOS True",
    ),
    ("video-label-range", "a label is not one of the classes", "correct the list"),
    (
        "video-no-label",
        "a video without a label where each has one; training fails",
        "add the label, or set MODEL.VIDEO_CLASSIFIER.MULTI_LABEL True",
    ),
    ("conflicting-labels", "a video is listed with different labels", "remove the wrong lines"),
    (
        "class-number",
        "the model has another number of classes than the dataset",
        "set MODEL.VIDEO_CLASSIFIER.NUM_CLASSES to the number of classes",
    ),
)

_WARNINGS = (
    # Annotations
    (
        "annotation-id-zero",
        "COCO's evaluation takes id 0 for 'no match': a right detection counts as a wrong one",
        "number annotations from 1",
    ),
    (
        "no-evaluation-key",
        "an annotation without iscrowd, area or, with keypoints, num_keypoints: Detectron2's own "
        "evaluation fails; here 0, the area of the mask or box and the known points stand for it",
        "add the key",
    ),
    (
        "box-beyond-edge",
        "a box that is partly outside its image; it is clipped",
        "if there are many: is bbox [x, y, width, height], not two corners?",
    ),
    (
        "tiny-box",
        "a box narrower than one pixel",
        "if there are many: are coordinates in pixels, not from 0 to 1?",
    ),
    # Lists
    ("duplicate-category-name", "several categories have one name", "rename or merge them"),
    ("duplicate-file", "several images have one file", "merge the images' annotations"),
    (
        "image-without-objects",
        "an image without annotations, or with crowds only; training skips it",
        "fine if intended; to train on it, set DATALOADER.FILTER_EMPTY_ANNOTATIONS False and, with "
        "keypoints, MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE 0",
    ),
    (
        "unused-category",
        "a category without annotations: it can be neither learned nor evaluated",
        "fine if intended",
    ),
    # A config and its datasets
    (
        "file-in-train-and-test",
        "an image that is trained and evaluated on: the results are too good",
        "remove it from one of the two",
    ),
    # Videos
    (
        "missing-video",
        "a video is missing; training and evaluation skip it",
        "add the file; if it exists, separate labels by commas: path label[,label...]",
    ),
    (
        "duplicate-video",
        "a video is listed more than once and has more weight than others",
        "remove the other lines",
    ),
    (
        "video-in-train-and-test",
        "a video is trained and evaluated on: the results are too good",
        "remove it from one of the two",
    ),
)

KINDS: dict[str, Kind] = {
    name: Kind(name, severity, meaning, fix)
    for severity, rows in ((Severity.ERROR, _ERRORS), (Severity.WARNING, _WARNINGS))
    for name, meaning, fix in rows
}
"""Every kind by name, in the order of the reports."""


@dataclass
class Report:
    """Problems of one dataset.

    Attributes:
        title: name of the dataset, or its file.
        facts: numbers of images, annotations, ...
        problems: problems by kind.
    """

    title: str
    facts: dict[str, int] = field(default_factory=dict)
    problems: dict[str, list[Problem]] = field(default_factory=dict)

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.problems.setdefault(problem.kind, []).append(problem)

    def count(self, severity: Severity) -> int:
        """Return the number of errors or of warnings."""
        return sum(len(p) for kind, p in self.problems.items() if KINDS[kind].severity is severity)

    def as_dict(self, max_examples: int = 3) -> dict[str, Any]:
        """Return facts and problems, errors first, each kind with its first examples."""
        return {
            "title": self.title,
            **self.facts,
            "problems": [
                {
                    "kind": kind.name,
                    "severity": str(kind.severity),
                    "count": len(self.problems[kind.name]),
                    "meaning": kind.meaning,
                    "fix": kind.fix,
                    "examples": [
                        {"where": p.where, "detail": p.detail}
                        for p in self.problems[kind.name][:max_examples]
                    ],
                }
                for kind in KINDS.values()
                if kind.name in self.problems
            ],
        }

    def as_text(self, max_examples: int = 3) -> str:
        """Return `as_dict` as a table."""
        facts = ", ".join(f"{number} {what}" for what, number in self.facts.items())
        title = f"{self.title}: {facts}" if facts else self.title
        if not self.problems:
            return f"{title}\nno problems found"
        rows = []
        for found in self.as_dict(max_examples)["problems"]:
            lines = [f"{example['where']}: {example['detail']}" for example in found["examples"]]
            if rest := found["count"] - len(lines):
                lines.append(f"... and {rest} more")
            cell = "\n  ".join([found["meaning"], *lines, f"-> {found['fix']}"])
            rows.append([found["severity"], found["kind"], found["count"], cell])
        headers = ["", "problem", "count", "meaning, first examples, fix"]
        table = tabulate(rows, headers, disable_numparse=True)
        errors, warnings = map(self.count, Severity)
        return f"{title}\n\n{table}\n\nerrors: {errors}, warnings: {warnings}"

    def first_error(self) -> str | None:
        """Return the first error in one line, None without one."""
        for kind in KINDS.values():
            if kind.severity is Severity.ERROR and kind.name in self.problems:
                _, where, detail = self.problems[kind.name][0]
                return f"{where}: {detail} ({kind.meaning}); {kind.fix}"
        return None


def error_text(exception: BaseException) -> str:
    """Return an exception's type and text in one line."""
    text = " ".join(str(exception).split())
    return f"{type(exception).__name__}: {text}" if text else type(exception).__name__
