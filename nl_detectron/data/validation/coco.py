"""Read an annotation file: well-formed entries, and a problem for everything else."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ...utils.errors import short_repr
from .kinds import Problem, error_text

# COCO's evaluation keeps ids as floating-point numbers, which are exact up to here.
MAX_ID = 2**53
# Pixels. Rasterising a mask takes memory by the polygon's length.
MAX_COORDINATE = 1e6

Entry = dict[str, Any]
"""A well-formed entry. The value of a malformed key, which was reported, is None."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Requirements of a run for a dataset; None accepts the file's content.

    Attributes:
        role: use of the dataset; None for training and evaluation.
        masks: objects must have masks.
        mask_format: ``INPUT.MASK_FORMAT``.
        keypoints: objects must have keypoints.
        num_keypoints: number of points of an object.
    """

    role: Literal["train", "test"] | None = None
    masks: bool | None = None
    mask_format: Literal["polygon", "bitmask"] = "polygon"
    keypoints: bool | None = None
    num_keypoints: int | None = None


@dataclass
class Coco:
    """The well-formed entries of an annotation file.

    Attributes:
        malformed: problems of the other entries and of the file.
        has_masks: objects must have masks.
        has_keypoints: objects must have keypoints.
        num_keypoints: required number of points of an object; None if it is unknown.
    """

    expected: Expected
    images: list[Entry] = field(default_factory=list)
    annotations: list[Entry] = field(default_factory=list)
    categories: list[Entry] = field(default_factory=list)
    malformed: list[Problem] = field(default_factory=list)
    has_masks: bool = False
    has_keypoints: bool = False
    num_keypoints: int | None = None

    @cached_property
    def image_by_id(self) -> dict[Any, Entry]:
        return {i["id"]: i for i in self.images if i.get("id") is not None}

    @cached_property
    def category_by_id(self) -> dict[Any, Entry]:
        return {c["id"]: c for c in self.categories if c.get("id") is not None}


def is_number(value: Any, limit: float = MAX_COORDINATE) -> bool:
    return type(value) in (int, float) and abs(value) < limit


def is_whole(value: Any, least: int = -MAX_ID + 1, limit: float = MAX_ID) -> bool:
    return type(value) is int and least <= value < limit


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def is_list(value: Any, valid: Callable[[Any], bool] = is_number) -> bool:
    return isinstance(value, list) and all(map(valid, value))


def is_id(value: Any) -> bool:
    return is_whole(value) or is_text(value)


def is_length(value: Any) -> bool:
    return is_whole(value, 1, MAX_COORDINATE)


def is_segmentation(value: Any) -> bool:
    if not isinstance(value, dict):
        return is_list(value, is_list)
    size, counts = value.get("size"), value.get("counts")
    is_runs = isinstance(counts, str) or is_list(counts, lambda run: is_whole(run, 0))
    return is_runs and is_list(size, is_length) and len(size or ()) == 2


_ID = (is_id, "a whole number or a text")
FIELDS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {
        "id": _ID,
        "file_name": (is_text, "a file's name"),
        "height": (is_length, "a whole number above 0"),
        "width": (is_length, "a whole number above 0"),
    },
    "annotations": {
        "id": _ID,
        "image_id": _ID,
        "category_id": _ID,
        "bbox": (lambda v: is_list(v) and len(v) == 4, "4 numbers: x, y, width, height"),
        "area": (lambda v: is_number(v, MAX_COORDINATE**2), "a number"),
        "iscrowd": (lambda v: type(v) in (int, bool) and v in (0, 1), "0 or 1"),
        "segmentation": (
            is_segmentation,
            "a list of polygons [x, y, x, y, ...] or RLE {size, counts}",
        ),
        "keypoints": (is_list, "numbers: x, y, visibility, ..."),
        "num_keypoints": (is_whole, "a whole number"),
    },
    "categories": {
        "id": _ID,
        "name": (is_text, "a name"),
        "keypoints": (lambda v: is_list(v, is_text), "a list of names"),
    },
}
"""The keys of entries by list: a test of a value, and the name of a well-formed one."""

OPTIONAL = ("area", "iscrowd", "segmentation", "keypoints", "num_keypoints")


def read(path: Path, expected: Expected | None = None) -> Coco:
    """Return an annotation file's well-formed entries, and problems of the others."""
    coco = Coco(expected or Expected())
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as failure:
        kind = "unreadable-annotations" if isinstance(failure, OSError) else "not-json"
        coco.malformed.append(Problem(kind, str(path), error_text(failure)))
        return coco
    sections = content if isinstance(content, dict) else {}
    for section in FIELDS:
        entries = sections.get(section)
        if isinstance(entries, list):
            coco.malformed += _read_entries(section, entries, getattr(coco, section))
        else:
            found = f"'{section}' is {short_repr(entries)}" if entries else f"no '{section}'"
            coco.malformed.append(Problem("not-coco", str(path), found))
    masks, keypoints = coco.expected.masks, coco.expected.keypoints
    coco.has_masks = any("segmentation" in a for a in coco.annotations) if masks is None else masks
    given = [len(a["keypoints"]) // 3 for a in coco.annotations if a.get("keypoints")]
    named = [len(c["keypoints"]) for c in coco.categories if c.get("keypoints")]
    coco.has_keypoints = bool(given) if keypoints is None else keypoints
    coco.num_keypoints = coco.expected.num_keypoints or next(iter(named + given), None)
    return coco


def _read_entries(section: str, entries: list, well_formed: list[Entry]) -> Iterator[Problem]:
    """Add entries to `well_formed`, and set malformed values to None."""
    for position, entry in enumerate(entries):
        where = _name(section, entry, position)
        if not isinstance(entry, dict):
            yield Problem("wrong-type", where, f"is {short_repr(entry)}, not an object")
            continue
        if entry.get("segmentation", 1) in (None, [], {}):
            entry.pop("segmentation")  # ways to write that there is none
        for key, (is_valid, what) in FIELDS[section].items():
            if key not in entry:
                if key not in OPTIONAL:
                    yield Problem("missing-key", where, f"no '{key}'")
            elif not is_valid(entry[key]):
                yield Problem("wrong-type", where, f"{key} is {short_repr(entry[key])}, not {what}")
                entry[key] = None
        well_formed.append(entry)


def _name(section: str, entry: Any, position: int) -> str:
    if not isinstance(entry, dict) or not is_id(entry.get("id")):
        return f"{section}[{position}]"
    names = {"images": image_name, "annotations": annotation_name}
    return names[section](entry) if section in names else f"category {short_repr(entry['id'])}"


def image_size(image: Entry) -> tuple[int, int] | None:
    """Return width and height of an entry or a dataset dict, None if they are missing."""
    width, height = image.get("width"), image.get("height")
    return None if width is None or height is None else (width, height)


def image_name(image: Entry) -> str:
    return f"image {short_repr(image.get('id'))} ({short_repr(image.get('file_name'))})"


def annotation_name(annotation: Entry) -> str:
    number, image = annotation.get("id"), annotation.get("image_id")
    return f"annotation {short_repr(number)} of image {short_repr(image)}"
