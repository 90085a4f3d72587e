"""The keypoint head of section 6: Mask R-CNN's eight convolutions, a block after every two."""

from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_KEYPOINT_HEAD_REGISTRY
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead

from ...config import NonLocalOptions, builds_nonlocal_blocks, check_config
from ..insertion import build_block, insert_after


@ROI_KEYPOINT_HEAD_REGISTRY.register()
@builds_nonlocal_blocks
class NonLocalKRCNNConvDeconvUpsampleHead(KRCNNConvDeconvUpsampleHead):
    """Detectron2's keypoint head with a non-local block after every `every_convs` convolutions.

    Input (R, C, H, W), one map for each of R regions, R = 0 included; output the keypoint logits
    (R, K, 4H, 4W). Its weights have the stock head's names; a block's are called
    ``nonlocal_after_conv_fcn_relu<number>``.

    Args:
        input_shape, num_keypoints, conv_dims: as for the stock head; so are loss_weight and
            loss_normalizer, which `kwargs` may hold.
        every_convs: the distance between blocks in convolutions; 0 for no block. Table 6 has 2.
        options: options of each block.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_keypoints: int,
        conv_dims: list[int],
        every_convs: int,
        options: NonLocalOptions,
        **kwargs: Any,
    ) -> None:
        # The stock head initializes all weights that it finds: blocks must come afterwards.
        super().__init__(input_shape, num_keypoints=num_keypoints, conv_dims=conv_dims, **kwargs)
        places = range(every_convs, len(conv_dims) + 1, every_convs) if every_convs else ()
        blocks = {f"conv_fcn_relu{n}": build_block(conv_dims[n - 1], options) for n in places}
        insert_after(self, blocks, where="keypoint_head")

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        check_config(cfg)
        node = cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL
        return {
            **super().from_config(cfg, input_shape),
            "every_convs": node.EVERY_CONVS,
            "options": NonLocalOptions.from_config(node),
        }
