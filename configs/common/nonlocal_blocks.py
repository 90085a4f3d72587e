"""The paper's blocks for a LazyConfig model, as in the YAML configs of the same names.

``COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_NL_1x.yaml`` and
``COCO-Keypoints/keypoint_rcnn_R_101_FPN_NL_head_1x.yaml`` say what is known of each choice and what
is inferred.
"""

from detectron2.config import LazyCall as L

from nl_detectron.config import NonLocalOptions
from nl_detectron.modeling import NonLocalKRCNNConvDeconvUpsampleHead, add_backbone_blocks


def add_backbone_block(model):
    """Put one block right before the last residual block of res4."""
    add_backbone_blocks(model, options=NonLocalOptions(norm=""))


def add_keypoint_head_blocks(model):
    """Put a block after every two convolutions of the keypoint head."""
    head = model.roi_heads.keypoint_head
    head._target_ = NonLocalKRCNNConvDeconvUpsampleHead
    head.every_convs = 2
    head.options = L(NonLocalOptions)(norm="")
