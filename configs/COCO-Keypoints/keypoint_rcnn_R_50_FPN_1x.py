from ..common.detectron2_zoo import load

# Base-RCNN-FPN.yaml says why this schedule, and which stages are frozen.
dataloader, lr_multiplier, model, optimizer, train = load(
    "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py"
)
