"""A dataset, a model and a command line so small that a test can train them in seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES

from nl_detectron.data.datasets.synthetic import generated

ROOT = Path(__file__).resolve().parent.parent
SIZE = 64

# Layer norms and no random choices: all anchors and all proposals are in the loss, nothing is
# flipped, so that losses depend on nothing but the images and the weights.
CONFIG = """
MODEL:
  MASK_ON: {heads}
  KEYPOINT_ON: {heads}
  WEIGHTS: ""
  BACKBONE: {{NAME: build_resnet_fpn_backbone, FREEZE_AT: 0}}
  RESNETS:
    DEPTH: 50
    RES2_OUT_CHANNELS: 16
    STEM_OUT_CHANNELS: 8
    WIDTH_PER_GROUP: 4
    NORM: LN
    OUT_FEATURES: [res2, res3, res4, res5]
  FPN: {{IN_FEATURES: [res2, res3, res4, res5], OUT_CHANNELS: 8}}
  PIXEL_STD: [60.0, 60.0, 60.0]
  ANCHOR_GENERATOR: {{SIZES: [[8], [16], [32], [64], [128]]}}
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    BATCH_SIZE_PER_IMAGE: 5000
    POSITIVE_FRACTION: 1.0
    NMS_THRESH: 1.0
    PRE_NMS_TOPK_TRAIN: 2000
    POST_NMS_TOPK_TRAIN: 2000
    POST_NMS_TOPK_TEST: 16
  ROI_HEADS:
    NAME: StandardROIHeads
    IN_FEATURES: [p2, p3, p4, p5]
    NUM_CLASSES: 2
    BATCH_SIZE_PER_IMAGE: 2000
    POSITIVE_FRACTION: 1.0
    PROPOSAL_APPEND_GT: {heads}
    IOU_THRESHOLDS: [0.2]
    SCORE_THRESH_TEST: 0.0
  ROI_BOX_HEAD: {{NAME: FastRCNNConvFCHead, NUM_FC: 1, FC_DIM: 16}}
  ROI_MASK_HEAD: {{NAME: MaskRCNNConvUpsampleHead, NUM_CONV: 1, CONV_DIM: 8}}
  ROI_KEYPOINT_HEAD: {{CONV_DIMS: [8]}}
DATASETS: {{TRAIN: [tiny], TEST: [tiny]}}
DATALOADER: {{NUM_WORKERS: 0, ASPECT_RATIO_GROUPING: False}}
INPUT: {{MIN_SIZE_TRAIN: [64], MIN_SIZE_TEST: 64, RANDOM_FLIP: none}}
SOLVER: {{IMS_PER_BATCH: 2, BASE_LR: 0.005, MAX_ITER: 3, WARMUP_ITERS: 0, CHECKPOINT_PERIOD: 2}}
TEST: {{DETECTIONS_PER_IMAGE: 5}}
SEED: 7
OUTPUT_DIR: {output}
VERSION: 2
"""

# A user's script for a custom dataset. `__main__` is run again in spawned processes.
SCRIPT = """
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.builtin_meta import _get_builtin_metadata
from nl_detectron.commands.train import run
from nl_detectron.engine import Trainer

people = _get_builtin_metadata("coco_person")
keypoints = {{k: people[k] for k in ("keypoint_names", "keypoint_flip_map")}}
register_coco_instances("tiny", keypoints, {json!r}, {images!r})
trainer = Trainer
if __name__ == "__main__":
    run(trainer)
"""


# After SCRIPT's imports: every iteration is written down, see recording.py.
RECORD = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from recording import RecordingTrainer
trainer = RecordingTrainer
"""

# Random numbers in all their places: the mapper, the regions of RPN and heads, the batches. With
# so few regions the usual rate diverges.
RANDOM = (
    *("SOLVER.BASE_LR", 0.0005),
    *("INPUT.RANDOM_FLIP", "horizontal", "DATALOADER.ASPECT_RATIO_GROUPING", True),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 16, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16),
)


def write_dataset(folder: Path, count: int = 8) -> None:
    """Write images of a bright bar ("person", keypoints along it) and a dark square."""
    random = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        image = random.integers(90, 110, (SIZE, SIZE, 3)).astype(np.uint8)
        name = f"{number:03}.png"
        images.append({"id": number, "file_name": name, "height": SIZE, "width": SIZE})
        for category, (w, h), color in ((1, (14, 30), 230), (2, (18, 18), 10)):
            x, y = (int(random.integers(0, SIZE - side)) for side in (w, h))
            image[y : y + h, x : x + w] = color
            along = np.linspace(1, h - 1, 17)
            triplets = [v for t in along for v in (x + w // 2, y + int(t), 2)]
            person = category == 1
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                    "keypoints": triplets if person else [0] * 51,
                    "num_keypoints": 17 if person else 0,
                }
            )
        cv2.imwrite(str(folder / "images" / name), image)
    categories = [
        {"id": 1, "name": "person", "keypoints": list(COCO_PERSON_KEYPOINT_NAMES), "skeleton": []},
        {"id": 2, "name": "square"},
    ]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "tiny.json").write_text(json.dumps(whole))


def write_small(make: Callable[[Path], Path], cache: Path) -> Path:
    """Write a generated dataset with 3 items of each split, in the folder of the whole one."""
    with mock.patch.object(generated, "tqdm", lambda items, **_: items[:3]):
        return make(cache)


def write_run(folder: Path, *, heads: bool = False) -> None:
    """Write dataset, ``tiny.yaml`` and ``run.py`` into `folder`."""
    write_dataset(folder)
    config = CONFIG.format(heads=heads, output=folder / "output")
    (folder / "tiny.yaml").write_text(config)
    script = SCRIPT.format(json=str(folder / "tiny.json"), images=str(folder / "images"))
    (folder / "run.py").write_text(script)


def write_script(folder: Path, name: str, before_main: str) -> Path:
    """Write `folder`'s ``run.py`` with more code before it starts, and return the new script."""
    start, end = (folder / "run.py").read_text().split("if __name__")
    (folder / name).write_text(start + before_main + "if __name__" + end)
    return folder / name


def whole_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """One thread, no GPU, and this checkout's package."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    fixed = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    return {**os.environ, **fixed, **(extra or {})}


def run(
    script: Path, *arguments: object, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does, with one thread and no GPU."""
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        env=whole_environment(environment),
    )


def metrics(output: Path) -> list[dict[str, float]]:
    """Return the lines of a run's ``metrics.json``."""
    return [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
