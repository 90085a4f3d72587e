from ..detectron2_zoo import load

dataloader = load("data/coco.py", "dataloader")
