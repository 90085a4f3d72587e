"""Reading an annotation file: what is well-formed comes out, the rest becomes problems."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from .kinds import Problem, error, error_text, short_repr

MAX_ID = 2**53
"""COCO's evaluation keeps ids as floating-point numbers, which count no further."""

MAX_COORDINATE = 1e6
"""Pixels. Masks are rasterised at the polygon's length, so a wild coordinate eats all memory."""

FILE = error(
    "unreadable-annotations", "the annotation file cannot be opened", "check path and permissions"
)
NOT_JSON = error(
    "not-json", "the annotation file is cut off or is not JSON in UTF-8", "write or copy it again"
)
NOT_COCO = error(
    "not-coco",
    "the file lacks one of COCO's lists: images, annotations, categories",
    "convert it to COCO's format",
)
MISSING_KEY = error("missing-key", "an entry lacks a key that is always read", "add the key")
WRONG_TYPE = error(
    "wrong-type", "a value is not what COCO's format has there", "write what the detail asks for"
)
IMPOSSIBLE_NUMBER = error(
    "impossible-number",
    "a number is NaN, infinite or absurdly large; losses become NaN or memory runs out",
    "find out what wrote it",
)

Entry = dict[str, Any]
"""A well-formed entry. The value of a malformed key, which was reported, is None."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a run asks of a data set; None means: whatever the file itself has.

    Attributes:
        role: what the data set is for; None: for both.
        masks: whether objects must have masks.
        mask_format: ``INPUT.MASK_FORMAT``.
        keypoints: whether objects must have keypoints.
        num_keypoints: how many points an object has.
        min_keypoints: ``MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE``.
    """

    role: Literal["train", "test"] | None = None
    masks: bool | None = None
    mask_format: Literal["polygon", "bitmask"] = "polygon"
    keypoints: bool | None = None
    num_keypoints: int | None = None
    min_keypoints: int = 0


@dataclass
class Coco:
    """The well-formed entries of an annotation file."""

    images: list[Entry] = field(default_factory=list)
    annotations: list[Entry] = field(default_factory=list)
    categories: list[Entry] = field(default_factory=list)
    expected: Expected = field(default_factory=Expected)

    @cached_property
    def image_by_id(self) -> dict[int, Entry]:
        return {i["id"]: i for i in self.images if i.get("id") is not None}

    @cached_property
    def category_by_id(self) -> dict[int, Entry]:
        return {c["id"]: c for c in self.categories if c.get("id") is not None}

    @cached_property
    def has_masks(self) -> bool:
        """Whether objects must have masks."""
        if self.expected.masks is None:
            return any("segmentation" in a for a in self.annotations)
        return self.expected.masks

    @cached_property
    def has_keypoints(self) -> bool:
        """Whether objects must have keypoints."""
        if self.expected.keypoints is None:
            return any("keypoints" in a for a in self.annotations)
        return self.expected.keypoints

    @cached_property
    def num_keypoints(self) -> int | None:
        """How many points an object must have; None if nothing says so."""
        if self.expected.num_keypoints is not None:
            return self.expected.num_keypoints
        named = [c["keypoints"] for c in self.categories if c.get("keypoints")]
        given = [a["keypoints"] for a in self.annotations if a.get("keypoints")]
        if named:
            return len(named[0])
        return len(given[0]) // 3 if given else None

    def size(self, annotation: Entry) -> tuple[int, int] | None:
        """Return height and width of an annotation's image, if they are known."""
        number = annotation.get("image_id")
        image = None if number is None else self.image_by_id.get(number)
        if image is None or image.get("height") is None or image.get("width") is None:
            return None
        return image["height"], image["width"]


def is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < MAX_ID


def is_length(value: Any) -> bool:
    return type(value) is int and 0 < value < MAX_COORDINATE


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MAX_COORDINATE


def is_area(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < MAX_COORDINATE**2


def is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def is_flag(value: Any) -> bool:
    return type(value) in (int, bool) and value in (0, 1)


def is_box(value: Any) -> bool:
    return is_numbers(value) and len(value) == 4


def is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_text, value))


def is_segmentation(value: Any) -> bool:
    if isinstance(value, dict):
        size, counts = value.get("size"), value.get("counts")
        is_size = isinstance(size, list) and len(size) == 2 and all(map(is_length, size))
        return is_size and (
            isinstance(counts, str)
            or (isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts))
        )
    return isinstance(value, list) and all(map(is_numbers, value))


@dataclass(frozen=True)
class Field:
    """A key of an entry: whether a value is well-formed, and how to call what is."""

    name: str
    valid: Callable[[Any], bool]
    what: str
    required: bool = True


_ID = "a whole number"
FIELDS: dict[str, tuple[Field, ...]] = {
    "images": (
        Field("id", is_id, _ID),
        Field("file_name", is_text, "a file's name"),
        Field("height", is_length, "a whole number above 0"),
        Field("width", is_length, "a whole number above 0"),
    ),
    "annotations": (
        Field("id", is_id, _ID),
        Field("image_id", is_id, _ID),
        Field("category_id", is_id, _ID),
        Field("bbox", is_box, "4 numbers: x, y, width, height"),
        Field("area", is_area, "a number", required=False),
        Field("iscrowd", is_flag, "0 or 1", required=False),
        Field(
            "segmentation",
            is_segmentation,
            "a list of polygons [x, y, x, y, ...] or RLE {size, counts}",
            required=False,
        ),
        Field("keypoints", is_numbers, "numbers: x, y, visibility, ...", required=False),
        Field("num_keypoints", is_id, _ID, required=False),
    ),
    "categories": (
        Field("id", is_id, _ID),
        Field("name", is_text, "a name"),
        Field("keypoints", is_names, "a list of names", required=False),
    ),
}


def read(path: Path, expected: Expected | None = None) -> tuple[Coco, list[Problem]]:
    """Return an annotation file's well-formed entries, and a problem for all that is not."""
    coco = Coco(expected=expected or Expected())
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as failure:
        return coco, [Problem(FILE, str(path), failure.strerror or str(failure))]
    except (ValueError, RecursionError) as failure:
        return coco, [Problem(NOT_JSON, str(path), error_text(failure))]
    if not isinstance(content, dict):
        return coco, [Problem(NOT_COCO, str(path), f"its content is {short_repr(content)}")]
    problems: list[Problem] = []
    for section, fields in FIELDS.items():
        entries = content.get(section)
        if not isinstance(entries, list):
            found = (
                f"'{section}' is {short_repr(entries)}" if section in content else f"no '{section}'"
            )
            problems.append(Problem(NOT_COCO, str(path), found))
            continue
        well_formed = getattr(coco, section)
        for position, entry in enumerate(entries):
            where = name(section, entry, position)
            if not isinstance(entry, dict):
                problems.append(
                    Problem(WRONG_TYPE, where, f"is {short_repr(entry)}, not an object")
                )
                continue
            if section == "annotations" and entry.get("segmentation", 1) in (None, [], {}):
                entry.pop("segmentation")  # ways to write that there is none
            problems += _malformed(where, entry, fields)
            well_formed.append(entry)
    return coco, problems


def _malformed(where: str, entry: Entry, fields: Sequence[Field]) -> Iterator[Problem]:
    """Report the malformed fields of an entry, and set them to None."""
    for spec in fields:
        if spec.name not in entry:
            if spec.required:
                yield Problem(MISSING_KEY, where, f"no '{spec.name}'")
        elif not spec.valid(entry[spec.name]):
            value, entry[spec.name] = entry[spec.name], None
            kind = IMPOSSIBLE_NUMBER if _has_impossible_number(value) else WRONG_TYPE
            yield Problem(kind, where, f"{spec.name} is {short_repr(value)}, not {spec.what}")


def _has_impossible_number(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_impossible_number, value))
    return type(value) in (int, float) and not abs(value) < MAX_COORDINATE


def name(section: str, entry: Any, position: int) -> str:
    """Return what to call an entry: by its id, or by its place in the list if that is no id."""
    if not isinstance(entry, dict) or not is_id(entry.get("id")):
        return f"{section}[{position}]"
    if section == "images":
        return image_name(entry)
    if section == "categories":
        return f"category {entry['id']}"
    return annotation_name(entry)


def image_name(image: Entry) -> str:
    return f"image {image.get('id')} ({short_repr(image.get('file_name'))})"


def annotation_name(annotation: Entry) -> str:
    return f"annotation {annotation.get('id')} of image {short_repr(annotation.get('image_id'))}"
