"""Predictions for images: from a config and its weights in three lines.

```python
from nl_detectron.engine import Predictor
predict = Predictor("configs/quickstart.yaml", weights="output/quickstart/model_final.pth")
people = predict("people.jpg")
street, beach = predict(["street.jpg", "beach.jpg"])
```
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby, islice
from typing import Any, TypeAlias

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.data import transforms as T
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from PIL.Image import Image
from torch import nn

from ..checkpoint import METADATA, Checkpointer
from ..config import is_video, load_config
from ..data import register_datasets
from ..data.catalog import class_metadata
from ..data.detection_utils import ImageInput, to_array
from ..modeling import build_model
from ..utils.errors import ConfigError, UserError

Classes: TypeAlias = Sequence[str] | str | os.PathLike[str]


class Predictor:
    """A trained model that takes images and returns Detectron2's `Instances`, one per image.

    Args:
        config: a YAML file, or a complete config.
        weights: checkpoint; default: the config's ``MODEL.WEIGHTS``.
        device: ``cuda`` or ``cpu``; default: the config's, or a GPU if available.
        half: run in half precision under autocast: bfloat16, or float16 on GPUs without it.
        confidence_threshold: return only instances with at least this score; default: the config's.
        classes: names of the classes, or a file of them, see `data.catalog.read_class_names`;
            default: those in the checkpoint, or of a registered dataset of the config.
        opts: ``KEY, VALUE, ...`` merged into the config.

    Raises:
        ConfigError: the config is for videos; use `VideoPredictor`.
        UserError: the weights are missing or unreadable.
    """

    def __init__(
        self,
        config: CfgNode | str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        half: bool = False,
        confidence_threshold: float | None = None,
        classes: Classes | None = None,
        opts: Sequence[str] = (),
    ) -> None:
        self.cfg = cfg = complete_config(config, weights=weights, device=device, opts=opts)
        if is_video(cfg):
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE is '{cfg.MODEL.META_ARCHITECTURE}', a model for videos; "
                "use nl_detectron.engine.video_predictor.VideoPredictor"
            )
        if confidence_threshold is not None:
            cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = confidence_threshold
            cfg.MODEL.RETINANET.SCORE_THRESH_TEST = confidence_threshold
        self.model, self.metadata = load_model(cfg, classes)
        self._half = half

    def __call__(self, images: Any, *, batch_size: int = 8) -> Any:
        """Return the instances in an image, or a list for several images.

        They are in the image's own pixels, on the CPU. Arguments and errors are those of `stream`.

        Args:
            images: one image, or several in an iterable, such as a list or an array (N, H, W, 3).
        """
        if is_one(images, dims=3):
            return next(self.stream([images]))
        return list(self.stream(images, batch_size=batch_size))

    def stream(self, images: Iterable[ImageInput], *, batch_size: int = 8) -> Iterator[Instances]:
        """Yield the instances in each image, in order; `batch_size` images are in memory.

        Consecutive images of a batch share a forward pass only if they have the same size after
        resizing, since padding would let one image change another's result.

        Args:
            images: files; arrays (H, W, 3) of uint8 in BGR order, as OpenCV reads them; tensors
                (3, H, W) of uint8 in RGB order, as torchvision reads them; or PIL images.
            batch_size: number of images to read, resize and predict at once; at least 1.

        Raises:
            UserError: a file cannot be read as an image, or has more than 8 bits a channel.
            ValueError: an array or tensor has another shape or type.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        remaining = iter(images)
        while inputs := [network_input(self.cfg, image) for image in islice(remaining, batch_size)]:
            for _, of_one_size in groupby(inputs, key=lambda item: item["image"].shape):
                yield from self._run(list(of_one_size))

    @torch.no_grad()
    def _run(self, batch: list[dict[str, Any]]) -> list[Instances]:
        with precision(self.cfg.MODEL.DEVICE, half=self._half):
            outputs = self.model(batch)
        return [_in_full_precision(output["instances"].to("cpu")) for output in outputs]


def complete_config(
    config: CfgNode | str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    opts: Sequence[str] = (),
) -> CfgNode:
    """Return a copy of `config` that names its weights; arguments as for `Predictor`."""
    opts = [*opts, *(("MODEL.DEVICE", device) if device else ())]
    if isinstance(config, CfgNode):
        cfg = config.clone()
        cfg.defrost()
        cfg.merge_from_list(opts)
    else:
        cfg = load_config(config, opts)
    if weights is not None:
        cfg.MODEL.WEIGHTS = os.fspath(weights)
    register_datasets(cfg)
    if not cfg.MODEL.WEIGHTS:
        raise UserError(
            "MODEL.WEIGHTS must be a checkpoint, such as OUTPUT_DIR/model_final.pth of the "
            "training, got none"
        )
    return cfg


def load_model(cfg: CfgNode, classes: Classes | None = None) -> tuple[nn.Module, Metadata]:
    """Return the model of a config with its weights, in evaluation mode, and its classes."""
    model = build_model(cfg).eval()
    loaded = Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    return model, class_metadata(cfg, loaded.get(METADATA, {}), classes)


def network_input(cfg: CfgNode, source: ImageInput) -> dict[str, Any]:
    """Return the model's input for an image: read, resized, with its original height and width."""
    image = to_array(source, cfg.INPUT.FORMAT)
    height, width = image.shape[:2]
    resizing = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    resized = resizing.get_transform(image).apply_image(image)
    tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1), np.float32))
    return {"image": tensor, "height": height, "width": width}


def is_one(inputs: object, *, dims: int) -> bool:
    """Return True for one input, whose arrays have `dims` axes, and False for several."""
    if isinstance(inputs, np.ndarray | torch.Tensor):
        return inputs.ndim <= dims
    return isinstance(inputs, str | os.PathLike | Image)


def precision(device: str, *, half: bool) -> AbstractContextManager[None]:
    """Return a context for inference: autocast to bfloat16, or float16 on GPUs without it."""
    kind = torch.device(device).type
    has_bfloat16 = kind != "cuda" or torch.cuda.is_bf16_supported()
    dtype = torch.bfloat16 if has_bfloat16 else torch.float16
    return torch.autocast(kind, dtype=dtype) if half else nullcontext()


def _in_full_precision(instances: Instances) -> Instances:
    for name, value in instances.get_fields().items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            instances.set(name, value.float())
    return instances


def to_coco_results(
    instances: Instances, image_id: int | str, metadata: Metadata | None = None
) -> list[dict[str, Any]]:
    """Return predictions in COCO's result format: one dict per instance, ready for JSON.

    Boxes are ``[x, y, width, height]`` in pixels, masks run-length encoded, keypoints a flat list
    of x, y and score. With `metadata`, categories have the ids of the dataset's file. Without them
    they count from 0 as in the model.
    """
    to_contiguous: Mapping[int, int] = (
        metadata.get("thing_dataset_id_to_contiguous_id", {}) if metadata else {}
    )
    to_dataset = {contiguous: own for own, contiguous in to_contiguous.items()}
    instances = instances.to("cpu")
    if instances.has("pred_keypoints"):  # Detectron2 shifts them in place
        instances.pred_keypoints = instances.pred_keypoints.clone()
    results = instances_to_coco_json(instances, image_id)
    for result in results:
        result["category_id"] = to_dataset.get(result["category_id"], result["category_id"])
    return results
