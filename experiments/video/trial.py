"""One trial: train on clips that are drawn as they are needed, evaluate, look at the blocks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng
from torch import Tensor
from torch.nn import functional as F

from nl_detectron.analysis import PartCost, build_on_meta
from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import VideoClassifier
from nl_detectron.video_analysis import analyze_video
from nl_detectron.visualization.clip import Clip
from nl_detectron.visualization.clip_attention import look_at_clip

from ..training import train
from ..trial import BlockUse
from .clips import FRAMES, HEIGHT, KINDS, SIDE, WIDTH, Clips, draw_clips
from .plan import TASKS, VideoTrial

NUM_VAL = 1152
"""Clips of the validation set, the same for all trials of a task."""

_VALIDATION, _TRAINING = 0, 1  # streams of random numbers
_LOOKED_AT = 96  # of the validation set's clips, for the blocks' use
_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class Score:
    """On some of the validation set's clips.

    Attributes:
        accuracy: in per cent.
        cross_entropy: mean, in nats; 0.693 is a coin's.
    """

    accuracy: float
    cross_entropy: float


@dataclass(frozen=True, kw_only=True)
class VideoOutcome:
    """What a trial measured.

    Attributes:
        scores: by kind of clip, and of ``all``; of the task control, of ``control`` alone.
        curve: by iteration, on all clips of the validation set.
        seconds: of the processor, for training; evaluations left out.
        parameters, multiply_adds: of the network; for one clip.
        blocks: what each non-local block did.
    """

    scores: Mapping[str, Score]
    curve: Mapping[int, Score]
    seconds: float
    parameters: int
    multiply_adds: int
    blocks: Sequence[BlockUse]


def run_trial(trial: VideoTrial, output: Path) -> VideoOutcome:
    """Train the network of `trial`, keep its weights under `output`, and measure it."""
    cfg = trial.config(output)
    seed_all_rng(trial.seed)
    model = build_model(cfg)
    val = validation_set(trial.task)
    rng = np.random.default_rng([_TRAINING, trial.seed])
    batch = cfg.SOLVER.IMS_PER_BATCH
    curve, seconds = train(
        cfg,
        model,
        lambda: draw_clips(rng, TASKS[trial.task], batch).batch(0, batch),
        lambda: _score(_logits(model, val), val.labels),
    )
    weights = trial.weights(output)
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, weights)
    cost = cost_of(cfg)
    return VideoOutcome(
        scores=_by_kind(trial.task, val, _logits(model, val)),
        curve=curve,
        seconds=seconds,
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        blocks=list(_block_uses(model, val)),
    )


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a network, for one clip."""
    model = cast(VideoClassifier, build_on_meta(cfg))
    return analyze_video(model, frames=FRAMES, height=HEIGHT, width=WIDTH).total


def validation_set(task: str) -> Clips:
    return draw_clips(np.random.default_rng([_VALIDATION]), TASKS[task], NUM_VAL)


@torch.no_grad()
def _logits(model: VideoClassifier, clips: Clips) -> Tensor:
    model.eval()
    parts = (
        model.logits(clips.frames[start : start + _AT_ONCE].to(model.device))
        for start in range(0, len(clips), _AT_ONCE)
    )
    return torch.cat(list(parts)).cpu()


def _score(logits: Tensor, labels: np.ndarray) -> Score:
    truth = torch.from_numpy(labels)
    return Score(
        accuracy=100 * float((logits.argmax(1) == truth).float().mean()),
        cross_entropy=float(F.cross_entropy(logits, truth)),
    )


def _by_kind(task: str, clips: Clips, logits: Tensor) -> dict[str, Score]:
    every = _score(logits, clips.labels)
    if task != "matching":
        return {task: every}
    scores = {}
    for number, kind in enumerate(KINDS):
        of_kind = clips.kinds == number
        scores[kind] = _score(logits[torch.from_numpy(of_kind)], clips.labels[of_kind])
    return scores | {"all": every}


def _block_uses(model: VideoClassifier, val: Clips) -> Iterator[BlockUse]:
    """Look from the first object of some clips to the second, with each block of the network."""
    names = [n for n, module in model.named_modules() if isinstance(module, NonLocalBlock)]
    if not names:
        return
    ratios: dict[str, list[float]] = {name: [] for name in names}
    shares: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for index in range(_LOOKED_AT):
        look = look_at_clip(model, as_clip(val, index))
        (t, y, x), other = val.places[index]
        partner = list(pixels(other))
        query = look.clip.point(int(t), x + SIDE / 2, y + SIDE / 2)
        for seen, attention in zip(look.blocks, look.attend(query), strict=True):
            shares[seen.name].append(attention.share_at(partner))
            features = seen.features.unsqueeze(0)
            with torch.no_grad():
                change = seen.block(features) - features
            ratios[seen.name].append(float(change.norm() / features.norm()))
    for name in names:
        yield BlockUse.mean(name, ratios[name], shares[name])


def as_clip(clips: Clips, index: int) -> Clip:
    """One of `clips` as what the package's pictures of attention take."""
    frames = clips.frames[index]
    return Clip(
        file=Path(f"clip {index}"),
        numbers=np.arange(FRAMES),
        size=(HEIGHT, WIDTH),
        frames=frames.permute(1, 2, 3, 0).numpy(),
        pixels=frames,
        rate=1.0,
    )


def pixels(place: Sequence[int]) -> Iterator[tuple[int, float, float]]:
    """The centres of an object's pixels as (frame, x, y)."""
    t, y, x = (int(value) for value in place)
    for row in range(SIDE):
        for column in range(SIDE):
            yield t, x + column + 0.5, y + row + 0.5
