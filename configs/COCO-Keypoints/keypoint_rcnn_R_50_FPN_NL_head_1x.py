from ..common.nonlocal_blocks import add_keypoint_head_blocks
from .keypoint_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

add_keypoint_head_blocks(model)
