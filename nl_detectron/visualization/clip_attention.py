"""Where a point of a clip attends through space and time, as in Figure 3 of the paper.

    clip = read_clip("video.mp4", frames=8, stride=8, short_side=256)
    look = look_at_clip(model, clip)
    draw_strip(look, look.attend(clip.query(40, 120, 80))).savefig("attention.png")

Only the rows that are looked at are computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..layers import NonLocalBlock
from ..layers.nonlocal_ops import SOFTMAX_FORMS
from ..modeling.backbone.video_resnet import VideoResNet
from ..modeling.meta_arch.video_classifier import VideoClassifier
from ..utils.errors import UserError
from .attention import Row, attention_rows, find_blocks, seen_part
from .clip import Clip, ClipQuery
from .geometry import Axis, ClipGrid


@dataclass(frozen=True, kw_only=True)
class ClipAttention(Row):
    """Where `query` attends in a clip.

    Args:
        weights: (time steps, M_y, M_x), of the windows of `grid`; 0 where the block does not look.
        sees: where it looks, bool of the same shape.
    """

    query: ClipQuery
    grid: ClipGrid
    sees: NDArray[np.bool_]

    def strongest(self, count: int) -> list[tuple[int, float, float, float]]:
        """The `count` windows of largest absolute weight as (time step, x, y, weight).

        Windows with at most an even share are not among them.
        """
        steps, rows, columns = self.largest(count)
        xs, ys = self.grid.space.x.centres()[columns], self.grid.space.y.centres()[rows]
        values = self.weights[steps, rows, columns]
        return [
            (int(t), float(x), float(y), float(w))
            for t, x, y, w in zip(steps, xs, ys, values, strict=True)
        ]

    def windows_of(
        self, points: Sequence[tuple[int, float, float]], *, margin: int = 0
    ) -> NDArray[np.bool_]:
        """Which windows cover any of some points (frame of the clip, x, y); as `weights`.

        Args:
            margin: also the windows that are at most so many beside these, in the same time step.
        """
        chosen = np.zeros(self.weights.shape, dtype=bool)
        for frame, x, y in points:
            row, column = _window(self.grid.space.y, y), _window(self.grid.space.x, x)
            rows = slice(max(0, row - margin), row + margin + 1)
            columns = slice(max(0, column - margin), column + margin + 1)
            chosen[self.grid.step(frame), rows, columns] = True
        return chosen

    def share_at(
        self, points: Sequence[tuple[int, float, float]], *, margin: int = 0
    ) -> tuple[float, float]:
        """The share of the absolute weight on the windows of `points`, and an even share."""
        chosen, sizes = self.windows_of(points, margin=margin), np.abs(self.weights)
        share = sizes[chosen].sum() / sizes.sum() if sizes.any() else 0.0
        return float(share), float((chosen & self.sees).sum() / self.sees.sum())


def _window(axis: Axis, coordinate: float) -> int:
    return axis.position(coordinate) // axis.subsample


@dataclass(frozen=True, kw_only=True)
class SeenBlock:
    """A block, and what it saw of a clip: `features` (C, T, H, W), its input."""

    name: str
    block: NonLocalBlock
    features: Tensor
    grid: ClipGrid

    @torch.no_grad()
    def attend(self, query: ClipQuery) -> ClipAttention:
        """The row of the block's map at a point."""
        position = self.grid.position(query.frame, query.x, query.y)
        part = attention_rows(self.block, self.features, [position])[0].double().cpu().numpy()
        space = self.grid.space
        shape = (self.grid.time.length, len(space.y.windows()), len(space.x.windows()))
        steps, rows, columns = seen_part(self.block, self.features.shape[1:], position)
        # In space a block sees either all windows or, not pooled, its own place.
        seen = (
            steps,
            slice(rows.start, rows.start + part.shape[1]),
            slice(columns.start, columns.start + part.shape[2]),
        )
        weights, sees = np.zeros(shape), np.zeros(shape, dtype=bool)
        weights[seen], sees[seen] = part, True
        return ClipAttention(
            block=self.name,
            query=query,
            grid=self.grid,
            weights=weights,
            sees=sees,
            signed=self.block.pairwise not in SOFTMAX_FORMS,
            even=1 / part.size,
        )


@dataclass(frozen=True, kw_only=True)
class ClipLook:
    """A clip, what it was taken for, and its way through the blocks.

    Args:
        scores: (classes,), the probabilities.
        class_names: a class without one is called by its number.
        evidence: the place that speaks most for the class of highest score.
        blocks: in the model's order.
    """

    clip: Clip
    scores: np.ndarray
    class_names: Sequence[str]
    evidence: ClipQuery
    blocks: list[SeenBlock]

    def attend(self, query: ClipQuery) -> list[ClipAttention]:
        """Where a point attends, in each block."""
        return [block.attend(query) for block in self.blocks]

    def best(self, count: int) -> list[tuple[str, float]]:
        """The classes of highest score and their scores."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [(class_name(self.class_names, k), float(self.scores[k])) for k in order]


def class_name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else f"class {number}"


@torch.no_grad()
def look_at_clip(
    model: nn.Module,
    clip: Clip,
    *,
    blocks: Sequence[str] = (),
    class_names: Sequence[str] = (),
) -> ClipLook:
    """Run a `VideoClassifier`, in evaluation mode, on a clip and keep what its blocks see.

    Args:
        blocks: names as ``named_modules`` has them; default: all.

    Raises:
        UserError: for a block that the model does not have, or a clip too small for the network.
    """
    if not isinstance(model, VideoClassifier):
        raise UserError(f"{type(model).__name__} is no VideoClassifier: it has no clips to look at")
    chosen = find_blocks(model, blocks)
    inputs: dict[str, Tensor] = {}
    features: dict[str, Tensor] = {}

    def see_block(name: str) -> Any:
        return lambda _, arguments: inputs.update({name: arguments[0][0].detach()})

    handles = [block.register_forward_pre_hook(see_block(name)) for name, block in chosen.items()]
    handles.append(
        model.backbone.register_forward_hook(lambda _, __, output: features.update(output))
    )
    try:
        clips = clip.pixels.unsqueeze(0).to(model.device)
        (result,) = model([{"clips": clips, "file_name": str(clip.file)}])
    finally:
        for handle in handles:
            handle.remove()
    scores = result["scores"].float().cpu().numpy()
    seen = [
        SeenBlock(
            name=name,
            block=block,
            features=inputs[name],
            grid=_grid(
                model.backbone,
                _stage(model.backbone, name, block),
                clip,
                block,
                inputs[name].shape[1:],
            ),
        )
        for name, block in chosen.items()
    ]
    evidence = class_evidence(model, features[model.feature][0], int(scores.argmax()))
    grid = _grid(model.backbone, model.feature, clip, None, evidence.shape)
    step, row, column = np.unravel_index(int(evidence.argmax()), evidence.shape)
    begin, end = grid.time.windows()[step]
    place = clip.point(
        int(begin + end) // 2,
        float(grid.space.x.centres()[column]),
        float(grid.space.y.centres()[row]),
        label=class_name(class_names, int(scores.argmax())),
    )
    return ClipLook(clip=clip, scores=scores, class_names=class_names, evidence=place, blocks=seen)


def class_evidence(model: VideoClassifier, feature: Tensor, number: int) -> np.ndarray:
    """What each place adds to a class: the classifier's weights times the feature (C, T, H, W).

    With a softmax, what all classes gain counts for none of them, so their mean is taken off.
    """
    weights = model.classifier.weight.detach()
    direction = weights[number] - (0 if model.multi_label else weights.mean(0))
    return torch.einsum("c,cthw->thw", direction, feature).double().cpu().numpy()


def _stage(resnet: VideoResNet, name: str, block: NonLocalBlock) -> str:
    for stage in resnet.stage_names:
        if any(child is block for child in getattr(resnet, stage).children()):
            return stage
    raise UserError(
        f"cannot tell where in the clip block '{name}' looks: it is in none of the stages "
        f"{', '.join(resnet.stage_names)}"
    )


def _grid(
    resnet: VideoResNet,
    stage: str,
    clip: Clip,
    block: NonLocalBlock | None,
    shape: Sequence[int],
) -> ClipGrid:
    """The grid of a block in `stage`; of the stage's output itself without a block."""
    _, _, height, width = clip.pixels.shape
    return ClipGrid.of_clip(
        shape,
        time_stride=resnet.time_strides[stage],
        stride=resnet.strides[stage],
        subsample=1 if block is None or block.axes == "time" else block.subsample,
        frames=len(clip.frames),
        network_size=(height, width),
        size=clip.size,
    )
