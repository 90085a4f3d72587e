from ..common.nonlocal_blocks import add_backbone_block
from .keypoint_rcnn_R_50_FPN_NL_head_1x import dataloader, lr_multiplier, model, optimizer, train

add_backbone_block(model)
