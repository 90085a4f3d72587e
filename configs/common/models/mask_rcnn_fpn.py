from ..detectron2_zoo import load

model = load("models/mask_rcnn_fpn.py", "model")
model.backbone.bottom_up.freeze_at = 2  # stem and res2
