"""Problems of well-formed entries of an annotation file."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ...utils.errors import short_repr
from .coco import Coco, Entry, annotation_name, image_name
from .kinds import Problem

EDGE = 1.0  # pixels by which boxes, masks and points may be outside: rounding, not a mistake
EMPTY = 0.01  # pixels; a thinner box would not survive resizing in single precision

Size = tuple[int, int] | None
"""Width and height of an image, if they are known."""


def problems_of_annotations(coco: Coco) -> Iterator[Problem]:
    """Yield the problems of single annotations."""
    checks = (("bbox", _box), ("segmentation", _mask), ("keypoints", _keypoints))
    for annotation in coco.annotations:
        where, size = annotation_name(annotation), coco.size(annotation)
        image = f" in {size[0]}x{size[1]} pixels" if size else ""
        for kind, key in _keys(annotation, coco):
            found = short_repr(annotation[key]) if key in annotation else "missing"
            yield Problem(kind, where, f"{key} is {found}")
        for key, check in checks:
            if (value := annotation.get(key)) is not None:
                for kind in check(value, size, annotation, coco):
                    yield Problem(kind, where, f"{key} is {short_repr(value)}{image}")


def _keys(annotation: Entry, coco: Coco) -> Iterator[tuple[str, str]]:
    """Yield kind and key of wrong references and missing keys."""
    number, image, category, area = map(annotation.get, ("id", "image_id", "category_id", "area"))
    if image is not None and image not in coco.image_by_id:
        yield "unknown-image", "image_id"
    if category is not None and category not in coco.category_by_id:
        yield "unknown-category", "category_id"
    if annotation.get("ignore", 0) != 0:
        yield "ignore-flag", "ignore"
    is_object = not annotation.get("iscrowd")
    if is_object and coco.has_masks and "segmentation" not in annotation:
        yield "no-mask", "segmentation"
    if is_object and coco.has_keypoints and "keypoints" not in annotation:
        yield "no-keypoints", "keypoints"
    if coco.expected.role == "train":
        return
    for key in ("iscrowd", "area", *(["num_keypoints"] * coco.has_keypoints)):
        if key not in annotation:
            yield "no-evaluation-key", key
    if isinstance(number, str) and not number.isdecimal():
        yield "annotation-id-text", "id"
    elif number is not None and int(number) == 0:
        yield "annotation-id-zero", "id"
    if area is not None and area <= 1:
        has_points = coco.has_keypoints and (annotation.get("num_keypoints") or 0) > 0
        yield "keypoint-area" if has_points and is_object else "tiny-area", "area"


def _box(box: list[float], size: Size, *_: object) -> Iterator[str]:
    x, y, width, height = box
    if min(width, height) < EMPTY:
        yield "empty-box"
        return
    if min(width, height) < 1:
        yield "tiny-box"
    if size is None:
        return
    shared_width = min(x + width, size[0]) - max(x, 0)
    shared_height = min(y + height, size[1]) - max(y, 0)
    if min(shared_width, shared_height) < EMPTY:
        yield "box-outside-image"
    elif _beyond([x, x + width], [y, y + height], size) > EDGE:
        yield "box-beyond-edge"


def _mask(mask: list | Entry, size: Size, annotation: Entry, coco: Coco) -> Iterator[str]:
    if isinstance(mask, list):
        if any(len(polygon) % 2 for polygon in mask):
            yield "odd-polygon"
        if any(len(polygon) in (0, 2, 4) for polygon in mask):
            yield "short-polygon"
        if any(_beyond(polygon[0::2], polygon[1::2], size) > EDGE for polygon in mask):
            yield "polygon-beyond-edge"
        return
    is_object = coco.has_masks and not annotation.get("iscrowd")
    if is_object and coco.expected.mask_format == "polygon" and coco.expected.role != "test":
        yield "rle-mask"
    height, width = mask["size"]
    if size not in (None, (width, height)):
        yield "rle-size"
    runs = run_lengths(mask["counts"])
    if sum(runs) != height * width or min(runs) < 0:
        yield "bad-rle"
    elif not any(runs[1::2]):
        yield "empty-mask"


def _keypoints(numbers: list[float], size: Size, annotation: Entry, coco: Coco) -> Iterator[str]:
    xs, ys, visibility = numbers[0::3], numbers[1::3], numbers[2::3]
    if coco.has_keypoints and (not len(xs) == len(ys) == len(visibility) == coco.num_keypoints):
        yield "keypoint-count"
    if not set(visibility) <= {0, 1, 2}:
        yield "keypoint-visibility"
    known = [(x, y) for x, y, v in zip(xs, ys, visibility, strict=False) if v > 0]
    if any(_beyond([x], [y], size) > EDGE for x, y in known):
        yield "keypoint-outside-image"
    if annotation.get("num_keypoints") not in (None, sum(v > 0 for v in visibility)):
        yield "num-keypoints"


def run_lengths(counts: list[int] | str) -> list[int]:
    """Return the runs of COCO's RLE, compressed or not; -1 if they cannot be decoded.

    A run is written in characters of 6 bits from ``"0"`` on: 5 bits of a two's complement number,
    lowest first, and a continuation bit. From the fourth run on, the number is the difference to
    the run before the last. pycocotools does not check its input, so this function does.
    """
    if isinstance(counts, list):
        return counts or [-1]
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - ord("0")
        if not 0 <= code < 64 or shift > 60:
            return [-1]
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs if runs and not shift else [-1]


def _beyond(xs: Sequence[float], ys: Sequence[float], size: Size) -> float:
    """Return the largest distance in pixels of points outside their image; below 0 for none."""
    if size is None or not xs or not ys:
        return 0
    return max(-min(xs), -min(ys), max(xs) - size[0], max(ys) - size[1])


def problems_of_lists(coco: Coco) -> Iterator[Problem]:
    """Yield the problems of images, annotations and categories as lists."""
    for entries, key, kind in (
        (coco.images, "id", "duplicate-image-id"),
        (coco.annotations, "id", "duplicate-annotation-id"),
        (coco.categories, "id", "duplicate-category-id"),
        (coco.categories, "name", "duplicate-category-name"),
        (coco.images, "file_name", "duplicate-file"),
    ):
        for value, count in Counter(entry.get(key) for entry in entries).items():
            if value is not None and count > 1:
                yield Problem(kind, f"{key} {short_repr(value)}", f"{count} times")
    for name, entries in (("images", coco.images), ("categories", coco.categories)):
        if not entries:
            yield Problem(f"no-{name}", "the file", "the list is empty")
    first: dict[tuple, Entry] = {}
    for annotation in coco.annotations:
        if box := annotation.get("bbox"):
            place = (annotation.get("image_id"), annotation.get("category_id"), *box)
            other = first.setdefault(place, annotation)
            if other is not annotation:
                where, detail = annotation_name(annotation), f"as {annotation_name(other)}"
                yield Problem("same-object-twice", where, detail)
    if not coco.is_test:
        yield from _use(coco)


def _use(coco: Coco) -> Iterator[Problem]:
    """Yield images and categories without objects."""
    used = {annotation.get("category_id") for annotation in coco.annotations}
    for number, category in coco.category_by_id.items():
        if number not in used:
            name = short_repr(category.get("name"))
            yield Problem("unused-category", f"category {short_repr(number)}", name)
    objects, known = Counter[Any](), Counter[Any]()
    for annotation in coco.annotations:
        image = annotation.get("image_id")
        objects[image] += not annotation.get("iscrowd")
        known[image] += sum(v > 0 for v in (annotation.get("keypoints") or [])[2::3])
    empty = [number for number in coco.image_by_id if not objects[number]]
    if len(empty) == len(coco.image_by_id):
        yield Problem("no-objects", "the file", f"{len(coco.images)} images without objects")
        return
    least = coco.expected.min_keypoints
    if coco.has_keypoints and max(known[i] for i in coco.image_by_id) < least:
        yield Problem("few-keypoints", "the file", f"no image has {least} known points")
    for number in empty:
        yield Problem("image-without-objects", image_name(coco.image_by_id[number]), "no objects")
