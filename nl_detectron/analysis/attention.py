"""Attention weights of chosen queries, in the coordinates of an image or of a clip's frames.

    from nl_detectron.analysis.attention import compute_attention
    from nl_detectron.engine.predictor import Predictor
    from nl_detectron.visualization import draw_sheet
    predict = Predictor("run/config.yaml", weights="run/model_final.pth")
    draw_sheet(compute_attention(predict, image, points=[(120.5, 80.5)])).savefig("attention.png")

and for video, as in Figure 3 of the paper,

    clip = read_clip("video.mp4", frames=8, stride=8, short_side=256)
    seen = compute_clip_attention(model, clip)
    draw_strip(seen, seen.attend(clip.query(40, 120, 80))).savefig("attention.png")

The model runs once. For a block with P positions in x and M in x̂, only the rows of the Q queries
are computed: (Q, M), never (P, M).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.modeling import ResNet
from detectron2.structures import Instances
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.predictor import Predictor, network_input
from ..layers import NonLocalBlock
from ..layers.nonlocal_ops import SOFTMAX_FORMS
from ..modeling import VideoClassifier
from ..modeling.attention_rows import AttentionRows
from ..modeling.backbone.video_resnet import VideoResNet
from ..utils.errors import UserError, nearest
from .clip import Clip, Query
from .grid import FloatArray, Grid


@dataclass(frozen=True, kw_only=True)
class Attention:
    """The weights of one query in one block.

    Args:
        block: the block's name in the model.
        weights: ``f(x_i, x_j) / C(x)``, (time steps, M_y, M_x), of the windows of `grid`; 0 for
            those that the query does not see. An image has one time step.
        sees: the windows that the query sees, bool of the same shape.
        signed: True for forms without softmax, whose weights are no shares and may be negative.
        even: an even share, 1 / M.
        padding: share of the absolute weight that lies in the padding of the image.
    """

    block: str
    query: Query
    grid: Grid
    weights: FloatArray
    sees: NDArray[np.bool_]
    signed: bool
    even: float
    padding: float = 0.0

    @property
    def peak(self) -> float:
        """Return the largest absolute weight, the end of the color scale."""
        return float(np.abs(self.weights).max())

    def strongest(self, count: int) -> list[tuple[int, float, float, float]]:
        """Return the `count` largest absolute weights above an even share, strongest first.

        Each is (time step, x, y, weight); x and y are the center of its window.
        """
        sizes = np.abs(self.weights).ravel()
        order = np.argsort(-sizes, kind="stable")[:count]
        above_even = sizes * (1 - self.padding) > self.even * sizes.sum()
        largest = np.unravel_index(order[above_even[order]], self.weights.shape)
        steps, rows, columns = largest
        found = (steps, self.grid.x.centers()[columns], self.grid.y.centers()[rows])
        return list(zip(*(v.tolist() for v in (*found, self.weights[largest])), strict=True))


@dataclass(frozen=True, kw_only=True)
class BlockInput:
    """A block and its input in one run of the model.

    Args:
        features: (C, *spatial); an image's have no axis of time.
        region: name of the region of interest that a block in a head sees.
        queries: default queries.
    """

    name: str
    block: NonLocalBlock
    features: Tensor
    grid: Grid
    region: str = ""
    queries: Sequence[Query] = ()

    def attend(self, queries: Sequence[Query]) -> list[Attention]:
        """Compute the attention of each query."""
        positions = [self.grid.position(query.frame, query.x, query.y) for query in queries]
        rows, seen = attention_weights(self.block, self.features, positions)
        # An image's maps get an axis of time.
        shape = (len(queries), self.grid.time.length, *rows.shape[-2:])
        maps = rows.double().cpu().numpy().reshape(shape)
        every_sees = seen.cpu().numpy().reshape(shape)
        axes = (self.grid.time, self.grid.y, self.grid.x)
        drawn = tuple(slice(len(axis.windows())) for axis in axes)
        attentions = []
        for query, weights, sees in zip(queries, maps, every_sees, strict=True):
            total = np.abs(weights).sum()
            attentions.append(
                Attention(
                    block=self.name,
                    query=query,
                    grid=self.grid,
                    weights=weights[drawn],
                    sees=sees[drawn],
                    signed=self.block.pairwise not in SOFTMAX_FORMS,
                    even=1 / float(sees.sum()),
                    padding=float(1 - np.abs(weights[drawn]).sum() / total) if total else 0.0,
                )
            )
        return attentions


@dataclass(frozen=True, kw_only=True)
class ImageAttention:
    """An image, its detections, and the inputs of its blocks.

    Args:
        image: (H, W, 3), RGB, uint8.
        instances: the detections, in the image's coordinates.
        class_names: names of ``instances.pred_classes``; a class without one has its number.
        blocks: inputs in the model's order; a block in the keypoint head has one per person.
    """

    image: np.ndarray
    instances: Instances
    class_names: Sequence[str]
    blocks: list[BlockInput]

    @cached_property
    def attentions(self) -> list[Attention]:
        """Return the attention of each block's queries, by block, then by query."""
        return [found for block in self.blocks for found in block.attend(block.queries)]

    def class_name(self, index: int) -> str:
        """Return the class of a detection."""
        return _class_name(self.class_names, self.instances.pred_classes[index])

    def describe(self, index: int) -> str:
        """Return a detection's number, counted from 1, and its class."""
        return f"{index + 1} {self.class_name(index)}"


@dataclass(frozen=True, kw_only=True)
class ClipAttention:
    """A clip, its scores, and the inputs of its blocks.

    Args:
        scores: (classes,), the probabilities.
        class_names: names of the classes; a class without one has its number.
        evidence: place with the most evidence for the class of highest score.
        blocks: inputs in the model's order.
    """

    clip: Clip
    scores: np.ndarray
    class_names: Sequence[str]
    evidence: Query
    blocks: list[BlockInput]

    def attend(self, query: Query) -> list[Attention]:
        """Compute the attention of a point in each block."""
        return [attention for block in self.blocks for attention in block.attend([query])]

    def best(self, count: int) -> list[tuple[str, float]]:
        """Return the classes of highest score and their scores."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [(_class_name(self.class_names, k), float(self.scores[k])) for k in order]


def find_blocks(model: nn.Module, names: Sequence[str] = ()) -> dict[str, NonLocalBlock]:
    """Return the non-local blocks called `names`, by default all, in the model's order.

    Raises:
        UserError: the model has no block, or none of such a name.
    """
    found = {n: block for n, block in model.named_modules() if isinstance(block, NonLocalBlock)}
    if not found:
        raise UserError(
            "expected a model with non-local blocks, got none; set "
            "MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS or MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS"
        )
    for name in names:
        if name not in found:
            raise UserError(
                f"the model has no block '{name}'.{nearest(name, list(found))} "
                f"It has {', '.join(found)}"
            )
    return {name: block for name, block in found.items() if not names or name in names}


@contextmanager
def record_inputs(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Fill a dict with the last input of each module that runs, by its name."""
    inputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name, module in modules.items():

            def keep(_: nn.Module, arguments: tuple, name: str = name) -> None:
                inputs[name] = arguments[0].detach()

            hooks.enter_context(module.register_forward_pre_hook(keep))
        yield inputs


def attention_weights(
    block: NonLocalBlock, x: Tensor, positions: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Compute rows of ``block.attention_map`` over all of x̂, without the other rows.

    Args:
        x: (C, *spatial), the block's input.
        positions: indices of the Q rows, the last axis fastest.

    Returns:
        Weights (Q, *spatial of x̂), 0 for positions that the query does not see, and the
        positions that it sees.
    """
    rows = AttentionRows(block, x)
    weights, keys = rows.at(positions)
    found = weights.new_zeros(len(positions), rows.keys.numel()).scatter(1, keys, weights)
    sees = torch.zeros_like(found, dtype=torch.bool).scatter(1, keys, True)
    return found.unflatten(1, rows.keys_shape), sees.unflatten(1, rows.keys_shape)


def compute_attention(
    predictor: Predictor,
    image: np.ndarray,
    *,
    points: Sequence[tuple[float, float]] = (),
    blocks: Sequence[str] = (),
    max_detections: int | None = 5,
) -> ImageAttention:
    """Run a detector on an image and compute the attention of its blocks.

    Args:
        image: (H, W, 3), BGR, uint8.
        points: queries, (x, y) in the image's continuous coordinates; a block of the keypoint
            head takes those inside each detected box. Default: the center of each detection, or
            of the image without detections; in the keypoint head each keypoint.
        blocks: names in ``named_modules``; default: all.
        max_detections: number of detections to use, by score; None for all.

    Raises:
        UserError: for a block that the model does not have or a point outside the image.
    """
    model, metadata = predictor.model, predictor.metadata
    chosen = find_blocks(model, blocks)
    height, width = image.shape[:2]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"the point ({x:g}, {y:g}) is outside the image of {width} x {height} pixels"
            )
    head = getattr(getattr(model, "roi_heads", None), "keypoint_head", None)
    strides = {
        name: _strides(*_stage(model, name))
        for name in chosen
        if not name.startswith("roi_heads.keypoint_head.")
    }
    network_size = network_input(predictor.cfg, image)["image"].shape[1:]
    with ExitStack() as hooks:
        inputs = hooks.enter_context(record_inputs(chosen))
        if head is not None:
            hooks.enter_context(head.register_forward_pre_hook(_number_regions))
        instances = predictor(image)
    seen = ImageAttention(
        image=np.ascontiguousarray(image[:, :, ::-1]),
        instances=instances,
        class_names=metadata.get("thing_classes", []),
        blocks=[],
    )
    given = [Query(x=x, y=y, label=f"({int(x)}, {int(y)})") for x, y in points]
    top = instances.scores.argsort(descending=True)[:max_detections].tolist()
    people = is_person(instances, metadata)
    joints = metadata.get("keypoint_names", [])
    for name, block in chosen.items():
        if name in strides:
            features = inputs[name][0]
            grid = Grid.of_frames(
                (1, *features.shape[1:]),
                strides=strides[name],
                subsample=block.subsample,
                network_size=(1, *network_size),
                size=(1, height, width),
            )
            center = Query(x=width / 2, y=height / 2, label="center of the image")
            queries = given or _centers(seen, top) or [center]
            seen.blocks.append(
                BlockInput(name=name, block=block, features=features, grid=grid, queries=queries)
            )
            continue
        for index in (i for i in top if people[i]):
            region, box = seen.describe(index), instances.pred_boxes.tensor[index].tolist()
            features = inputs[name][int(instances.region[index])]
            grid = Grid.of_region(features.shape[1:], box=box, subsample=block.subsample)
            inside = [
                replace(query, label=f"{query.label} in {region}")
                for query in given
                if grid.contains(query.x, query.y)
            ]
            seen.blocks.append(
                BlockInput(
                    name=name,
                    block=block,
                    features=features,
                    grid=grid,
                    region=region,
                    queries=inside if given else _keypoints(seen, index, joints),
                )
            )
    return seen


@torch.no_grad()
def compute_clip_attention(
    model: nn.Module,
    clip: Clip,
    *,
    blocks: Sequence[str] = (),
    class_names: Sequence[str] = (),
) -> ClipAttention:
    """Run a `VideoClassifier`, in evaluation mode, on a clip and keep its blocks' inputs.

    Args:
        blocks: names in ``named_modules``; default: all.

    Raises:
        UserError: for a block that the model does not have, or a clip too small for the network.
    """
    if not isinstance(model, VideoClassifier):
        raise UserError(f"expected a VideoClassifier, got {type(model).__name__}")
    chosen, resnet = find_blocks(model, blocks), model.backbone
    outputs: dict[str, Tensor] = {}
    keep = resnet.register_forward_hook(lambda _, __, output: outputs.update(output))
    with keep, record_inputs(chosen) as inputs:
        clips = clip.pixels.unsqueeze(0).to(model.device)
        (result,) = model([{"clips": clips, "file_name": str(clip.file)}])
    sizes = {
        "network_size": (len(clip.frames), *clip.pixels.shape[2:]),
        "size": (len(clip.frames), *clip.size),
    }
    seen = []
    for name, block in chosen.items():
        features = inputs[name][0]
        grid = Grid.of_frames(
            features.shape[1:],
            strides=_strides(*_stage(model, name)),
            subsample=1 if block.axes == "time" else block.subsample,
            **sizes,
        )
        seen.append(BlockInput(name=name, block=block, features=features, grid=grid))
    scores = result["scores"].float().cpu().numpy()
    best = int(scores.argmax())
    evidence = class_evidence(model, outputs[model.feature][0], best)
    strides = _strides(resnet, model.feature)
    grid = Grid.of_frames(evidence.shape, strides=strides, subsample=1, **sizes)
    step, row, column = np.unravel_index(int(evidence.argmax()), evidence.shape)
    place = clip.point(
        int(grid.time.centers()[step]),
        float(grid.x.centers()[column]),
        float(grid.y.centers()[row]),
        label=_class_name(class_names, best),
    )
    return ClipAttention(
        clip=clip, scores=scores, class_names=class_names, evidence=place, blocks=seen
    )


def class_evidence(model: VideoClassifier, feature: Tensor, number: int) -> np.ndarray:
    """Compute the evidence of each place for a class: weights times the feature (C, T, H, W).

    With a softmax, evidence for all classes counts for none of them, so the mean is subtracted.
    """
    weights = model.classifier.weight.detach()
    direction = weights[number] - (0 if model.multi_label else weights.mean(0))
    return torch.einsum("c,cthw->thw", direction, feature).double().cpu().numpy()


def is_person(instances: Instances, metadata: Metadata) -> Tensor:
    """Select the instances (R,) of persons; the keypoint head predicts for other classes too."""
    names = metadata.get("thing_classes", [])
    if len(names) < 2 or "person" not in names:
        return torch.ones(len(instances), dtype=torch.bool)
    return instances.pred_classes == names.index("person")


def _class_name(names: Sequence[str], number: Any) -> str:
    return names[int(number)] if int(number) < len(names) else f"class {int(number)}"


def _number_regions(_: nn.Module, arguments: tuple) -> None:
    """Number the head's instances, as the detector drops those with empty boxes."""
    for instances in arguments[1]:
        instances.region = torch.arange(len(instances), device=instances.scores.device)


def _stage(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the ResNet of a block and the name of its stage there."""
    path = name.split(".")
    resnet = model.get_submodule(".".join(path[:-2]))
    if not isinstance(resnet, ResNet | VideoResNet):
        raise UserError(
            f"cannot place block '{name}': it is in neither a ResNet's stages nor the keypoint head"
        )
    return resnet, path[-2]


def _strides(resnet: Any, stage: str) -> tuple[int, int, int]:
    """Return the strides of a stage's output in time, height and width."""
    if isinstance(resnet, VideoResNet):
        return resnet.time_strides[stage], resnet.strides[stage], resnet.strides[stage]
    stride = resnet._out_feature_strides[stage]
    return 1, stride, stride


def _centers(seen: ImageAttention, indices: Sequence[int]) -> list[Query]:
    centers = seen.instances.pred_boxes.get_centers().tolist()
    return [Query(x=centers[i][0], y=centers[i][1], label=seen.describe(i)) for i in indices]


def _keypoints(seen: ImageAttention, index: int, names: Sequence[str]) -> list[Query]:
    return [
        Query(
            x=x,
            y=y,
            label=f"{seen.describe(index)}: {names[k].replace('_', ' ') if names else k + 1}",
        )
        for k, (x, y, _) in enumerate(seen.instances.pred_keypoints[index].tolist())
    ]
