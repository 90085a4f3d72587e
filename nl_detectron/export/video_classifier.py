"""Export of a whole `VideoClassifier`, from clips to probabilities."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.datasets.synthetic.clips import make_scene
from ..layers import NonLocalBlock
from ..modeling import VideoClassifier
from ..utils.errors import UserError
from .api import Check, Outputs, Part, check, write


def is_classifier(model: nn.Module) -> bool:
    return isinstance(model, VideoClassifier)


def _export(
    model: VideoClassifier, path: Path, file_format: str, clips: Sequence[Tensor]
) -> list[Check]:
    classifier = _Classifier(model).eval()
    for clip in clips:
        classifier.check_size(clip)
    inputs = [*_random(_shapes(model)), *clips]
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

    def is_enough(side: int) -> bool:
        return model.backbone.output_size((1, side, side))[model.feature][1] >= positions

    return _first(is_enough)


def _length(model: VideoClassifier, steps: int) -> int:
    """Return the fewest frames that leave `steps` or more time steps per stage, in whole groups."""
    blocks = [
        (stage, module.frames)
        for stage in model.backbone.stage_names
        for module in getattr(model.backbone, stage).modules()
        if isinstance(module, NonLocalBlock) and module.frames
    ]

    def is_enough(frames: int) -> bool:
        left = {name: t for name, (t, _, _) in model.backbone.output_size((frames, 1, 1)).items()}
        return min(left.values()) >= steps and not any(left[s] % group for s, group in blocks)

    return _first(is_enough)


def _first(is_enough: Callable[[int], bool]) -> int:
    return next(number for number in count(1) if is_enough(number))


def _random(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, s, generator=generator, dtype=torch.uint8) for s in shapes]


def _clips(cfg: CfgNode, files: Sequence[str] | None) -> list[Tensor]:
    """Return a clip of each video as the network takes it; by default of an embedded video."""
    frames, stride, side = cfg.INPUT.CLIP.FRAMES, cfg.INPUT.CLIP.STRIDE, cfg.INPUT.MIN_SIZE_TEST
    if files is not None:
        from ..analysis.clip import read_clip

        clips = (read_clip(f, frames=frames, stride=stride, short_side=side) for f in files)
        return [clip.pixels[None] for clip in clips]
    _, scene = make_scene("val", 0)
    video = torch.from_numpy(scene.frames()).permute(0, 3, 1, 2)
    wanted = video[stride * torch.arange(frames) % len(video)]
    return [F.interpolate(wanted, (side, side), mode="bilinear").transpose(0, 1)[None]]


class _Classifier(nn.Module):
    def __init__(self, model: VideoClassifier) -> None:
        super().__init__()
        self.model = model
        _, _, *self.smallest = _shapes(model)[1]

    def check_size(self, clip: Tensor) -> None:
        size = clip.shape[2:]
        if any(side < least for side, least in zip(size, self.smallest, strict=True)):
            given, allowed = (" x ".join(map(str, sides)) for sides in (size, self.smallest))
            raise UserError(
                f"a clip of {given} is too small for the classifier's file; allowed: {allowed} or "
                "more (INPUT.CLIP.FRAMES, INPUT.MIN_SIZE_TEST)"
            )

    def forward(self, clips: Tensor) -> Outputs:
        clips = clips.float()
        # With clips too small for the network, onnxruntime pools out of bounds or crashes. Indexing
        # the last required pixel raises an error instead.
        t, h, w = self.smallest
        clips = clips + 0 * clips[:, :, t - 1, h - 1, w - 1, None, None, None]
        return {"scores": self.model.probabilities(clips)}


PARTS = (Part("classifier", is_in=is_classifier, export=_export, inputs=_clips),)
