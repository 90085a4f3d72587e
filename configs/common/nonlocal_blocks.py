"""The paper's blocks for a LazyConfig model: twins of base/nonlocal_{backbone,keypoint_head}.yaml.

The YAML files say what is known of each choice and what is inferred.
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
