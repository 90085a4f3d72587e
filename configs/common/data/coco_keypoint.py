from ..detectron2_zoo import load

dataloader = load("data/coco_keypoint.py", "dataloader")
