"""Video classifier: backbone, global average pooling, dropout and a linear layer."""

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from torch import Tensor, nn
from torch.nn import functional as F

from ...utils.errors import ConfigError, UserError
from ..backbone.video_resnet import VideoResNet


@META_ARCH_REGISTRY.register()
class VideoClassifier(nn.Module):
    """Classify videos by clips of them (sections 4 and 5).

    It takes a list of dicts, one for each video, with ``clips``, uint8 (V, 3, T, H, W) in RGB: V
    views of the video, on any device. In training each view has the video's ``labels``, a list of
    class numbers, and the result is a dict with the loss. Otherwise it is a list of dicts with
    ``view_scores`` (V, classes), the probabilities of every view, and ``scores`` (classes,), their
    mean or maximum over the views.

    In inference, frames larger than the training crop are classified fully convolutionally, as in
    the official code: the map is pooled over every window of the size that a crop has, and the
    probabilities are averaged over the windows. Views go to the device a few at a time.

    Args:
        backbone: network whose last feature is classified.
        num_classes: outputs of the linear layer, `classifier`.
        dropout: probability of dropping a feature, before the linear layer.
        multi_label: use a sigmoid and binary cross-entropy for each class, instead of a softmax
            and cross-entropy. A video may then have any number of labels, otherwise it has one.
        pixel_mean, pixel_std: values for red, green and blue, in 0 to 255.
        crop_size: height and width of the training crop in pixels; None to pool the whole map.
        view_pooling: "mean" or "max".

    Attributes:
        views_at_once: number of views in one forward pass at inference, 4 at first.

    Raises:
        UserError: in `forward`, for invalid clips or labels; the message names the file.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    @configurable
    def __init__(
        self,
        *,
        backbone: VideoResNet,
        num_classes: int,
        dropout: float,
        multi_label: bool,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        crop_size: tuple[int, int] | None = None,
        view_pooling: str = "mean",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.feature, shape = list(backbone.output_shape().items())[-1]
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.window: tuple[int, int] | None = None
        if crop_size is not None:
            _, height, width = backbone.output_size((1, *crop_size))[self.feature]
            self.window = max(height, 1), max(width, 1)
        self.view_pooling = view_pooling
        self.views_at_once = 4
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(shape.channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        backbone = build_backbone(cfg)
        if not isinstance(backbone, VideoResNet):
            raise ConfigError(
                f"MODEL.BACKBONE.NAME is '{cfg.MODEL.BACKBONE.NAME}', an image backbone; "
                "allowed with VideoClassifier: build_nonlocal_video_resnet_backbone"
            )
        crop, head = cfg.INPUT.CROP, cfg.MODEL.VIDEO_CLASSIFIER
        return {
            "backbone": backbone,
            "num_classes": head.NUM_CLASSES,
            "dropout": head.DROPOUT,
            "multi_label": head.MULTI_LABEL,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "crop_size": tuple(crop.SIZE) if crop.ENABLED else None,
            "view_pooling": cfg.TEST.VIEW_POOLING,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        for video in batched_inputs:
            self._check_clips(video)
        if self.training:
            return self._losses(batched_inputs)
        return [self._scores(video["clips"]) for video in batched_inputs]

    def logits(self, clips: Tensor) -> Tensor:
        """Compute (N, classes) in float32 for uint8 clips (N, 3, T, H, W), as in training."""
        return self._linear(self._features(clips).mean((2, 3, 4)))

    def probabilities(self, clips: Tensor) -> Tensor:
        """Compute (N, classes) for uint8 clips (N, 3, T, H, W), as in inference."""
        return self.classify(self._features(clips))

    def classify(self, features: Tensor) -> Tensor:
        """Compute probabilities (N, classes) for the backbone's feature (N, C, T, H, W)."""
        windows = self._pool(features.mean(2))
        logits = self._linear(windows.permute(0, 2, 3, 1))
        scores = logits.sigmoid() if self.multi_label else logits.softmax(-1)
        return scores.mean((1, 2))

    def _features(self, clips: Tensor) -> Tensor:
        return self.backbone((clips - self.pixel_mean) / self.pixel_std)[self.feature]

    def _linear(self, features: Tensor) -> Tensor:
        return self.classifier(self.dropout(features)).float()

    def _pool(self, features: Tensor) -> Tensor:
        """Average every window of a map that is as large as a training crop's map.

        A window is at most as large as the map. Without a crop size, average the whole map, whose
        size an exporter may not know.

        Returns:
            (N, C, places, places).
        """
        if self.window is None:
            return features.mean((2, 3), keepdim=True)
        sides = zip(self.window, features.shape[2:], strict=True)
        return F.avg_pool2d(features, [min(pair) for pair in sides], stride=1)

    def _losses(self, videos: list[dict[str, Any]]) -> dict[str, Tensor]:
        shapes = {tuple(video["clips"].shape[2:]) for video in videos}
        if len(shapes) > 1:
            raise UserError(
                f"clips of one batch must have one size (T, H, W), got "
                f"{', '.join(map(str, sorted(shapes)))}; crop them with "
                f"INPUT.CROP.ENABLED True INPUT.CROP.TYPE absolute INPUT.CROP.SIZE "
                f"[{min(size[1] for size in shapes)},{min(size[2] for size in shapes)}]"
            )
        logits = self.logits(torch.cat([video["clips"].to(self.device) for video in videos]))
        labels = [video["labels"] for video in videos for _ in video["clips"]]
        if self.multi_label:
            targets = torch.zeros(logits.shape)
            for row, classes in zip(targets, labels, strict=True):
                row[classes] = 1
            loss = F.binary_cross_entropy_with_logits(logits, targets.to(self.device))
        else:
            for video in videos:
                if len(video["labels"]) != 1:
                    raise UserError(
                        f"{video.get('file_name', 'a video')} has {len(video['labels'])} labels; "
                        "allowed with MULTI_LABEL False: 1"
                    )
            loss = F.cross_entropy(logits, torch.tensor(labels, device=self.device).squeeze(1))
        return {"loss_cls": loss}

    def _scores(self, clips: Tensor) -> dict[str, Tensor]:
        chunks = clips.split(self.views_at_once)
        view_scores = torch.cat([self.probabilities(chunk.to(self.device)) for chunk in chunks])
        scores = view_scores.mean(0) if self.view_pooling == "mean" else view_scores.amax(0)
        return {"scores": scores, "view_scores": view_scores}

    def _check_clips(self, video: dict[str, Any]) -> None:
        t, h, w = video["clips"].shape[2:]
        if any(min(size) < 1 for size in self.backbone.output_size((t, h, w)).values()):
            raise UserError(
                f"{video.get('file_name', 'a video')} has clips of {t} frames of {h}x{w}, too "
                f"small for the network: {self.feature} would be empty; use more frames or larger "
                "ones"
            )
