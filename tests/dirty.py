"""A small clean data set, and every way in which the tests make it dirty."""

import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
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
    """The data set in a folder: ``data.json`` and ``images``."""

    folder: Path
    content: dict[str, Any] = field(default_factory=clean)

    @property
    def annotations(self) -> Path:
        return self.folder / "data.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def write_images(self) -> None:
        self.images.mkdir()
        for name, value in (("a.jpg", 90), ("b.png", 160)):
            image = np.random.default_rng(value).integers(0, value, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(str(self.images / name), image)

    def write_annotations(self) -> None:
        self.annotations.write_text(json.dumps(self.content), encoding="utf-8")


Spoil = Callable[[Files], None]


@dataclass(frozen=True)
class Case:
    """A bad input: what is broken, and the kinds of all that is reported, the main thing first.

    ``spoil`` runs when images and annotations are written, so it may change both.
    """

    how: str
    spoil: Spoil
    reported: str

    @property
    def kind(self) -> str:
        """The main thing that is reported."""
        return self.reported.split()[0]


def _change(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    def spoil(files: Files) -> None:
        change(files.content)
        files.write_annotations()

    return spoil


def put(*path: Any) -> Spoil:
    """``put("images", 0, "width", 7)`` sets the width of the first image."""

    def change(content: dict[str, Any]) -> None:
        *keys, last, value = path
        node: Any = content
        for key in keys:
            node = node[key]
        node[last] = value

    return _change(change)


def drop(*path: Any) -> Spoil:
    def change(content: dict[str, Any]) -> None:
        *keys, last = path
        node: Any = content
        for key in keys:
            node = node[key]
        del node[last]

    return _change(change)


def repeat(section: str, **changes: Any) -> Spoil:
    """Append a copy of the first entry with `changes`."""
    return _change(lambda content: content[section].append({**content[section][0], **changes}))


def every(section: str, **changes: Any) -> Spoil:
    def change(content: dict[str, Any]) -> None:
        for entry in content[section]:
            entry.update(copy.deepcopy(changes))

    return _change(change)


def text(change: Callable[[str], str | bytes]) -> Spoil:
    def spoil(files: Files) -> None:
        changed = change(files.annotations.read_text(encoding="utf-8"))
        content = changed if isinstance(changed, bytes) else changed.encode()
        files.annotations.write_bytes(content)

    return spoil


def image(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(files: Files) -> None:
        path = files.images / name
        path.write_bytes(change(path.read_bytes()))

    return spoil


def encoded(extension: str, shape: tuple[int, ...]) -> bytes:
    """Return a grey image as an image file's bytes."""
    return cv2.imencode(extension, np.full(shape, 128, np.uint8))[1].tobytes()


def _deep() -> bytes:
    values = np.full((HEIGHT, WIDTH), 3000, np.uint16)
    return cv2.imencode(".png", values)[1].tobytes()


def on_disk(change: Callable[[Files], Any]) -> Spoil:
    def spoil(files: Files) -> None:
        change(files)

    return spoil


def a(key: str, value: Any, number: int = 0) -> Spoil:
    """Set a key of an annotation."""
    return put("annotations", number, key, value)


def no_a(key: str, number: int = 0) -> Spoil:
    """Remove a key of an annotation."""
    return drop("annotations", number, key)


def rle(counts: Any, number: int = 4, size: Any = (HEIGHT, WIDTH)) -> Spoil:
    return a("segmentation", {"size": list(size), "counts": counts}, number)


def replaced(change: Callable[[Path], Any]) -> Spoil:
    """Put something else in the place of the first image's file."""

    def spoil(files: Files) -> None:
        path = files.images / "a.jpg"
        path.unlink()
        change(path)

    return spoil


PIXELS = HEIGHT * WIDTH

CASES: dict[str, list[Case]] = {
    "annotation file": [
        Case("not there", on_disk(lambda f: f.annotations.unlink()), "unreadable-annotations"),
        Case(
            "a folder",
            on_disk(lambda f: (f.annotations.unlink(), f.annotations.mkdir())),
            "unreadable-annotations",
        ),
        Case("no bytes", text(lambda t: ""), "not-json"),
        Case("cut off in the middle", text(lambda t: t[: len(t) // 2]), "not-json"),
        Case("the last character missing", text(lambda t: t[:-1]), "not-json"),
        Case("written twice, one after the other", text(lambda t: t + t), "not-json"),
        Case("CSV", text(lambda t: "image,label\na.jpg,person\n"), "not-json"),
        Case("an image", text(lambda t: encoded(".jpg", (9, 9, 3))), "not-json"),
        Case("UTF-16", text(lambda t: t.encode("utf-16")), "not-json"),
        Case("with a byte order mark", text(lambda t: "\ufeff" + t), "not-json"),
        Case("100,000 brackets deep", text(lambda t: "[" * 100_000), "not-json"),
        Case("a number of 5,000 digits", text(lambda t: "9" * 5000), "not-json"),
        Case("a list", text(lambda t: "[]"), "not-coco"),
        Case("null", text(lambda t: "null"), "not-coco"),
        Case("an empty object", text(lambda t: "{}"), "not-coco"),
        Case("no images", drop("images"), "not-coco no-images unknown-image no-objects"),
        Case("no annotations", drop("annotations"), "not-coco no-objects unused-category"),
        Case("no categories", drop("categories"), "not-coco no-categories unknown-category"),
        Case(
            "images by id, not in a list",
            put("images", {"1": {}}),
            "not-coco no-images unknown-image no-objects",
        ),
    ],
    "list": [
        Case("no image in the list", put("images", []), "no-images unknown-image no-objects"),
        Case("no annotation in the list", put("annotations", []), "no-objects unused-category"),
        Case(
            "no category in the list",
            put("categories", []),
            "no-categories unknown-category",
        ),
        Case("only crowds", every("annotations", iscrowd=1), "no-objects"),
        Case(
            "two images with one id",
            repeat("images", file_name="b.png"),
            "duplicate-image-id duplicate-file",
        ),
        Case(
            "two annotations with one id",
            repeat("annotations", category_id=2),
            "duplicate-annotation-id",
        ),
        Case(
            "two categories with one id",
            repeat("categories", name="other"),
            "duplicate-category-id",
        ),
        Case(
            "two categories with one name",
            repeat("categories", id=3),
            "duplicate-category-name unused-category",
        ),
        Case(
            "one file as two images", repeat("images", id=3), "duplicate-file image-without-objects"
        ),
        Case("an object twice", repeat("annotations", id=9), "same-object-twice"),
        Case(
            "an image without annotations",
            every("annotations", image_id=1),
            "image-without-objects",
        ),
        Case(
            "a category without annotations",
            repeat("categories", id=3, name="cat"),
            "unused-category",
        ),
        Case("an image that is a string", put("images", 1, "b.png"), "wrong-type unknown-image"),
        Case("an annotation that is null", put("annotations", 1, None), "wrong-type"),
        Case(
            "a category that is a name", put("categories", 1, "box"), "wrong-type unknown-category"
        ),
    ],
    "image entry": [
        Case("no id", drop("images", 0, "id"), "missing-key unknown-image"),
        Case("no file_name", drop("images", 0, "file_name"), "missing-key"),
        Case("no width", drop("images", 0, "width"), "missing-key"),
        Case("height a string", put("images", 0, "height", "30"), "wrong-type"),
        Case("height a float", put("images", 0, "height", 30.0), "wrong-type"),
        Case("width 0", put("images", 0, "width", 0), "wrong-type"),
        Case("width negative", put("images", 0, "width", -40), "wrong-type"),
        Case("width NaN", put("images", 0, "width", NAN), "impossible-number"),
        Case("id a string", put("images", 0, "id", "1"), "wrong-type unknown-image"),
        Case("id a list", put("images", 0, "id", [1]), "wrong-type unknown-image"),
        Case("id true", put("images", 0, "id", True), "wrong-type unknown-image"),
        Case("file_name empty", put("images", 0, "file_name", ""), "wrong-type"),
        Case("file_name a number", put("images", 0, "file_name", 17), "wrong-type"),
        Case("a NUL byte in file_name", put("images", 0, "file_name", "a\0.jpg"), "missing-image"),
        Case(
            "half a surrogate pair in file_name",
            put("images", 0, "file_name", "\ud83d.jpg"),
            "missing-image",
        ),
        Case(
            "width and height swapped",
            put("images", 0, {"id": 1, "file_name": "a.jpg", "width": HEIGHT, "height": WIDTH}),
            "image-size",
        ),
    ],
    "image file": [
        Case("not there", replaced(lambda path: None), "missing-image"),
        Case("a link to nowhere", replaced(lambda path: path.symlink_to("x")), "missing-image"),
        Case("a folder", replaced(Path.mkdir), "missing-image"),
        Case("no bytes", image("a.jpg", lambda b: b""), "empty-image-file"),
        Case(
            "a JPEG cut off in the middle",
            image("a.jpg", lambda b: b[: len(b) // 2]),
            "truncated-image",
        ),
        Case("a JPEG cut off in its header", image("a.jpg", lambda b: b[:12]), "unreadable-image"),
        Case(
            "a PNG cut off in the middle",
            image("b.png", lambda b: b[: len(b) // 2]),
            "truncated-image",
        ),
        Case(
            "a PNG with a broken chunk",
            image("b.png", lambda b: b[:33] + b"\xff" * 20 + b[53:]),
            "unreadable-image",
        ),
        Case(
            "a web page",
            image("a.jpg", lambda b: b"<html>404 Not Found</html>"),
            "unreadable-image",
        ),
        Case(
            "a Git LFS pointer",
            image("a.jpg", lambda b: b"version https://git-lfs.github.com/spec/v1\n"),
            "unreadable-image",
        ),
        Case("zeros", image("a.jpg", lambda b: bytes(len(b))), "unreadable-image"),
        Case("a thumbnail", image("a.jpg", lambda b: encoded(".jpg", (15, 20, 3))), "image-size"),
        Case(
            "one row too many",
            image("a.jpg", lambda b: encoded(".jpg", (HEIGHT + 1, WIDTH, 3))),
            "image-size",
        ),
        Case("a PNG of 16 bits", image("b.png", lambda b: _deep()), "image-depth"),
        Case("turned by its EXIF orientation", image("a.jpg", lambda b: _turned(b)), "image-size"),
    ],
    "reference": [
        Case("of an unknown image", a("image_id", 77), "unknown-image"),
        Case("of an unknown category", a("category_id", 77), "unknown-category"),
        Case("category counted from 0", a("category_id", 0), "unknown-category"),
        Case("no image_id", no_a("image_id"), "missing-key"),
        Case("no category_id", no_a("category_id"), "missing-key"),
        Case("no id", no_a("id"), "missing-key"),
        Case("id null", a("id", None), "wrong-type"),
        Case("id 0", a("id", 0), "annotation-id-zero"),
        Case("id beyond 2**53", a("id", 2**53 + 1), "impossible-number"),
        Case("image_id a string", a("image_id", "1"), "wrong-type"),
        Case("category_id a name", a("category_id", "person"), "wrong-type"),
        Case("category_id a list", a("category_id", [1]), "wrong-type"),
        Case("'ignore' set", a("ignore", 1), "ignore-flag"),
        Case("iscrowd 2", a("iscrowd", 2), "wrong-type"),
        Case("iscrowd a string", a("iscrowd", "0"), "wrong-type"),
        Case("no iscrowd", no_a("iscrowd"), "no-evaluation-key"),
        Case("no area", no_a("area"), "no-evaluation-key"),
        Case("area a string", a("area", "120"), "wrong-type"),
        Case("area negative", a("area", -120), "negative-area"),
        Case("area NaN", a("area", NAN), "impossible-number"),
        Case("category without a name", drop("categories", 0, "name"), "missing-key"),
        Case(
            "category id a string", put("categories", 0, "id", "1"), "wrong-type unknown-category"
        ),
    ],
    "box": [
        Case("none", no_a("bbox"), "missing-key"),
        Case("null", a("bbox", None), "wrong-type"),
        Case("empty", a("bbox", []), "wrong-type"),
        Case("of 3 numbers", a("bbox", [1, 2, 3]), "wrong-type"),
        Case("of 5 numbers", a("bbox", [1, 2, 3, 4, 5]), "wrong-type"),
        Case("of strings", a("bbox", ["2", "4", "10", "12"]), "wrong-type"),
        Case("an object", a("bbox", {"x": 1, "y": 2, "w": 3, "h": 4}), "wrong-type"),
        Case("with NaN", a("bbox", [2, 4, NAN, 12]), "impossible-number"),
        Case("with infinity", a("bbox", [2, 4, INFINITY, 12]), "impossible-number"),
        Case("with 1e30", a("bbox", [2, 4, 1e30, 12]), "impossible-number"),
        Case("with a number of 400 digits", a("bbox", [2, 4, 10**400, 12]), "impossible-number"),
        Case("of no width", a("bbox", [2, 4, 0, 12]), "empty-box"),
        Case("of no height", a("bbox", [2, 4, 10, 0]), "empty-box"),
        Case("of negative width", a("bbox", [12, 4, -10, 12]), "empty-box"),
        Case("thinner than rounding", a("bbox", [2, 4, 1e-7, 12]), "empty-box"),
        Case("right of its image", a("bbox", [100, 4, 10, 12]), "box-outside-image"),
        Case("left of its image", a("bbox", [-50, 4, 10, 12]), "box-outside-image"),
        Case("below its image", a("bbox", [2, 90, 10, 12]), "box-outside-image"),
        Case("touching its image from outside", a("bbox", [WIDTH, 4, 10, 12]), "box-outside-image"),
        Case("given by two corners", a("bbox", [20, 4, 38, 16]), "box-beyond-edge"),
        Case("from 0 to 1", a("bbox", [0.05, 0.13, 0.25, 0.4]), "tiny-box"),
    ],
    "mask": [
        Case("none, where others have one", no_a("segmentation"), "no-mask"),
        Case("an empty list", a("segmentation", []), "no-mask"),
        Case("null", a("segmentation", None), "no-mask"),
        Case("a polygon without points", a("segmentation", [[]]), "short-polygon"),
        Case("a polygon of 2 points", a("segmentation", [[2, 4, 12, 16]]), "short-polygon"),
        Case(
            "one good polygon and one of 1 point",
            a("segmentation", [[2, 4, 12, 4, 12, 16], [2, 4]]),
            "short-polygon",
        ),
        Case(
            "a polygon of 7 numbers", a("segmentation", [[2, 4, 12, 4, 12, 16, 2]]), "odd-polygon"
        ),
        Case("a polygon that is a line", a("segmentation", [[2, 4, 7, 4, 12, 4]]), "flat-polygon"),
        Case(
            "a polygon outside its image",
            a("segmentation", [[90, 4, 99, 4, 99, 16]]),
            "polygon-beyond-edge",
        ),
        Case(
            "a polygon that is not in a list",
            a("segmentation", [2, 4, 12, 4, 12, 16]),
            "wrong-type",
        ),
        Case("a polygon of points", a("segmentation", [[[2, 4], [12, 4], [12, 16]]]), "wrong-type"),
        Case(
            "a polygon of strings",
            a("segmentation", [["2", "4", "12", "4", "12", "16"]]),
            "wrong-type",
        ),
        Case("a polygon that is a string", a("segmentation", ["2,4,12,4,12,16"]), "wrong-type"),
        Case(
            "a polygon with NaN", a("segmentation", [[2, 4, NAN, 4, 12, 16]]), "impossible-number"
        ),
        Case(
            "a polygon with 1e9, which would fill memory",
            a("segmentation", [[2, 4, 1e9, 4, 12, 16]]),
            "impossible-number",
        ),
        Case("a string", a("segmentation", "mask.png"), "wrong-type"),
        Case("RLE of a single object", rle([0, 300, PIXELS - 300], 0), "rle-mask"),
        Case("RLE without counts", a("segmentation", {"size": [HEIGHT, WIDTH]}, 4), "wrong-type"),
        Case("RLE without size", a("segmentation", {"counts": [0, 9]}, 4), "wrong-type"),
        Case("RLE with a negative run", rle([0, -5, PIXELS + 5]), "wrong-type"),
        Case(
            "RLE with width and height swapped",
            rle([0, 9, PIXELS - 9], size=(WIDTH, HEIGHT)),
            "rle-size",
        ),
        Case("RLE with too few pixels", rle([0, 9, 9]), "bad-rle"),
        Case("RLE with too many pixels", rle([0, PIXELS, 9]), "bad-rle"),
        Case("RLE in compressed form, cut off", rle("0n00"), "bad-rle"),
        Case("RLE in compressed form, of another size", rle("052"), "bad-rle"),
        Case("RLE with characters it does not use", rle("é!"), "bad-rle"),
        Case("RLE with a run of 200 characters", rle("o" * 200), "bad-rle"),
        Case("RLE of an empty mask", rle([PIXELS]), "empty-mask"),
    ],
    "keypoints": [
        Case("none, where others have them", drop("annotations", 0, "keypoints"), "no-keypoints"),
        Case("null", a("keypoints", None), "wrong-type"),
        Case("an empty list", a("keypoints", []), "keypoint-count num-keypoints"),
        Case(
            "one point too few", a("keypoints", [7, 6, 2, 5, 5, 2]), "keypoint-count num-keypoints"
        ),
        Case("one point too many", a("keypoints", [7, 6, 2] * 4), "keypoint-count num-keypoints"),
        Case(
            "without visibility",
            a("keypoints", [7, 6, 5, 5, 9, 5]),
            "keypoint-count keypoint-visibility num-keypoints",
        ),
        Case("8 numbers", a("keypoints", [7, 6, 2, 5, 5, 2, 9, 5]), "keypoint-count num-keypoints"),
        Case("pairs", a("keypoints", [[7, 6, 2], [5, 5, 2], [9, 5, 1]]), "wrong-type"),
        Case("strings", a("keypoints", ["7", "6", "2"] * 3), "wrong-type"),
        Case("with NaN", a("keypoints", [NAN, 6, 2, 5, 5, 2, 9, 5, 1]), "impossible-number"),
        Case("visibility 3", a("keypoints", [7, 6, 3, 5, 5, 2, 9, 5, 1]), "keypoint-visibility"),
        Case(
            "visibility -1",
            a("keypoints", [7, 6, -1, 5, 5, 2, 9, 5, 1]),
            "keypoint-visibility num-keypoints",
        ),
        Case(
            "a score for visibility",
            a("keypoints", [7, 6, 0.9, 5, 5, 2, 9, 5, 1]),
            "keypoint-visibility",
        ),
        Case(
            "a known point outside its image",
            a("keypoints", [99, 6, 2, 5, 5, 2, 9, 5, 1]),
            "keypoint-outside-image",
        ),
        Case("num_keypoints wrong", a("num_keypoints", 2), "num-keypoints"),
        Case("num_keypoints a string", a("num_keypoints", "3"), "wrong-type"),
        Case("no num_keypoints", no_a("num_keypoints"), "no-evaluation-key"),
        Case("names that are numbers", put("categories", 0, "keypoints", [1, 2, 3]), "wrong-type"),
    ],
}
"""Bad inputs by what is broken."""


def _turned(jpeg: bytes) -> bytes:
    """Add the EXIF orientation 6, a quarter turn, to a JPEG."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
