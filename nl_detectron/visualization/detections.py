"""Drawing of detections on images."""

import cv2
import numpy as np
import torch.nn.functional as F
from detectron2.data import Metadata
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import Visualizer

from ..analysis.attention import is_person

SHORT_SIDE = 480  # pixels of the shorter side, below which labels would cover the image
LONG_SIDE = 4096  # limit of an enlarged image: a strip of 3000 x 1 pixels would fill the memory


def draw_instances(
    image: np.ndarray,
    instances: Instances,
    metadata: Metadata,
    video: VideoVisualizer | None = None,
) -> np.ndarray:
    """Draw boxes, masks, skeletons and labels on `image` (H, W, 3), RGB; enlarge a small image.

    With `video`, an object keeps its color from frame to frame.
    """
    short, long = sorted(image.shape[:2])
    factor = max(1, min(round(SHORT_SIDE / short), LONG_SIDE // long))
    size = (image.shape[1] * factor, image.shape[0] * factor)
    large = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC) if factor > 1 else image
    shown = enlarge(without_foreign_keypoints(instances, metadata), factor)
    if video is not None:
        return video.draw_instance_predictions(large, shown).get_image()
    return Visualizer(large, metadata).draw_instance_predictions(shown).get_image()


def without_foreign_keypoints(instances: Instances, metadata: Metadata) -> Instances:
    """Return the instances without skeletons of classes that have no keypoints."""
    if not instances.has("pred_keypoints"):
        return instances
    keypoints = instances.pred_keypoints.clone()
    keypoints[~is_person(instances, metadata), :, 2] = 0  # points with score 0 are not drawn
    shown = Instances(instances.image_size, **instances.get_fields())
    shown.pred_keypoints = keypoints
    return shown


def enlarge(instances: Instances, factor: int) -> Instances:
    """Return the instances of an image that is `factor` times as large.

    Visualizer's own scale would also enlarge the dots of keypoints and the lines.
    """
    if factor == 1:
        return instances
    height, width = instances.image_size
    large = Instances((height * factor, width * factor))
    for name, value in instances.get_fields().items():
        if name == "pred_boxes":
            value = value.clone()
            value.scale(factor, factor)
        elif name == "pred_masks":
            soft = value[:, None].float()
            value = F.interpolate(soft, scale_factor=factor, mode="bilinear")[:, 0] > 0.5
        elif name == "pred_keypoints":
            value = value * value.new_tensor([factor, factor, 1])
        if name != "pred_keypoint_heatmaps":
            large.set(name, value)
    return large
