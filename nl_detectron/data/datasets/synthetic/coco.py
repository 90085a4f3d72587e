"""Writing of drawn images to a folder in COCO's format."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
from detectron2.data.datasets.builtin_meta import (
    COCO_PERSON_KEYPOINT_NAMES,
    KEYPOINT_CONNECTION_RULES,
)

from .canvas import SCALE

MIN_POLYGON_AREA = 3.0
"""Smallest visible fragment of a mask in square pixels."""

_NO_KEYPOINTS = [0] * (3 * len(COCO_PERSON_KEYPOINT_NAMES))


AnnotatedImage = tuple[np.ndarray, list[dict[str, Any]]]
"""An image, RGB uint8 ``(H, W, 3)``, and COCO annotations that lack only their ids."""


def instance(
    category_id: int, visible: np.ndarray, keypoints: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the annotation of one object.

    Box, area and keypoint visibility follow from the same visible mask as the polygons. Objects
    without keypoints get a list of zeros: COCO's evaluation of keypoints expects the key in every
    annotation, and ignores objects without known points.

    Args:
        category_id: COCO category id.
        visible: mask of the sub-pixels of the object, bool ``(H * SCALE, W * SCALE)``.
        keypoints: ``(17, 2)`` in pixels, NaN for points that the object does not show.

    Raises:
        ValueError: only fragments of the object are visible.
    """
    polygons = mask_to_polygons(visible)
    height, width = (n // SCALE for n in visible.shape)
    points = np.concatenate(polygons)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    segmentation = [p.ravel().tolist() for p in polygons]
    rle = mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    triplets = _NO_KEYPOINTS if keypoints is None else _keypoints(keypoints, visible)
    return {
        "category_id": category_id,
        "bbox": [float(v) for v in (x0, y0, x1 - x0, y1 - y0)],
        "segmentation": segmentation,
        "area": float(mask_util.area(rle)),
        "iscrowd": 0,
        "keypoints": triplets,
        "num_keypoints": int(np.count_nonzero(triplets[2::3])),
    }


def crowd(category_id: int, visible: np.ndarray) -> dict[str, Any]:
    """Return the annotation of a region with many objects: ``iscrowd`` and a run-length mask.

    Arguments are those of `instance`.
    """
    height, width = (n // SCALE for n in visible.shape)
    size = (width, height)
    mask = cv2.resize(visible.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5
    flat = np.concatenate([[False], mask.ravel(order="F")])  # the first run counts zeros
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)), [mask.size]])
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x0, y0 = int(columns[0]), int(rows[0])
    return {
        "category_id": category_id,
        "bbox": [x0, y0, int(columns[-1]) + 1 - x0, int(rows[-1]) + 1 - y0],
        "segmentation": {"size": [height, width], "counts": np.diff(starts).tolist()},
        "area": float(mask.sum()),
        "iscrowd": 1,
        "keypoints": _NO_KEYPOINTS,
        "num_keypoints": 0,
    }


def mask_to_polygons(mask: np.ndarray) -> list[np.ndarray]:
    """Return polygons ``(N, 2)`` in pixels for a mask of sub-pixels, without the smallest ones.

    A cut joins a hole to its surrounding polygon. It runs in both directions and encloses no area,
    so formats that have polygons only keep the hole.
    """
    # OpenCV's contours join the centers of the outermost sub-pixels, half a sub-pixel inside the
    # edge. On a grid of corners instead of centers, they are the edge itself.
    corners = cv2.dilate(
        np.pad(mask.astype(np.uint8), (0, 1)), np.ones((2, 2), np.uint8), anchor=(1, 1)
    )
    found, tree = cv2.findContours(corners, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons: dict[int, np.ndarray] = {}
    limit = MIN_POLYGON_AREA * SCALE**2
    for hole in (False, True):  # outer contours first
        for i, contour in enumerate(found):
            parent = tree[0][i][3]
            if (parent >= 0) != hole or cv2.contourArea(contour) < limit:
                continue
            contour = cv2.approxPolyDP(contour, 0.8, True)[:, 0]
            if not hole:
                polygons[i] = contour
            elif parent in polygons:
                polygons[parent] = _cut(polygons[parent], contour)
    return [p / SCALE for p in polygons.values()]


def _cut(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Join a hole to its polygon at their nearest corners."""
    distance = ((outer[:, None] - hole[None]) ** 2).sum(axis=2)
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    around = np.concatenate([hole[j:], hole[: j + 1]])
    return np.concatenate([outer[: i + 1], around, outer[i:]])


def _keypoints(points: np.ndarray, visible: np.ndarray) -> list[int]:
    """Return COCO's flat ``x, y, v``: 2 is visible, 1 is hidden, 0 is unknown."""
    height, width = visible.shape
    triplets: list[int] = []
    for x, y in points:
        column, row = x * SCALE, y * SCALE
        if not (0 <= column < width and 0 <= row < height):  # false for NaN, too
            triplets += [0, 0, 0]
        else:  # COCO counts whole pixels
            triplets += [int(x), int(y), 2 if visible[int(row), int(column)] else 1]
    return triplets


def categories(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return COCO's table of categories, ids from 1 in the order of `names`."""
    table: list[dict[str, Any]] = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    index = {name: i for i, name in enumerate(COCO_PERSON_KEYPOINT_NAMES, 1)}
    for entry in table:
        if entry["name"] == "person":
            entry["keypoints"] = list(COCO_PERSON_KEYPOINT_NAMES)
            entry["skeleton"] = [[index[a], index[b]] for a, b, _ in KEYPOINT_CONNECTION_RULES]
    return table


def annotation_file(folder: Path, split: str) -> Path:
    """Return the path of the annotations of `split`; the images are in ``folder / split``."""
    return folder / "annotations" / f"instances_{split}.json"


def write_split(
    folder: Path,
    split: str,
    class_names: Sequence[str],
    drawn: Iterable[AnnotatedImage],
    *,
    description: str,
) -> None:
    """Write a split in COCO's format.

    Args:
        folder: gets ``annotations/instances_{split}.json`` and ``{split}/000001.jpg``, ...
        split: name of the split, and of an existing folder.
        class_names: names of the categories; ids count from 1.
        drawn: the images.
        description: description in the file.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (image, of_image) in enumerate(drawn, 1):
        name = f"{image_id:06d}.jpg"
        bgr = np.ascontiguousarray(image[..., ::-1])
        encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        (folder / split / name).write_bytes(encoded.tobytes())
        height, width = image.shape[:2]
        images.append({"id": image_id, "file_name": name, "height": height, "width": width})
        for annotation in of_image:
            new_ids = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append(annotation | new_ids)
    content = {
        "info": {"description": description},
        "images": images,
        "annotations": annotations,
        "categories": categories(class_names),
    }
    path = annotation_file(folder, split)
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    path.write_text(text, encoding="utf-8")
