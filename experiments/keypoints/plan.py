"""Keypoint heads that are compared."""

from ..plan import ITERATIONS, Plan
from .task import FAR, NEAR

_ARMS: dict[str, tuple[str, ...]] = {
    "none": (),
    "head": ("MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS", "2"),
    # At least the blocks' multiply-adds.
    "wider": ("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", str([35] * 8)),
}

PLAN = Plan(
    experiment="keypoints",
    config="matching_keypoints.yaml",
    arms={
        **_ARMS,
        **{f"{arm}_longer": (*opts, ITERATIONS, "1200") for arm, opts in _ARMS.items()},
    },
    questions=(
        ("match", FAR, ("none_longer", "head_longer", "wider_longer"), range(6, 11)),
        ("match", NEAR, ("none", "head"), range(1, 6)),
    ),
)
