"""Problems of well-formed entries of an annotation file."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...utils.errors import short_repr
from .coco import Coco, Entry, annotation_name, image_name, image_size
from .kinds import Problem

EDGE = 1.0  # pixels by which a box may be outside its image: rounding, not a mistake
EMPTY = 0.01  # pixels; a thinner box would not survive resizing in single precision


def problems_of_annotations(coco: Coco) -> Iterator[Problem]:
    """Yield the problems of single annotations."""
    for annotation in coco.annotations:
        for kind, key in _wrong_keys(annotation, coco):
            found = short_repr(annotation[key]) if key in annotation else "missing"
            yield Problem(kind, annotation_name(annotation), f"{key} is {found}")


def _wrong_keys(annotation: Entry, coco: Coco) -> Iterator[tuple[str, str]]:
    """Yield each problem's kind and key."""
    image, category = annotation.get("image_id"), annotation.get("category_id")
    if image is not None and image not in coco.image_by_id:
        yield "unknown-image", "image_id"
    if category is not None and category not in coco.category_by_id:
        yield "unknown-category", "category_id"
    if annotation.get("ignore", 0) != 0:
        yield "ignore-flag", "ignore"
    box, mask, points = map(annotation.get, ("bbox", "segmentation", "keypoints"))
    if box is not None and (kind := _wrong_box(box, image_size(coco.image_by_id.get(image, {})))):
        yield kind, "bbox"
    needs_mask = coco.has_masks and not annotation.get("iscrowd")
    takes_rle = coco.expected.role == "test" or coco.expected.mask_format == "bitmask"
    if needs_mask and "segmentation" not in annotation:
        yield "no-mask", "segmentation"
    if isinstance(mask, list):
        if any(len(polygon) < 6 or len(polygon) % 2 for polygon in mask):
            yield "bad-polygon", "segmentation"
    elif mask is not None and needs_mask and not takes_rle:
        yield "rle-mask", "segmentation"
    if coco.has_keypoints and "keypoints" not in annotation:
        if not annotation.get("iscrowd"):
            yield "no-keypoints", "keypoints"
    elif coco.has_keypoints and points is not None and len(points) != 3 * (coco.num_keypoints or 0):
        yield "keypoint-count", "keypoints"
    if coco.expected.role == "train":
        return
    for key in ("iscrowd", "area", *(["num_keypoints"] * coco.has_keypoints)):
        if key not in annotation:
            yield "no-evaluation-key", key
    if str(annotation.get("id")) == "0":
        yield "annotation-id-zero", "id"


def _wrong_box(box: list[float], size: tuple[int, int] | None) -> str | None:
    """Return the kind of a box's problem, in an image of `size`, width and height, if known."""
    x, y, width, height = box
    if min(width, height) < EMPTY:
        return "empty-box"
    if size is not None:
        inside = min(x + width, size[0]) - max(x, 0), min(y + height, size[1]) - max(y, 0)
        if min(inside) < EMPTY:
            return "box-outside-image"
        if max(width - inside[0], height - inside[1]) > EDGE:
            return "box-beyond-edge"
    return "tiny-box" if min(width, height) < 1 else None


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
    used = {annotation.get("category_id") for annotation in coco.annotations}
    for number, category in coco.category_by_id.items():
        if number not in used:
            name = short_repr(category.get("name"))
            yield Problem("unused-category", f"category {short_repr(number)}", name)
    objects = Counter[Any](
        annotation.get("image_id")
        for annotation in coco.annotations
        if not annotation.get("iscrowd")
    )
    if objects.keys().isdisjoint(coco.image_by_id):
        yield Problem("no-objects", "the file", f"{len(coco.images)} images without objects")
        return
    for number, image in coco.image_by_id.items():
        if not objects[number]:
            yield Problem("image-without-objects", image_name(image), "no objects")
