"""Export of a whole `VideoClassifier`, from clips to probabilities."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ..layers import NonLocalBlock
from ..modeling import VideoClassifier
from ..utils.errors import UserError
from .api import Check, Outputs, Part, Wrapper, check, write


def is_classifier(model: nn.Module) -> bool:
    return isinstance(model, VideoClassifier)


def _export(
    model: VideoClassifier, path: Path, file_format: str, clips: Sequence[Tensor]
) -> list[Check]:
    shapes = _shapes(model)
    smallest = shapes[1][2:]
    for clip in clips:
        if any(side < least for side, least in zip(clip.shape[2:], smallest, strict=True)):
            given, allowed = (" x ".join(map(str, sides)) for sides in (clip.shape[2:], smallest))
            raise UserError(
                f"a clip of {given} is too small for the classifier's file; allowed: {allowed} or "
                "more (INPUT.CLIP.FRAMES, INPUT.MIN_SIZE_TEST)"
            )
    classifier = _Classifier(model, smallest).eval()
    inputs = [*_random(shapes), *clips]
    run = write(classifier, inputs[0], path, file_format, name="clips", free=(0, 2, 3, 4))
    return [check("classifier", classifier, run, x) for x in inputs]


def _shapes(model: VideoClassifier) -> list[tuple[int, ...]]:
    """Return the shapes of three small clips; the second is the smallest that the file takes.

    The first, for the trace, has a size of at least 2 at every stage, as a trace may fix a 1.
    """
    rows, columns = model.window or (1, 1)
    return [
        (2, 3, _length(model, 2), _side(model, rows + 1), _side(model, columns + 2)),
        (1, 3, _length(model, 1), _side(model, rows), _side(model, columns)),
        (3, 3, _length(model, 3), _side(model, rows + 2), _side(model, columns + 1)),
    ]


def _side(model: VideoClassifier, positions: int) -> int:
    """Return the smallest height or width in pixels that leaves `positions` in the last map."""
    size = model.backbone.output_size
    return next(n for n in count(1) if size((1, n, n))[model.feature][1] >= positions)


def _length(model: VideoClassifier, steps: int) -> int:
    """Return the fewest frames that leave `steps` or more time steps per stage, in whole groups."""
    blocks = [
        (stage, module.frames)
        for stage in model.backbone.stage_names
        for module in getattr(model.backbone, stage).modules()
        if isinstance(module, NonLocalBlock) and module.frames
    ]

    def is_enough(frames: int) -> bool:
        sizes = model.backbone.output_size((frames, 1, 1))
        enough = all(size[0] >= steps for size in sizes.values())
        return enough and not any(sizes[stage][0] % group for stage, group in blocks)

    return next(filter(is_enough, count(1)))


def _random(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, s, generator=generator, dtype=torch.uint8) for s in shapes]


def _clips(cfg: CfgNode, files: Sequence[str] | None) -> list[Tensor]:
    """Return a clip of each video as the network takes it; by default random pixels."""
    frames, stride, side = cfg.INPUT.CLIP.FRAMES, cfg.INPUT.CLIP.STRIDE, cfg.INPUT.MIN_SIZE_TEST
    if files is None:
        return _random([(1, 3, frames, side, side)])
    from ..analysis.clip import read_clip

    clips = (read_clip(f, frames=frames, stride=stride, short_side=side) for f in files)
    return [clip.pixels[None] for clip in clips]


class _Classifier(Wrapper):
    """A video classifier with the smallest clip (T, H, W) that its file takes."""

    def __init__(self, model: VideoClassifier, smallest: Sequence[int]) -> None:
        super().__init__(model)
        self.smallest = smallest

    def forward(self, clips: Tensor) -> Outputs:
        clips = clips.float()
        # With clips too small for the network, onnxruntime pools out of bounds or crashes. Indexing
        # the last required pixel raises an error instead.
        t, h, w = self.smallest
        clips = clips + 0 * clips[:, :, t - 1, h - 1, w - 1, None, None, None]
        return {"scores": self.module.probabilities(clips)}


PARTS = (Part("classifier", is_in=is_classifier, export=_export, inputs=_clips),)
