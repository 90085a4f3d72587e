"""What can be wrong between well-formed entries of an annotation file."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .coco import Coco, Entry, annotation_name, image_name
from .kinds import Problem, error, short_repr, warning

EDGE = 1.0
"""Pixels by which boxes, masks and points may be outside: rounding, not a mistake."""

EMPTY = 0.01
"""Pixels. A thinner box is empty: it would not survive resizing in single precision."""

Details = Iterator[str]


@dataclass(frozen=True)
class AnnotationCheck:
    """A check of single annotations that have all of `fields`; it yields what it found."""

    kind: str
    fields: tuple[str, ...]
    run: Callable[[Entry, Coco], Details]


CHECKS: list[AnnotationCheck] = []


def on(*fields: str, kind: str) -> Callable[[Callable[[Entry, Coco], Details]], None]:
    """Add the decorated check of annotations that have `fields` to `CHECKS`."""
    return lambda run: CHECKS.append(AnnotationCheck(kind, fields, run))


def problems_of_annotations(coco: Coco) -> Iterator[Problem]:
    """Yield what is wrong with single annotations."""
    for annotation in coco.annotations:
        for check in CHECKS:
            if all(annotation.get(name) is not None for name in check.fields):
                for detail in check.run(annotation, coco):
                    yield Problem(check.kind, annotation_name(annotation), detail)


# References


@on(
    "image_id",
    kind=error(
        "unknown-image",
        "an annotation of an image that is not in the list; it is lost",
        "add the image, or remove the annotation",
    ),
)
def _unknown_image(annotation: Entry, coco: Coco) -> Details:
    if annotation["image_id"] not in coco.image_by_id:
        yield f"image_id is {annotation['image_id']}"


@on(
    "category_id",
    kind=error(
        "unknown-category",
        "an annotation's category is not in the list",
        "add the category, or correct category_id",
    ),
)
def _unknown_category(annotation: Entry, coco: Coco) -> Details:
    if annotation["category_id"] not in coco.category_by_id:
        yield f"category_id is {annotation['category_id']}"


@on(
    "id",
    kind=warning(
        "annotation-id-zero",
        "COCO's evaluation takes id 0 for 'no match': a right detection counts as a wrong one",
        "number annotations from 1",
    ),
)
def _id_zero(annotation: Entry, coco: Coco) -> Details:
    if annotation["id"] == 0:
        yield "id is 0"


@on(
    kind=error(
        "no-evaluation-key",
        "COCO's evaluation fails on an annotation without iscrowd, area or, with keypoints, "
        "num_keypoints",
        "add the key",
    ),
)
def _no_evaluation_key(annotation: Entry, coco: Coco) -> Details:
    if coco.expected.role == "train":
        return
    keys = ["iscrowd", "area"] + ["num_keypoints"] * coco.has_keypoints
    if missing := [key for key in keys if key not in annotation]:
        yield f"no {', '.join(missing)}"


@on(
    "ignore",
    kind=error("ignore-flag", "Detectron2 refuses annotations with 'ignore'", "remove the key"),
)
def _ignore(annotation: Entry, coco: Coco) -> Details:
    if annotation["ignore"] != 0:
        yield f"ignore is {short_repr(annotation['ignore'])}"


# Boxes


@on(
    "bbox",
    kind=error(
        "empty-box",
        "a box without width or height; training silently drops the object",
        "redraw or remove it",
    ),
)
def _empty_box(annotation: Entry, coco: Coco) -> Details:
    _, _, width, height = annotation["bbox"]
    if min(width, height) < EMPTY:
        yield f"bbox is {annotation['bbox']}"


@on(
    "bbox",
    kind=error(
        "box-outside-image",
        "a box that shares nothing with its image; training silently drops the object",
        "correct it: bbox is [x, y, width, height] in pixels",
    ),
)
def _box_outside(annotation: Entry, coco: Coco) -> Details:
    box, size = annotation["bbox"], coco.size(annotation)
    if size and min(box[2:]) >= EMPTY > _shared(box, size):
        yield f"bbox is {box} in {size[1]}x{size[0]} pixels"


@on(
    "bbox",
    kind=warning(
        "box-beyond-edge",
        "a box that is partly outside its image; it is clipped",
        "if there are many: is bbox [x, y, width, height], not two corners?",
    ),
)
def _box_beyond_edge(annotation: Entry, coco: Coco) -> Details:
    box, size = annotation["bbox"], coco.size(annotation)
    if size and _shared(box, size) >= EMPTY:
        x, y, width, height = box
        if max(-x, -y, x + width - size[1], y + height - size[0]) > EDGE:
            yield f"bbox is {box} in {size[1]}x{size[0]} pixels"


@on(
    "bbox",
    kind=warning(
        "tiny-box",
        "a box narrower than one pixel",
        "if there are many: are coordinates in pixels, not from 0 to 1?",
    ),
)
def _tiny_box(annotation: Entry, coco: Coco) -> Details:
    _, _, width, height = annotation["bbox"]
    if EMPTY <= min(width, height) < 1:
        yield f"bbox is {annotation['bbox']}"


@on(
    "area",
    kind=warning(
        "negative-area", "an area below 0; evaluation ignores the object", "compute it again"
    ),
)
def _negative_area(annotation: Entry, coco: Coco) -> Details:
    if annotation["area"] < 0:
        yield f"area is {annotation['area']}"


# Masks


@on(
    kind=error(
        "no-mask",
        "an object without a mask where others have one; training a mask head fails",
        "add the mask, remove the object, or train with MODEL.MASK_ON False",
    ),
)
def _no_mask(annotation: Entry, coco: Coco) -> Details:
    if coco.has_masks and "segmentation" not in annotation and not annotation.get("iscrowd"):
        yield "no segmentation"


@on(
    "segmentation",
    kind=error(
        "short-polygon",
        "a polygon of fewer than 3 points; it is silently dropped, its object too if it has no "
        "other",
        "redraw or remove it",
    ),
)
def _short_polygon(annotation: Entry, coco: Coco) -> Details:
    for polygon in _polygons(annotation):
        if len(polygon) < 6 and len(polygon) % 2 == 0:
            yield f"a polygon is {short_repr(polygon)}"


@on(
    "segmentation",
    kind=error(
        "odd-polygon",
        "a polygon with an odd number of coordinates; it is silently dropped, its object too if "
        "it has no other",
        "redraw or remove it",
    ),
)
def _odd_polygon(annotation: Entry, coco: Coco) -> Details:
    for polygon in _polygons(annotation):
        if len(polygon) % 2:
            yield f"a polygon has {len(polygon)} coordinates"


@on(
    "segmentation",
    kind=warning(
        "flat-polygon",
        "polygons that enclose nothing: the mask to learn is empty",
        "redraw or remove the object",
    ),
)
def _flat_polygon(annotation: Entry, coco: Coco) -> Details:
    polygons = [p for p in _polygons(annotation) if len(p) >= 6 and len(p) % 2 == 0]
    if polygons and not any(map(_encloses, polygons)):
        yield f"a polygon is {short_repr(polygons[0])}"


@on(
    "segmentation",
    kind=warning(
        "polygon-beyond-edge",
        "a polygon that is partly outside its image",
        "if there are many: do width, height and file belong to the annotations?",
    ),
)
def _polygon_beyond_edge(annotation: Entry, coco: Coco) -> Details:
    if size := coco.size(annotation):
        for polygon in filter(None, _polygons(annotation)):
            xs, ys = polygon[0::2], polygon[1::2] or [0]
            beyond = max(-min(xs), -min(ys), max(xs) - size[1], max(ys) - size[0])
            if beyond > EDGE:
                yield f"a polygon is {beyond:.6g} pixels outside {size[1]}x{size[0]}"


@on(
    "segmentation",
    kind=error(
        "rle-mask",
        "a run-length mask of a single object, but training is with polygons",
        "train with INPUT.MASK_FORMAT bitmask, and check with --mask-format bitmask",
    ),
)
def _rle_mask(annotation: Entry, coco: Coco) -> Details:
    trains_on_polygons = coco.expected.mask_format == "polygon" and coco.expected.role != "test"
    is_rle = isinstance(annotation["segmentation"], dict)
    if is_rle and coco.has_masks and trains_on_polygons and not annotation.get("iscrowd"):
        yield "segmentation is RLE, iscrowd is 0"


@on(
    "segmentation",
    kind=error(
        "rle-size", "a run-length mask of another size than its image", "encode the mask again"
    ),
)
def _rle_size(annotation: Entry, coco: Coco) -> Details:
    rle, size = annotation["segmentation"], coco.size(annotation)
    if isinstance(rle, dict) and size and tuple(rle["size"]) != size:
        yield f"size is {rle['size']}, the image has height and width {list(size)}"


@on(
    "segmentation",
    kind=error(
        "bad-rle",
        "a run-length mask whose runs do not fill its size: the mask is garbage",
        "encode the mask again, column by column",
    ),
)
def _bad_rle(annotation: Entry, coco: Coco) -> Details:
    rle = annotation["segmentation"]
    if isinstance(rle, dict):
        counts, pixels = rle["counts"], rle["size"][0] * rle["size"][1]
        runs = counts if isinstance(counts, list) else run_lengths(counts)
        if runs is None or min(runs, default=0) < 0:
            yield f"counts is {short_repr(counts)}"
        elif sum(runs) != pixels:
            yield f"the runs have {short_repr(sum(runs))} pixels, the size {pixels}"


@on(
    "segmentation",
    kind=error(
        "empty-mask",
        "a run-length mask without a pixel; training silently drops the object",
        "redraw or remove the object",
    ),
)
def _empty_mask(annotation: Entry, coco: Coco) -> Details:
    rle = annotation["segmentation"]
    if isinstance(rle, dict):
        runs = rle["counts"] if isinstance(rle["counts"], list) else run_lengths(rle["counts"])
        if runs is not None and not any(runs[1::2]):
            yield "no run of ones"


# Keypoints


@on(
    kind=error(
        "no-keypoints",
        "an object without keypoints where others have them; training a keypoint head fails",
        "add zeros for objects whose points are unknown, as COCO does",
    ),
)
def _no_keypoints(annotation: Entry, coco: Coco) -> Details:
    if coco.has_keypoints and "keypoints" not in annotation and not annotation.get("iscrowd"):
        yield "no keypoints"


@on(
    "keypoints",
    kind=error(
        "keypoint-count",
        "an object with another number of keypoints than the category or the model has",
        "write x, y, visibility for every point, zeros for unknown ones",
    ),
)
def _keypoint_count(annotation: Entry, coco: Coco) -> Details:
    numbers, points = len(annotation["keypoints"]), coco.num_keypoints
    if not coco.has_keypoints:
        return
    if numbers % 3 or points not in (None, numbers // 3):
        wanted = "a multiple of 3" if points is None else f"{3 * points} for {points} points"
        yield f"{numbers} numbers, not {wanted}"


@on(
    "keypoints",
    kind=warning(
        "keypoint-visibility",
        "a visibility that is not 0 (unknown), 1 (hidden) or 2 (visible)",
        "correct it; above 0 counts as known",
    ),
)
def _keypoint_visibility(annotation: Entry, coco: Coco) -> Details:
    if wrong := {v for v in annotation["keypoints"][2::3] if v not in (0, 1, 2)}:
        yield f"visibility is {short_repr(sorted(wrong))}"


@on(
    "keypoints",
    kind=warning(
        "keypoint-outside-image",
        "a known keypoint outside its image; training takes it for unknown",
        "correct it, or set x, y and visibility to 0",
    ),
)
def _keypoint_outside(annotation: Entry, coco: Coco) -> Details:
    if size := coco.size(annotation):
        for x, y, known in _points(annotation):
            beyond = max(-x, -y, x - size[1], y - size[0])
            if known > 0 and beyond > EDGE:
                yield f"a point is at {x}, {y} in {size[1]}x{size[0]} pixels"


@on(
    "keypoints",
    "num_keypoints",
    kind=warning(
        "num-keypoints",
        "num_keypoints is not the number of known points; evaluation ignores objects with 0",
        "count the points with visibility above 0",
    ),
)
def _num_keypoints(annotation: Entry, coco: Coco) -> Details:
    known = sum(v > 0 for v in annotation["keypoints"][2::3])
    if known != annotation["num_keypoints"]:
        yield f"num_keypoints is {annotation['num_keypoints']}, {known} points are known"


def run_lengths(counts: str) -> list[int] | None:
    """Decode the runs of COCO's compressed RLE; None if it is none.

    A run is written in characters of 6 bits from ``"0"`` on: 5 bits of a two's complement number,
    lowest first, and whether there are more. From the fourth on, it is the difference to the run
    before the last. pycocotools does not check what it decodes, so this must.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = ord(character) - ord("0")
        if not 0 <= code < 64 or shift > 60:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return None if shift else runs


def _shared(box: list[float], size: tuple[int, int]) -> float:
    """Return the smaller side of what a box shares with its image; below 0: the gap between."""
    x, y, width, height = box
    return min(min(x + width, size[1]) - max(x, 0), min(y + height, size[0]) - max(y, 0))


def _polygons(annotation: Entry) -> list[list[float]]:
    segmentation = annotation["segmentation"]
    return segmentation if isinstance(segmentation, list) else []


def _encloses(polygon: list[float]) -> bool:
    xs, ys = polygon[0::2], polygon[1::2]
    pairs = zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in pairs)) > 1e-6


def _points(annotation: Entry) -> Iterator[tuple[float, float, float]]:
    values = annotation["keypoints"]
    return zip(values[0::3], values[1::3], values[2::3], strict=False)


# The list of entries as a whole

DUPLICATE_IMAGE = error(
    "duplicate-image-id",
    "several images have one id; all but the last are lost",
    "give each its own id",
)
DUPLICATE_ANNOTATION = error(
    "duplicate-annotation-id",
    "several annotations have one id; Detectron2 refuses the file",
    "number the annotations again",
)
DUPLICATE_CATEGORY = error(
    "duplicate-category-id",
    "several categories have one id; all but the last are lost",
    "give each its own id",
)
DUPLICATE_NAME = warning(
    "duplicate-category-name", "several categories have one name", "rename or merge them"
)
DUPLICATE_FILE = warning(
    "duplicate-file", "several images have one file", "merge the images' annotations"
)
TWICE = warning(
    "same-object-twice",
    "annotations of one image with the same category and box",
    "remove all but one",
)
NO_IMAGES = error("no-images", "the list of images is empty", "check what wrote the file")
NO_CATEGORIES = error("no-categories", "the list of categories is empty", "add the categories")
NO_OBJECTS = error(
    "no-objects",
    "no image has an annotation other than crowds: nothing to train on, nothing to evaluate",
    "check what wrote the file",
)
FEW_KEYPOINTS = error(
    "few-keypoints",
    "no image has MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE known points: none is used",
    "check visibility, or lower the key",
)
IMAGE_WITHOUT_OBJECTS = warning(
    "image-without-objects",
    "an image without annotations, or with crowds only; training leaves it out",
    "fine if meant; DATALOADER.FILTER_EMPTY_ANNOTATIONS False keeps it",
)
UNUSED_CATEGORY = warning(
    "unused-category",
    "a category without annotations: it cannot be learned, nor evaluated",
    "fine if meant",
)


def problems_of_lists(coco: Coco) -> Iterator[Problem]:
    """Yield what is wrong with the lists of images, annotations and categories as wholes."""
    yield from _repeated(coco.images, "id", DUPLICATE_IMAGE, "image")
    yield from _repeated(coco.annotations, "id", DUPLICATE_ANNOTATION, "annotation")
    yield from _repeated(coco.categories, "id", DUPLICATE_CATEGORY, "category")
    yield from _repeated(coco.categories, "name", DUPLICATE_NAME, "category")
    yield from _repeated(coco.images, "file_name", DUPLICATE_FILE, "file")
    yield from _same_object_twice(coco)
    for kind, entries in ((NO_IMAGES, coco.images), (NO_CATEGORIES, coco.categories)):
        if not entries:
            yield Problem(kind, "the file", "the list is empty")
    yield from _use_of_images(coco)
    used = {annotation.get("category_id") for annotation in coco.annotations}
    for number, category in coco.category_by_id.items():
        if number not in used:
            yield Problem(UNUSED_CATEGORY, f"category {number}", short_repr(category.get("name")))


def _repeated(entries: list[Entry], key: str, kind: str, what: str) -> Iterator[Problem]:
    counts = Counter(entry.get(key) for entry in entries)
    for value, count in counts.items():
        if value is not None and count > 1:
            yield Problem(kind, f"{what} {short_repr(value)}", f"{count} times")


def _same_object_twice(coco: Coco) -> Iterator[Problem]:
    first: dict[tuple, Entry] = {}
    for annotation in coco.annotations:
        if annotation.get("bbox") is None:
            continue
        key = (annotation.get("image_id"), annotation.get("category_id"), *annotation["bbox"])
        other = first.setdefault(key, annotation)
        if other is not annotation:
            detail = f"as annotation {other.get('id')}: bbox is {annotation['bbox']}"
            yield Problem(TWICE, annotation_name(annotation), detail)


def _use_of_images(coco: Coco) -> Iterator[Problem]:
    objects = Counter(a.get("image_id") for a in coco.annotations if not a.get("iscrowd"))
    known_points: Counter[int | None] = Counter()
    for annotation in coco.annotations:
        visible = (annotation.get("keypoints") or [])[2::3]
        known_points[annotation.get("image_id")] += sum(v > 0 for v in visible)
    with_objects = [i for i in coco.image_by_id if objects[i]]
    if not with_objects:
        detail = f"{len(coco.images)} images, {len(coco.annotations)} annotations"
        yield Problem(NO_OBJECTS, "the file", detail)
        return
    least = coco.expected.min_keypoints
    if coco.has_keypoints and max(known_points[i] for i in with_objects) < least:
        yield Problem(FEW_KEYPOINTS, "the file", f"no image has {least} known points")
    for number, image in coco.image_by_id.items():
        if not objects[number]:
            yield Problem(IMAGE_WITHOUT_OBJECTS, image_name(image), "no objects")
