"""Drawing of detections on images."""

import cv2
import numpy as np
import torch.nn.functional as F
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
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
    large = enlarge(image)
    shown = shown_instances(instances, metadata, large.shape[0] // image.shape[0])
    if video is not None:
        return video.draw_instance_predictions(large, shown).get_image()
    return Visualizer(large, metadata).draw_instance_predictions(shown).get_image()


def enlarge(image: np.ndarray) -> np.ndarray:
    """Return a small image (H, W, 3), uint8, enlarged by a whole number; a large one as it is."""
    short, long = sorted(image.shape[:2])
    factor = min(round(SHORT_SIDE / short), LONG_SIDE // long)
    if factor <= 1:
        return image
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def shown_instances(instances: Instances, metadata: Metadata, factor: int) -> Instances:
    """Return the instances on an image `factor` times as large, with the skeletons of persons only.

    Visualizer's own scale would also enlarge the dots of keypoints and the lines.
    """
    height, width = instances.image_size
    shown = Instances((height * factor, width * factor), **instances.get_fields())
    shown.pred_boxes = Boxes(instances.pred_boxes.tensor * factor)
    if factor > 1 and shown.has("pred_masks"):
        soft = shown.pred_masks[:, None].float()
        shown.pred_masks = F.interpolate(soft, scale_factor=factor, mode="bilinear")[:, 0] > 0.5
    if shown.has("pred_keypoints"):
        keypoints = shown.pred_keypoints * shown.pred_keypoints.new_tensor([factor, factor, 1])
        keypoints[~is_person(instances, metadata), :, 2] = 0  # points with score 0 are not drawn
        shown.pred_keypoints = keypoints
    return shown
