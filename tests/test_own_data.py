"""The README's recipe for one's own data, run as it stands there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = """
    MODEL.WEIGHTS "" MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64
    MODEL.RESNETS.NORM GN MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS (16,16) MODEL.RPN.POST_NMS_TOPK_TEST 20
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 0
    SOLVER.IMS_PER_BATCH 2 SOLVER.BASE_LR 1e-3 SOLVER.MAX_ITER 2 SOLVER.STEPS ()
"""


def readme_block(name: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(rf"<!-- own data: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert match, f"README.md has no block {name}"
    return match.group(1)


def make_hands(folder: Path) -> None:
    """Two categories, three keypoints, COCO's format; rings have no keypoints."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        images, annotations = [], []
        for number in range(1, 5):
            image = rng.integers(0, 255, (64, 80, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / split / f"{number}.png"), image)
            images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 80})
            for category, keypoints in ((3, [20, 20, 2, 30, 25, 2, 12, 30, 1]), (7, [0] * 9)):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [8, 10, 30, 30],
                        "area": 900,
                        "iscrowd": 0,
                        "keypoints": keypoints,
                        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
                    }
                )
        categories = [{"id": 3, "name": "hand"}, {"id": 7, "name": "ring"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        content["info"] = {}
        (folder / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the README's two files beside the configs, and the data."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("train_hands.py", "hands.yaml"):
        (tmp_path / name).write_text(readme_block(name), encoding="utf-8")
    make_hands(tmp_path / "hands")
    return tmp_path


def test_own_categories_and_keypoints_train_and_are_evaluated(checkout):
    options = [option.strip('"') for option in SMALL.split()]
    done = subprocess.run(
        [sys.executable, "train_hands.py", "--config-file", "hands.yaml", *options],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = (checkout / "output/metrics.json").read_text().splitlines()
    last = json.loads(lines[-1])
    assert {"bbox/AP", "bbox/AP-hand", "bbox/AP-ring", "keypoints/AP"} <= set(last)
    assert "Non-local block after res4.0" in done.stdout
    assert "Non-local block after keypoint_head.conv_fcn_relu2" in done.stdout
