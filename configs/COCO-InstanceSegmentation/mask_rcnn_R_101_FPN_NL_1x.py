from ..common.nonlocal_blocks import add_backbone_block
from .mask_rcnn_R_101_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

add_backbone_block(model)
