"""The table of the zoo: one entry for each config, with everything known about its model.

Published figures stand here. What this project measures is written by tools into two CSV files
beside this one and read from them: ``measured.csv`` (the results of evaluations) and
``complexity.csv`` (parameters and multiply-adds). Entries of videos are in ``video_entries.py``.
"""

import csv
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from .entry import Entry, Metric, Results
from .video_entries import VIDEO_ENTRIES

TABLE_5 = "Table 5: instance segmentation"
TABLE_6 = "Table 6: keypoints"
DETECTION = "Object detection"
FORM = "Ablation: form of f"
STAGE = "Ablation: stage"
NUMBER = "Ablation: number of blocks"
SUBSAMPLING = "Ablation: subsampling"
NORM = "Ablation: norm after W_z"

_AP = ("AP", "AP50", "AP75")
BOX = Metric(name="box", key="bbox", columns=_AP)
MASK = Metric(name="mask", key="segm", columns=_AP)
KEYPOINT = Metric(name="keypoint", key="keypoints", columns=_AP)


class AP(NamedTuple):
    """Average precision in per cent, at IoU (OKS for keypoints) 0.50:0.95, 0.50 and 0.75."""

    ap: float
    ap50: float | None = None
    ap75: float | None = None


class DetectionEntry(Entry):
    """A detector, measured by AP on COCO val2017."""

    @property
    def task(self) -> str:
        """``box``, ``mask`` or ``keypoint``: boxes alone, or boxes and the other thing."""
        return self.metrics[-1].name

    @property
    def metrics(self) -> tuple[Metric, ...]:
        more = {"faster": (), "retinanet": (), "mask": (MASK,), "keypoint": (KEYPOINT,)}
        return (BOX, *more[self._name["detector"]])

    @property
    def model(self) -> str:
        """Detector and backbone, e.g. ``Mask R-CNN R50-FPN``."""
        depth = self._name["backbone"].replace("_", "", 1).replace("_", "-")
        detector = self._name["detector"]
        name = "RetinaNet" if detector == "retinanet" else f"{detector.capitalize()} R-CNN"
        return f"{name} {depth}-FPN"

    @property
    def schedule(self) -> str:
        """``1x``, ``s1x``, ``1.44x`` or ``3x``."""
        return self._name["schedule"]

    @property
    def row_name(self) -> str:
        """E.g. ``R50``, ``X152-NL``, ``R101-NL-head-backbone``, ``R50-NL-3x``.

        The schedule is left out where it is that of the paper's row (1x, and 1.44x for X152).
        """
        kind, depth = self._name["backbone"].split("_")[:2]
        parts = [kind + depth]
        if self._name["blocks"]:
            parts.append(self._name["blocks"].replace("_", "-"))
        if self.schedule not in ("1x", "1.44x"):
            parts.append(self.schedule)
        return "-".join(parts)

    @property
    def _name(self) -> re.Match[str]:
        """The parts of the config's file name, which follows Detectron2's pattern."""
        pattern = (
            r"(?P<detector>[a-z]+)(_rcnn)?_(?P<backbone>[A-Z].*?)_FPN_"
            r"((?P<blocks>.*)_)?(?P<schedule>[^_]+)\.yaml"
        )
        match = re.fullmatch(pattern, Path(self.config).name)
        if match is None:
            raise ValueError(f"{self.config} does not follow the pattern of the zoo's names")
        return match


def find_entry(config_path: str) -> Entry | None:
    """Return the entry of a config, ``.yaml`` or ``.py``, or None when the zoo has none."""
    name = config_path.removesuffix(".py").removesuffix(".yaml") + ".yaml"
    return next((entry for entry in ENTRIES if entry.config == name), None)


# Sources. Paper: arXiv 1711.07971, Tables 5 and 6. Detectron2: its MODEL_ZOO.md.
_PUBLISHED: tuple[Entry, ...] = (
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        section=TABLE_5,
        paper=Results(box=AP(38.0, 59.6, 41.0), mask=AP(34.6, 56.4, 36.5)),
        detectron2=Results(box=AP(38.6), mask=AP(35.2)),
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml",
        section=TABLE_5,
        blocks="1 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
        paper=Results(box=AP(39.0, 61.1, 41.9), mask=AP(35.5, 58.0, 37.4)),
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_1x.yaml",
        section=TABLE_5,
        paper=Results(box=AP(39.5, 61.4, 42.9), mask=AP(36.0, 58.1, 38.3)),
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_NL_1x.yaml",
        section=TABLE_5,
        blocks="1 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_1x.yaml",
        paper=Results(box=AP(40.8, 63.1, 44.5), mask=AP(37.1, 59.9, 39.2)),
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_1.44x.yaml",
        section=TABLE_5,
        paper=Results(box=AP(44.1, 66.4, 48.4), mask=AP(39.7, 63.2, 42.2)),
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_NL_1.44x.yaml",
        section=TABLE_5,
        blocks="1 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_1.44x.yaml",
        paper=Results(box=AP(45.0, 67.8, 48.9), mask=AP(40.3, 64.4, 42.8)),
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
        section=TABLE_5,
        detectron2=Results(box=AP(41.0), mask=AP(37.2)),
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_3x.yaml",
        section=TABLE_5,
        blocks="1 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml",
        section=TABLE_5,
        detectron2=Results(box=AP(42.9), mask=AP(38.6)),
    ),
    DetectionEntry(
        config="COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_NL_3x.yaml",
        section=TABLE_5,
        blocks="1 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml",
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_101_FPN_1x.yaml",
        section=TABLE_6,
        paper=Results(keypoint=AP(65.1, 86.8, 70.4)),
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_101_FPN_NL_head_1x.yaml",
        section=TABLE_6,
        blocks="4 in the keypoint head",
        baseline="COCO-Keypoints/keypoint_rcnn_R_101_FPN_1x.yaml",
        paper=Results(keypoint=AP(66.0, 87.1, 71.7)),
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_101_FPN_NL_head_backbone_1x.yaml",
        section=TABLE_6,
        blocks="4 in the keypoint head, 1 in res4",
        baseline="COCO-Keypoints/keypoint_rcnn_R_101_FPN_1x.yaml",
        paper=Results(keypoint=AP(66.5, 87.3, 72.8)),
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_101_FPN_s1x.yaml",
        section=TABLE_6,
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_101_FPN_NL_head_s1x.yaml",
        section=TABLE_6,
        blocks="4 in the keypoint head",
        baseline="COCO-Keypoints/keypoint_rcnn_R_101_FPN_s1x.yaml",
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_101_FPN_NL_head_backbone_s1x.yaml",
        section=TABLE_6,
        blocks="4 in the keypoint head, 1 in res4",
        baseline="COCO-Keypoints/keypoint_rcnn_R_101_FPN_s1x.yaml",
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
        section=TABLE_6,
        detectron2=Results(box=AP(53.6), keypoint=AP(64.0)),
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_1x.yaml",
        section=TABLE_6,
        blocks="4 in the keypoint head",
        baseline="COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_backbone_1x.yaml",
        section=TABLE_6,
        blocks="4 in the keypoint head, 1 in res4",
        baseline="COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_50_FPN_s1x.yaml",
        section=TABLE_6,
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_s1x.yaml",
        section=TABLE_6,
        blocks="4 in the keypoint head",
        baseline="COCO-Keypoints/keypoint_rcnn_R_50_FPN_s1x.yaml",
    ),
    DetectionEntry(
        config="COCO-Keypoints/keypoint_rcnn_R_50_FPN_NL_head_backbone_s1x.yaml",
        section=TABLE_6,
        blocks="4 in the keypoint head, 1 in res4",
        baseline="COCO-Keypoints/keypoint_rcnn_R_50_FPN_s1x.yaml",
    ),
    DetectionEntry(
        config="COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
        section=DETECTION,
        detectron2=Results(box=AP(37.9)),
    ),
    DetectionEntry(
        config="COCO-Detection/faster_rcnn_R_50_FPN_NL_1x.yaml",
        section=DETECTION,
        blocks="1 in res4",
        baseline="COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="COCO-Detection/faster_rcnn_R_101_FPN_1x.yaml",
        section=DETECTION,
    ),
    DetectionEntry(
        config="COCO-Detection/faster_rcnn_R_101_FPN_NL_1x.yaml",
        section=DETECTION,
        blocks="1 in res4",
        baseline="COCO-Detection/faster_rcnn_R_101_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        section=DETECTION,
        detectron2=Results(box=AP(37.4)),
    ),
    DetectionEntry(
        config="COCO-Detection/retinanet_R_50_FPN_NL_1x.yaml",
        section=DETECTION,
        blocks="1 in res4",
        baseline="COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_gaussian_1x.yaml",
        section=FORM,
        blocks="1 in res4, Gaussian",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_dot_product_1x.yaml",
        section=FORM,
        blocks="1 in res4, dot product",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_concatenation_1x.yaml",
        section=FORM,
        blocks="1 in res4, concatenation",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_freeze_stem_1x.yaml",
        section=STAGE,
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_res2_1x.yaml",
        section=STAGE,
        blocks="1 in res2",
        baseline="Ablations/mask_rcnn_R_50_FPN_freeze_stem_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_res3_1x.yaml",
        section=STAGE,
        blocks="1 in res3",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_res5_1x.yaml",
        section=STAGE,
        blocks="1 in res5",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_5_blocks_1x.yaml",
        section=NUMBER,
        blocks="2 in res3, 3 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_10_blocks_1x.yaml",
        section=NUMBER,
        blocks="4 in res3, 6 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_101_FPN_NL_5_blocks_1x.yaml",
        section=NUMBER,
        blocks="2 in res3, 3 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_101_FPN_NL_10_blocks_1x.yaml",
        section=NUMBER,
        blocks="4 in res3, 6 in res4",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_no_subsampling_1x.yaml",
        section=SUBSAMPLING,
        blocks="1 in res4, no subsampling",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_BN_1x.yaml",
        section=NORM,
        blocks="1 in res4, BN",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_SyncBN_1x.yaml",
        section=NORM,
        blocks="1 in res4, SyncBN",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    DetectionEntry(
        config="Ablations/mask_rcnn_R_50_FPN_NL_GN_1x.yaml",
        section=NORM,
        blocks="1 in res4, GN",
        baseline="COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    ),
    *VIDEO_ENTRIES,
)


METRICS = tuple(dict.fromkeys(metric for entry in _PUBLISHED for metric in entry.metrics))
"""What any model of the zoo is measured by."""


def _rows(name: str) -> dict[str, dict[str, str]]:
    """Read a CSV file of this package, by config."""
    text = files("nl_detectron.model_zoo").joinpath(name).read_text(encoding="utf-8")
    return {row["config"]: row for row in csv.DictReader(text.splitlines())}


def _measured(row: dict[str, str]) -> Results:
    results = {}
    for metric in METRICS:
        text = [row[f"{metric.name}_{column}"] for column in metric.columns]
        if text[0]:
            results[metric.name] = tuple(float(value) if value else None for value in text)
    return results


def _table() -> tuple[Entry, ...]:
    measured, complexity = _rows("measured.csv"), _rows("complexity.csv")
    entries = []
    for entry in _PUBLISHED:
        if row := measured.pop(entry.config, None):
            entry = replace(entry, measured=_measured(row))
        if row := complexity.pop(entry.config, None):
            entry = replace(
                entry,
                parameters=int(row["parameters"]),
                multiply_adds=int(row["multiply_adds"]),
            )
        entries.append(entry)
    if measured or complexity:
        raise ValueError(f"figures for configs that the zoo does not have: {measured} {complexity}")
    return tuple(entries)


ENTRIES = _table()
