"""A small clean dataset, and the ways in which the tests make it dirty."""

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data.datasets import register_coco_instances
from hypothesis import HealthCheck, settings

WIDTH, HEIGHT = 40, 30
POINTS = ["nose", "left_eye", "right_eye"]
FLIPS = [("left_eye", "right_eye")]
NAN, INFINITY = float("nan"), float("inf")


def fuzz_with(examples: int) -> settings:
    """Return a fuzz test's budget: the same examples in each run, or as many others as the
    variable NL_DETECTRON_FUZZ_EXAMPLES says."""
    more = os.environ.get("NL_DETECTRON_FUZZ_EXAMPLES")
    return settings(
        max_examples=int(more or examples),
        derandomize=more is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


fuzz = fuzz_with(100)


def clean() -> dict[str, Any]:
    """Return annotations of two images, each of a person and a box, and of one crowd."""

    def thing(number: int, image: int, category: int, x: int) -> dict[str, Any]:
        is_person = category == 1
        points = [x + 5, 6, 2, x + 3, 5, 2, x + 7, 5, 1]
        return {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": [x, 4, 10, 12],
            "area": 120,
            "iscrowd": 0,
            "segmentation": [[x, 4, x + 10, 4, x + 10, 16, x, 16]],
            "keypoints": points if is_person else [0] * 9,
            "num_keypoints": 3 if is_person else 0,
        }

    crowd = {
        **thing(5, 2, 1, 0),
        "bbox": [0, 0, 1, HEIGHT],
        "iscrowd": 1,
        "area": HEIGHT,
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT, (WIDTH - 1) * HEIGHT]},
        "keypoints": [0] * 9,
        "num_keypoints": 0,
    }
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 2, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            thing(1, 1, 1, 2),
            thing(2, 1, 2, 20),
            thing(3, 2, 1, 4),
            thing(4, 2, 2, 25),
            crowd,
        ],
        "categories": [
            {"id": 1, "name": "person", "keypoints": [*POINTS]},
            {"id": 2, "name": "box"},
        ],
    }


@dataclass
class Files:
    """The dataset in a folder: ``data.json`` and ``images``."""

    folder: Path
    content: dict[str, Any]

    @property
    def annotations(self) -> Path:
        return self.folder / "data.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def write_annotations(self) -> None:
        self.annotations.write_text(json.dumps(self.content), encoding="utf-8")


def written(folder: Path, **sections: list[Any]) -> Files:
    """Return the clean dataset, written, with other `sections`."""
    files = Files(folder, clean() | sections)
    files.images.mkdir(parents=True)
    for name, value in (("a.jpg", 90), ("b.png", 160)):
        image = np.random.default_rng(value).integers(0, value, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(files.images / name), image)
    files.write_annotations()
    return files


def register(name: str, files: Files, **metadata: Any) -> str:
    """Register the dataset; skip metadata that is None."""
    values = {"keypoint_names": POINTS, "keypoint_flip_map": FLIPS, **metadata}
    given = {key: value for key, value in values.items() if value is not None}
    register_coco_instances(name, given, str(files.annotations), str(files.images))
    return name


Spoil = Callable[[Files], Any]


def change(how: Callable[[dict[str, Any]], Any]) -> Spoil:
    """Change the content of the annotation file, and write it."""

    def spoil(files: Files) -> None:
        how(files.content)
        files.write_annotations()

    return spoil


def put(section: str, index: int, **values: Any) -> Spoil:
    return change(lambda content: content[section][index].update(values))


def drop(section: str, index: int, key: str) -> Spoil:
    return change(lambda content: content[section][index].pop(key))


def repeat(section: str, **changes: Any) -> Spoil:
    """Append a copy of the first entry with `changes`."""
    return change(lambda content: content[section].append({**content[section][0], **changes}))


def every(section: str, **changes: Any) -> Spoil:
    return change(
        lambda content: [entry.update(copy.deepcopy(changes)) for entry in content[section]]
    )


def text(how: Callable[[str], str]) -> Spoil:
    return lambda files: files.annotations.write_text(how(files.annotations.read_text()))


def image(name: str, how: Callable[[bytes], bytes]) -> Spoil:
    def spoil(files: Files) -> None:
        path = files.images / name
        path.write_bytes(how(path.read_bytes()))

    return spoil


def replaced(how: Callable[[Path], Any]) -> Spoil:
    """Put something else in the place of the first image's file."""

    def spoil(files: Files) -> None:
        path = files.images / "a.jpg"
        path.unlink()
        how(path)

    return spoil


def encoded(extension: str, shape: tuple[int, ...], dtype: type = np.uint8) -> bytes:
    """Return a gray image as an image file's bytes."""
    return cv2.imencode(extension, np.full(shape, 128, dtype))[1].tobytes()


def turned(jpeg: bytes) -> bytes:
    """Add the EXIF orientation 6, a quarter turn, to a JPEG."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


def a(key: str, value: Any, number: int = 0) -> Spoil:
    """Set a key of an annotation."""
    return put("annotations", number, **{key: value})


def no_a(key: str) -> Spoil:
    """Remove a key of the first annotation."""
    return drop("annotations", 0, key)


def rle(counts: Any, number: int = 4) -> Spoil:
    return a("segmentation", {"size": [HEIGHT, WIDTH], "counts": counts}, number)


def half(content: Any) -> Any:
    return content[: len(content) // 2]


PIXELS = HEIGHT * WIDTH

FILES: dict[str, tuple[Spoil, str]] = {
    "not there": (lambda files: files.annotations.unlink(), "unreadable-annotations"),
    "no bytes": (text(lambda t: ""), "not-json"),
    "cut off": (text(half), "not-json"),
    "UTF-16": (lambda f: f.annotations.write_bytes(b"\xff\xfe{\0}\0"), "not-json"),
    "100,000 brackets deep": (text(lambda t: "[" * 100_000), "not-json"),
    "a number of 5,000 digits": (text(lambda t: "9" * 5000), "not-json"),
    "a list": (text(lambda t: "[]"), "not-coco"),
    "an empty object": (text(lambda t: "{}"), "not-coco"),
    "no categories": (
        change(lambda c: c.pop("categories")),
        "not-coco no-categories unknown-category",
    ),
    "images by id, not in a list": (
        change(lambda c: c.update(images={"1": {}})),
        "not-coco no-images unknown-image no-objects",
    ),
}
"""Bad annotation files: how to spoil them, and the kinds of all problems, the main one first."""

IMAGES: dict[str, tuple[Spoil, str]] = {
    "not there": (replaced(lambda path: None), "missing-image"),
    "a folder": (replaced(Path.mkdir), "missing-image"),
    "no bytes": (image("a.jpg", lambda b: b""), "empty-image-file"),
    "a JPEG cut off": (image("a.jpg", half), "unreadable-image"),
    "a JPEG cut off in its header": (image("a.jpg", lambda b: b[:12]), "unreadable-image"),
    "a PNG cut off": (image("b.png", half), "unreadable-image"),
    "a PNG with a broken chunk": (
        image("b.png", lambda b: b[:33] + b"\xff" * 20 + b[53:]),
        "unreadable-image",
    ),
    "a web page": (image("a.jpg", lambda b: b"<html>404 Not Found</html>"), "unreadable-image"),
    "one row too many": (
        image("a.jpg", lambda b: encoded(".jpg", (HEIGHT + 1, WIDTH, 3))),
        "image-size",
    ),
    "a PNG of 16 bits": (
        image("b.png", lambda b: encoded(".png", (HEIGHT, WIDTH), np.uint16)),
        "image-depth",
    ),
    "turned by its EXIF orientation": (image("a.jpg", turned), "image-size"),
}
"""Bad image files, likewise."""

ENTRIES: dict[str, tuple[Spoil, str]] = {
    # Lists
    "no image": (change(lambda c: c["images"].clear()), "no-images unknown-image no-objects"),
    "no annotation": (change(lambda c: c["annotations"].clear()), "no-objects unused-category"),
    "no annotations, as in a test set": (
        change(lambda c: c.pop("annotations")),
        "not-coco no-objects unused-category",
    ),
    "only crowds": (every("annotations", iscrowd=1), "no-objects"),
    "images with one id": (
        repeat("images", file_name="b.png"),
        "duplicate-image-id duplicate-file",
    ),
    "annotations with one id": (repeat("annotations", category_id=2), "duplicate-annotation-id"),
    "categories with one id": (repeat("categories", name="other"), "duplicate-category-id"),
    "categories with one name": (
        repeat("categories", id=3),
        "duplicate-category-name unused-category",
    ),
    "an image without annotations": (every("annotations", image_id=1), "image-without-objects"),
    "an image that is a text": (
        change(lambda c: c.update(images=["a.jpg", c["images"][1]])),
        "wrong-type unknown-image",
    ),
    # Images
    "no file_name": (drop("images", 0, "file_name"), "missing-key"),
    "no width": (drop("images", 0, "width"), "missing-key"),
    "width 0": (put("images", 0, width=0), "wrong-type"),
    "width NaN": (put("images", 0, width=NAN), "wrong-type"),
    "id a list": (put("images", 0, id=[1]), "wrong-type unknown-image"),
    "a NUL byte in file_name": (put("images", 0, file_name="a\0.jpg"), "missing-image"),
    "half a surrogate pair in file_name": (
        put("images", 0, file_name="\ud83d.jpg"),
        "missing-image",
    ),
    # References and evaluation
    "an unknown image": (a("image_id", 77), "unknown-image"),
    "category counted from 0": (a("category_id", 0), "unknown-category"),
    "no id": (no_a("id"), "missing-key"),
    "id 0": (a("id", 0), "annotation-id-zero"),
    "id beyond 2**53": (a("id", 2**53 + 1), "wrong-type"),
    "'ignore' set": (a("ignore", 1), "ignore-flag"),
    "iscrowd 2": (a("iscrowd", 2), "wrong-type"),
    "no iscrowd": (no_a("iscrowd"), "no-evaluation-key"),
    "no area": (no_a("area"), "no-evaluation-key"),
    "no num_keypoints": (no_a("num_keypoints"), "no-evaluation-key"),
    "area NaN": (a("area", NAN), "wrong-type"),
    "category without a name": (drop("categories", 0, "name"), "missing-key"),
    # Boxes
    "no box": (no_a("bbox"), "missing-key"),
    "a box of 3 numbers": (a("bbox", [1, 2, 3]), "wrong-type"),
    "a box that is an object": (a("bbox", {"x": 1, "y": 2, "w": 3, "h": 4}), "wrong-type"),
    "a box with infinity": (a("bbox", [2, 4, INFINITY, 12]), "wrong-type"),
    "a box with a number of 400 digits": (a("bbox", [2, 4, 10**400, 12]), "wrong-type"),
    "a box of no height": (a("bbox", [2, 4, 10, 0]), "empty-box"),
    "a box of negative width": (a("bbox", [12, 4, -10, 12]), "empty-box"),
    "a box thinner than rounding": (a("bbox", [2, 4, 1e-7, 12]), "empty-box"),
    "a box left of its image": (a("bbox", [-50, 4, 10, 12]), "box-outside-image"),
    "a box below its image": (a("bbox", [2, 90, 10, 12]), "box-outside-image"),
    "a box that touches its image": (a("bbox", [WIDTH, 4, 10, 12]), "box-outside-image"),
    "a box by two corners": (a("bbox", [20, 4, 38, 16]), "box-beyond-edge"),
    "a box from 0 to 1": (a("bbox", [0.05, 0.13, 0.25, 0.4]), "tiny-box"),
    # Masks
    "no mask": (no_a("segmentation"), "no-mask"),
    "an empty mask": (a("segmentation", []), "no-mask"),
    "a polygon without points": (a("segmentation", [[]]), "bad-polygon"),
    "a good polygon and one of 1 point": (
        a("segmentation", [[2, 4, 12, 4, 12, 16], [2, 4]]),
        "bad-polygon",
    ),
    "a polygon of 7 numbers": (a("segmentation", [[2, 4, 12, 4, 12, 16, 2]]), "bad-polygon"),
    "a polygon not in a list": (a("segmentation", [2, 4, 12, 4, 12, 16]), "wrong-type"),
    "a polygon of points": (a("segmentation", [[[2, 4], [12, 4], [12, 16]]]), "wrong-type"),
    "a polygon with 1e9, which would fill memory": (
        a("segmentation", [[2, 4, 1e9, 4, 12, 16]]),
        "wrong-type",
    ),
    "a mask that is a file": (a("segmentation", "mask.png"), "wrong-type"),
    "RLE of an object": (rle([0, 300, PIXELS - 300], 0), "rle-mask"),
    "RLE without counts": (a("segmentation", {"size": [HEIGHT, WIDTH]}, 4), "wrong-type"),
    "RLE with a negative run": (rle([0, -5, PIXELS + 5]), "wrong-type"),
    # Keypoints
    "no keypoints": (no_a("keypoints"), "no-keypoints"),
    "one point too few": (a("keypoints", [7, 6, 2, 5, 5, 2]), "keypoint-count"),
    "8 numbers": (a("keypoints", [7, 6, 2, 5, 5, 2, 9, 5]), "keypoint-count"),
    "pairs": (a("keypoints", [[7, 6, 2], [5, 5, 2], [9, 5, 1]]), "wrong-type"),
}
"""Bad entries, likewise."""

CASES = {
    f"{what}: {how}": case
    for what, cases in (("file", FILES), ("image", IMAGES), ("entry", ENTRIES))
    for how, case in cases.items()
}
