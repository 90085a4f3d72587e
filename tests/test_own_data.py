"""The recipe for custom data, docs/own_data.md, run as it stands there."""

import json
from pathlib import Path

import pytest
import tiny_run
from documentation import ROOT, commands, page_file, run_steps, words

from nl_detectron.config import load_config

PAGE = ROOT / "docs/own_data.md"
SMALL = words("""
    MODEL.WEIGHTS "" MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64
    MODEL.RESNETS.NORM GN MODEL.FPN.OUT_CHANNELS 16 MODEL.ROI_BOX_HEAD.FC_DIM 16
    MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS "(16,16)" MODEL.RPN.POST_NMS_TOPK_TEST 20
    INPUT.MIN_SIZE_TRAIN "(64,)" INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 0
    SOLVER.IMS_PER_BATCH 2 SOLVER.BASE_LR 1e-3 SOLVER.MAX_ITER 2 SOLVER.STEPS "()"
""")


def make_hands(folder: Path) -> None:
    """Two categories, three keypoints, COCO's format; rings have no keypoints."""
    for split in ("train", "val"):
        made = folder / "made" / split
        tiny_run.write_dataset(made, count=4)
        content = json.loads((made / "tiny.json").read_text())
        for annotation in content["annotations"]:
            is_hand = annotation["category_id"] == 1
            annotation["category_id"] = 3 if is_hand else 7
            annotation["keypoints"] = annotation["keypoints"][:9]
            annotation["num_keypoints"] = 3 * is_hand
        content["categories"] = [{"id": 3, "name": "hand"}, {"id": 7, "name": "ring"}]
        (folder / f"{split}.json").write_text(json.dumps(content))
        (made / "images").rename(folder / split)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files and the data."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("hands.yaml", "boxes.yaml", "train_boxes.py"):
        (folder / name).write_text(page_file(name), encoding="utf-8")
    make_hands(folder / "hands")
    return folder


def test_page_commands_train_and_evaluate(checkout):
    """The commands of the page but that with a schedule of its own, in order."""
    steps = []
    for program, *line in map(words, commands(PAGE)):
        if "SOLVER.MAX_ITER" in line:
            continue
        step = line if program == "python" else [program, *line]
        if "hands.yaml" in line and "check" not in line:
            # Boxes alone go into a folder of their own.
            folder = "output/boxes" if program == "python" else "output"
            weights = line[-2:] if "MODEL.WEIGHTS" in line else []
            step = [*step, *SMALL, "OUTPUT_DIR", folder, *weights]
        steps.append(step)
    names = ["check", "check", "train", "train", "demo", "--config-file"]
    assert [step[:2][-1] for step in steps] == names
    done = run_steps(checkout, steps)
    found = tiny_run.metrics(checkout / "output")[-1]
    assert {"bbox/AP", "bbox/AP-hand", "bbox/AP-ring", "keypoints/AP"} <= set(found)
    assert "Non-local block after res4.0" in done.stdout
    assert "Non-local block after keypoint_head.conv_fcn_relu2" in done.stdout
    assert len(list((checkout / "drawn").iterdir())) == 4
    boxes = tiny_run.metrics(checkout / "output/boxes")[-1]  # by another evaluator and mapper
    assert {"bbox/AP-hand", "bbox/AP-ring"} <= set(boxes)
    assert not any(key.startswith("keypoints/") for key in boxes)
    assert "Augmentations used in training: []" in done.stdout


def test_boxes_config_is_valid(checkout):
    cfg = load_config(checkout / "boxes.yaml")
    assert not cfg.MODEL.MASK_ON
    assert {entry["name"] for entry in cfg.DATASETS.REGISTER} == {"hands_train", "hands_val"}
    assert any(cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS)
