"""Predictions for images: from a config and its weights in three lines.

```python
from nl_detectron.inference import Predictor
predict = Predictor("configs/quickstart.yaml", weights="output/quickstart/model_final.pth")
people, street = predict(["people.jpg", "street.jpg"])
```
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from .checkpoint import Checkpointer
from .config import check_config, load_config
from .errors import ConfigError, UserError
from .images import read_image
from .tasks import is_video

Image = np.ndarray | str | os.PathLike[str]


class Predictor:
    """A trained model that takes images and returns Detectron2's `Instances`, one per image.

    Args:
        config: a YAML file, or a config that is complete already.
        weights: checkpoint; default: the config's ``MODEL.WEIGHTS``.
        device: ``cuda`` or ``cpu``; default: the config's, and where that says nothing a GPU if
            there is one.
        half: run in half precision under autocast: bfloat16, or float16 on GPUs without it.
        confidence_threshold: give only instances with at least this score; default: the config's.
        opts: ``KEY, VALUE, ...`` merged into the config; needs a file as `config`.

    Raises:
        ConfigError: the config is of videos, which `video_inference.VideoPredictor` takes.
        UserError: there are no weights, or they cannot be read.
    """

    def __init__(
        self,
        config: CfgNode | str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        half: bool = False,
        confidence_threshold: float | None = None,
        opts: Sequence[str] = (),
    ) -> None:
        self.cfg = cfg = complete_config(config, weights=weights, device=device, opts=opts)
        if is_video(cfg):
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE is '{cfg.MODEL.META_ARCHITECTURE}', a model of videos; "
                "use nl_detectron.video_inference.VideoPredictor"
            )
        if confidence_threshold is not None:
            cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = confidence_threshold
            cfg.MODEL.RETINANET.SCORE_THRESH_TEST = confidence_threshold
        names = cfg.DATASETS.TEST
        self.metadata: Metadata = MetadataCatalog.get(names[0]) if names else Metadata()
        self.model = load_model(cfg)
        self._resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        self._half = half

    def __call__(self, images: Iterable[Image], *, batch_size: int = 8) -> list[Instances]:
        """Return the instances found in each image, in the image's own pixels, on the CPU.

        Arguments and errors are those of `stream`.
        """
        return list(self.stream(images, batch_size=batch_size))

    def stream(self, images: Iterable[Image], *, batch_size: int = 8) -> Iterator[Instances]:
        """Yield the instances found in each image, in order; `batch_size` images are in memory.

        Of these, images that have one size for the network go through it together; others never
        do, since padding would let one image change another's result.

        Args:
            images: files, or arrays (H, W, 3) of uint8 in BGR order as OpenCV reads them.
            batch_size: how many are read, resized and predicted at once; at least 1.

        Raises:
            UserError: a file cannot be read as an image.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; allowed: 1 or more")
        remaining = iter(images)
        while inputs := [self._input(image) for image in islice(remaining, batch_size)]:
            by_size: dict[tuple[int, ...], list[int]] = {}
            for index, item in enumerate(inputs):
                by_size.setdefault(tuple(item["image"].shape), []).append(index)
            found: dict[int, Instances] = {}
            for indices in by_size.values():
                outputs = self._run([inputs[index] for index in indices])
                found.update(zip(indices, outputs, strict=True))
            yield from (found[index] for index in range(len(inputs)))

    def _input(self, source: Image) -> dict[str, Any]:
        wanted = self.cfg.INPUT.FORMAT
        if isinstance(source, np.ndarray):
            if source.ndim != 3 or source.shape[2] != 3:
                raise ValueError(f"an image is (H, W, 3), but this array is {source.shape}")
            image = source[:, :, ::-1] if wanted == "RGB" else source
        else:
            image = read_image(source, format=wanted)
        height, width = image.shape[:2]
        resize = self._resize.get_transform(image)
        if isinstance(resize, T.ResizeTransform):  # its short side may round to nothing
            size = (max(resize.new_h, 1), max(resize.new_w, 1))
            resize = T.ResizeTransform(height, width, *size, resize.interp)
        resized = resize.apply_image(image)
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1), np.float32))
        return {"image": tensor, "height": height, "width": width}

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
    if isinstance(config, CfgNode):
        if opts:
            raise ValueError("opts are for a config file; merge them into the config instead")
        cfg = config.clone()
        cfg.defrost()
    else:
        cfg = load_config(config, [*opts, *(("MODEL.DEVICE", device) if device else ())])
    if device is not None:
        cfg.MODEL.DEVICE = device
    if weights is not None:
        cfg.MODEL.WEIGHTS = os.fspath(weights)
    check_config(cfg)
    if not cfg.MODEL.WEIGHTS:
        raise UserError(
            "MODEL.WEIGHTS is empty, and random weights predict nothing: give a checkpoint, "
            "such as OUTPUT_DIR/model_final.pth of the training"
        )
    return cfg


def load_model(cfg: CfgNode) -> nn.Module:
    """Return the model of a config with its weights, in evaluation mode."""
    model = build_model(cfg).eval()
    Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def precision(device: str, *, half: bool) -> contextlib.AbstractContextManager:
    """Return a context for inference: autocast to bfloat16, or float16 on GPUs without it."""
    kind = torch.device(device).type
    if not half:
        return contextlib.nullcontext()
    has_bfloat16 = kind != "cuda" or torch.cuda.is_bf16_supported()
    return torch.autocast(kind, dtype=torch.bfloat16 if has_bfloat16 else torch.float16)


def _in_full_precision(instances: Instances) -> Instances:
    for name, value in instances.get_fields().items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            instances.set(name, value.float())
    return instances


def to_coco_results(
    instances: Instances, image_id: int, metadata: Metadata | None = None
) -> list[dict[str, Any]]:
    """Return predictions in COCO's result format: one dict per instance, ready for JSON.

    Boxes are ``[x, y, width, height]`` in pixels, masks run-length encoded, keypoints a flat list
    of x, y and score. With `metadata`, categories have the numbers of the data set's own file;
    without, or where it has none, they count from 0 as in the model.
    """
    to_contiguous: Mapping[int, int] = (
        metadata.get("thing_dataset_id_to_contiguous_id", {}) if metadata else {}
    )
    to_dataset = {contiguous: own for own, contiguous in to_contiguous.items()}
    results = instances_to_coco_json(instances.to("cpu"), image_id)
    for result in results:
        result["category_id"] = to_dataset.get(result["category_id"], result["category_id"])
    return results
