"""Where a position attends: rows of the blocks' maps, brought into the image's coordinates.

    from nl_detectron.engine.predictor import Predictor
    from nl_detectron.visualization import draw_sheet, look
    predict = Predictor("run/config.yaml", weights="run/model_final.pth")
    draw_sheet(look(predict, image, points=[(120.5, 80.5)])).savefig("attention.png")

Of a block with P positions in x and M in x̂, only the rows that are looked at are computed: (Q, M)
for Q queries, never (P, M).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from detectron2.modeling import ResNet
from detectron2.structures import Instances
from numpy.typing import NDArray
from torch import Tensor, nn

from ..engine.predictor import Predictor
from ..layers import NonLocalBlock, pairwise_weights
from ..layers.nonlocal_ops import SOFTMAX_FORMS
from ..utils.errors import UserError, nearest
from .detections import is_person
from .geometry import FloatArray, Grid


@dataclass(frozen=True, kw_only=True)
class Query:
    """A point that is looked from.

    Args:
        x, y: in the image's continuous coordinates; the centre of pixel (3, 5) is (3.5, 5.5).
        label: what is there, for people.
    """

    x: float
    y: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of one block's map.

    Args:
        block: the block's name in the model.
        weights: ``f(x_i, x_j) / C(x)``, one for each window that is drawn.
        signed: the form has no softmax: weights are no shares, and may be negative.
        even: an even share, 1 / M.
        padding: share of the row's absolute weight that lies in the padding beside the image.
    """

    block: str
    weights: FloatArray
    signed: bool
    even: float
    padding: float = 0.0

    @property
    def peak(self) -> float:
        """The largest absolute weight, where the colour scale ends."""
        return float(np.abs(self.weights).max())

    def largest(self, count: int) -> tuple[NDArray[np.intp], ...]:
        """The indices of the `count` largest absolute weights along each axis, strongest first.

        Only of those above an even share of the row's absolute weight.
        """
        sizes = np.abs(self.weights).ravel()
        order = np.argsort(-sizes, kind="stable")[:count]
        above_even = sizes * (1 - self.padding) > self.even * sizes.sum()
        return np.unravel_index(order[above_even[order]], self.weights.shape)


@dataclass(frozen=True, kw_only=True)
class Attention(Row):
    """Where `query` attends in an image; `weights` (M_y, M_x) are of the windows of `grid`."""

    query: Query
    grid: Grid

    def strongest(self, count: int) -> list[tuple[float, float, float]]:
        """The `count` windows of largest absolute weight as (x, y, weight), strongest first.

        x and y are the centre of the window's part inside the image. Windows with at most an even
        share are not among them.
        """
        rows, columns = self.largest(count)
        xs, ys = self.grid.x.centres()[columns], self.grid.y.centres()[rows]
        values = self.weights[rows, columns]
        return [(float(x), float(y), float(w)) for x, y, w in zip(xs, ys, values, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Look:
    """An image, what was found in it, and where the blocks looked.

    Args:
        image: (H, W, 3), RGB, uint8.
        instances: the detections, in the image's coordinates.
        class_names: of ``instances.pred_classes``; a class without one is called by its number.
        attentions: by block in the model's order, then by query.
    """

    image: np.ndarray
    instances: Instances
    class_names: Sequence[str]
    attentions: list[Attention]

    def describe(self, index: int) -> str:
        """A detection for people: its number, counted from 1, and its class."""
        number = int(self.instances.pred_classes[index])
        known = number < len(self.class_names)
        return f"{index + 1} {self.class_names[number] if known else f'class {number}'}"


def find_blocks(model: nn.Module, names: Sequence[str] = ()) -> dict[str, NonLocalBlock]:
    """The non-local blocks of `model` called `names`, or all of them, in the model's order.

    Raises:
        UserError: the model has no block, or none of such a name.
    """
    found = {n: block for n, block in model.named_modules() if isinstance(block, NonLocalBlock)}
    if not found:
        raise UserError(
            "the model has no non-local block to look at: MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS "
            "and MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS put them in"
        )
    for name in names:
        if name not in found:
            raise UserError(
                f"the model has no block '{name}'.{nearest(name, list(found))} "
                f"It has {', '.join(found)}"
            )
    return {name: block for name, block in found.items() if not names or name in names}


def attention_rows(block: NonLocalBlock, x: Tensor, positions: Sequence[int]) -> Tensor:
    """Some rows of ``block.attention_map``, without the others.

    Args:
        x: (C, *spatial), the block's input.
        positions: the Q rows, each a number of a position, counted with the last axis fastest.

    Returns:
        (Q, *spatial), the weights over the positions of x̂ that these positions see.
    """
    x = x.to(block.g.weight.dtype).unsqueeze(0)
    # theta is a convolution of kernel 1: it may as well run on the chosen positions alone.
    chosen = x.flatten(2)[:, :, list(positions)]
    chosen = chosen.reshape(*chosen.shape, *[1] * (x.dim() - 3))
    if sees_all(block):
        return _rows(block, chosen, x)
    parts = (x[(..., *seen_part(block, x.shape[2:], position))] for position in positions)
    return torch.cat([_rows(block, chosen[:, :, [i]], part) for i, part in enumerate(parts)])


def sees_all(block: NonLocalBlock) -> bool:
    """Whether every position of the block sees all others."""
    return block.axes == "spacetime" and not block.frames


def seen_part(
    block: NonLocalBlock, shape: Sequence[int], position: int
) -> tuple[slice, slice, slice]:
    """What a position of a block over space and time sees, along each axis of x.

    Args:
        shape: time steps, height and width of x.
    """
    time, *place = (int(i) for i in np.unravel_index(position, shape))
    group = 1 if block.axes == "space" else block.frames or shape[0]
    first = time // group * group
    rows, columns = (
        slice(i, i + 1) if block.axes == "time" else slice(0, side)
        for i, side in zip(place, shape[1:], strict=True)
    )
    return slice(first, first + group), rows, columns


def embeddings(block: NonLocalBlock, x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor]:
    """theta (N, P, D) and phi (N, M, D) of all positions, whatever sees whatever.

    The Gaussian form compares x itself.
    """
    if block.pairwise != "gaussian":
        x, x_hat = block.theta(x), block.phi(x_hat)
    return x.flatten(2).transpose(1, 2), x_hat.flatten(2).transpose(1, 2)


def _rows(block: NonLocalBlock, chosen: Tensor, part: Tensor) -> Tensor:
    """The rows of positions whose features are `chosen` (1, C, Q, ...) and that see `part` of x."""
    x_hat = block._pool(part)
    theta, phi = embeddings(block, chosen, x_hat)
    w_f = block.w_f if block.pairwise == "concatenation" else None
    rows = pairwise_weights(theta, phi, pairwise=block.pairwise, scale=block.scale, w_f=w_f)
    return rows[0].unflatten(1, x_hat.shape[2:])


@torch.no_grad()
def look(
    predictor: Predictor,
    image: np.ndarray,
    *,
    points: Sequence[tuple[float, float]] = (),
    blocks: Sequence[str] = (),
    max_detections: int = 5,
) -> Look:
    """Run the model on an image and look where its blocks attend.

    Args:
        image: (H, W, 3), BGR, uint8.
        points: where to look from, (x, y) in the image's continuous coordinates; a block of the
            keypoint head is looked at for each detected box that a point lies in. Without
            points: from the centre of each detection and, in the keypoint head, from each of its
            keypoints.
        blocks: names as ``named_modules`` has them; default: all.
        max_detections: look at this many of the detections, those of highest score.

    Raises:
        UserError: for a block that the model does not have or a point outside the image.
    """
    chosen = find_blocks(predictor.model, blocks)
    strides = {name: _stride(predictor.model, name) for name in chosen}
    height, width = image.shape[:2]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(
                f"the point ({x:g}, {y:g}) is outside the image of {width} x {height} pixels"
            )
    with _record(predictor.model, chosen) as record:
        instances = predictor([image])[0]
    seen = Look(
        image=np.ascontiguousarray(image[:, :, ::-1]),
        instances=instances,
        class_names=predictor.metadata.get("thing_classes", []),
        attentions=[],
    )
    given = [Query(x=x, y=y, label=f"({int(x)}, {int(y)})") for x, y in points]
    top = instances.scores.argsort(descending=True)[:max_detections].tolist()
    people = is_person(instances, predictor.metadata)
    for name, block in chosen.items():
        stride = strides[name]
        if stride is not None:
            features = record.inputs[name][0]
            grid = Grid.of_image(
                features.shape[1:],
                stride=stride,
                subsample=block.subsample,
                network_size=record.network_size,
                size=(height, width),
            )
            seen.attentions.extend(
                _attend(name, block, features, grid, given or _centres(seen, top))
            )
            continue
        for index in (i for i in top if people[i]):
            features = record.inputs[name][int(instances.region[index])]
            grid = Grid.of_region(
                features.shape[1:],
                box=instances.pred_boxes.tensor[index].tolist(),
                subsample=block.subsample,
            )
            inside = [
                replace(query, label=f"{query.label} in {seen.describe(index)}")
                for query in given
                if grid.contains(query.x, query.y)
            ]
            joints = predictor.metadata.get("keypoint_names", [])
            queries = inside if given else _keypoints(seen, index, joints)
            seen.attentions.extend(_attend(name, block, features, grid, queries))
    return seen


@dataclass
class _Record:
    """What one image's way through the model leaves behind.

    Args:
        network_size: height and width of the resized image, without padding.
        inputs: of each block, (1, C, H, W), or (R, C, H, W) in the head.
    """

    network_size: tuple[int, int] = (0, 0)
    inputs: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def _record(model: nn.Module, blocks: dict[str, NonLocalBlock]) -> Iterator[_Record]:
    """Fill a record while the model runs; the head's instances get their number as `region`.

    That field stays with an instance when the detector drops others whose boxes are empty.
    """
    record = _Record()

    def see_image(_: nn.Module, arguments: tuple) -> None:
        height, width = arguments[0][0]["image"].shape[1:]
        record.network_size = (height, width)

    def see_instances(_: nn.Module, arguments: tuple) -> None:
        for instances in arguments[1]:
            instances.region = torch.arange(len(instances), device=instances.scores.device)

    def see_block(name: str) -> Callable[[nn.Module, tuple], None]:
        def see(_: nn.Module, arguments: tuple) -> None:
            record.inputs[name] = arguments[0].detach()

        return see

    handles = [model.register_forward_pre_hook(see_image)]
    handles += [block.register_forward_pre_hook(see_block(name)) for name, block in blocks.items()]
    if (head := _keypoint_head(model)) is not None:
        handles.append(head.register_forward_pre_hook(see_instances))
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _keypoint_head(model: nn.Module) -> nn.Module | None:
    return getattr(getattr(model, "roi_heads", None), "keypoint_head", None)


def _stride(model: nn.Module, name: str) -> int | None:
    """The stride of a backbone block's input; None for a block of the keypoint head."""
    block = model.get_submodule(name)
    head = _keypoint_head(model)
    if head is not None and block in head.modules():
        return None
    for resnet in (module for module in model.modules() if isinstance(module, ResNet)):
        stride = resnet.stem.stride
        for layer in itertools.chain.from_iterable(resnet.stages):
            if layer is block:
                return stride
            stride *= layer.stride
    raise UserError(
        f"cannot tell where in the image block '{name}' looks: it is in neither a ResNet's "
        "stages nor the keypoint head"
    )


def _centres(seen: Look, indices: Sequence[int]) -> list[Query]:
    centres = seen.instances.pred_boxes.get_centers().tolist()
    return [Query(x=centres[i][0], y=centres[i][1], label=seen.describe(i)) for i in indices]


def _keypoints(seen: Look, index: int, names: Sequence[str]) -> list[Query]:
    return [
        Query(
            x=x,
            y=y,
            label=f"{seen.describe(index)}: {names[k].replace('_', ' ') if names else k + 1}",
        )
        for k, (x, y, _) in enumerate(seen.instances.pred_keypoints[index].tolist())
    ]


def _attend(
    name: str, block: NonLocalBlock, features: Tensor, grid: Grid, queries: Sequence[Query]
) -> Iterator[Attention]:
    """The rows of `queries`; `features` (C, H, W) is what the block saw."""
    if not queries:
        return
    positions = [grid.position(query.x, query.y) for query in queries]
    maps = attention_rows(block, features, positions).double().cpu().numpy()
    rows, columns = len(grid.y.windows()), len(grid.x.windows())
    for query, whole in zip(queries, maps, strict=True):
        drawn, total = whole[:rows, :columns], np.abs(whole).sum()
        yield Attention(
            block=name,
            query=query,
            grid=grid,
            weights=drawn,
            signed=block.pairwise not in SOFTMAX_FORMS,
            even=1 / whole.size,
            padding=float(1 - np.abs(drawn).sum() / total) if total else 0.0,
        )
