from .detectron2_zoo import load

# 90,000 iterations of 16 images, drops at 60,000 and 80,000: Base-RCNN-FPN.yaml says why.
lr_multiplier_1x = load("coco_schedule.py", "lr_multiplier_1x")
