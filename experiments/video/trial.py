"""One trial on clips."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng
from torch import Tensor
from torch.nn import functional as F

from nl_detectron.analysis.clip import Clip
from nl_detectron.analysis.cost import PartCost, analyze_video, build_on_meta
from nl_detectron.modeling import VideoClassifier

from ..plan import Trial
from ..results import Outcome
from ..training import train
from .plan import PLAN
from .task import FRAMES, HEIGHT, KINDS, TASKS, WIDTH, Clips, draw_clips

VALIDATION_CLIPS = 1152
_BATCH = 64
_VALIDATION, _TRAINING = 0, 1  # streams of random numbers


def run_trial(trial: Trial, output: Path) -> Outcome:
    """Train the network of `trial`, save its weights under `output`, and measure it."""
    cfg = PLAN.cfg(trial, output)
    seed_all_rng(trial.seed)
    model = build_model(cfg)
    val = validation_set(trial.task)
    rng = np.random.default_rng([_TRAINING, trial.seed])
    curve, seconds = train(
        cfg,
        model,
        lambda: draw_clips(rng, TASKS[trial.task], cfg.SOLVER.IMS_PER_BATCH).batch(),
        lambda: _score(_logits(model, val), val.labels),
    )
    logits, cost = _logits(model, val), cost_of(cfg)
    subsets = {trial.task: np.full(len(val.labels), True)}
    if trial.task == "all":
        subsets |= {kind: val.kinds == number for number, kind in enumerate(KINDS)}
    runs = [
        {
            "kind": kind,
            **_score(logits[torch.from_numpy(subset)], val.labels[subset]),
            "seconds": seconds,
            "parameters": cost.parameters,
            "multiply_adds": cost.multiply_adds,
        }
        for kind, subset in subsets.items()
    ]
    return Outcome(runs=runs, curves=curve)


def cost_of(cfg: CfgNode) -> PartCost:
    """Return parameters and multiply-adds of a network, for one clip."""
    model = cast(VideoClassifier, build_on_meta(cfg))
    return analyze_video(model, frames=FRAMES, height=HEIGHT, width=WIDTH).total


def validation_set(task: str) -> Clips:
    """Return the validation clips of a task, which are the same for all seeds."""
    return draw_clips(np.random.default_rng([_VALIDATION]), TASKS[task], VALIDATION_CLIPS)


@torch.no_grad()
def _logits(model: VideoClassifier, clips: Clips) -> Tensor:
    model.eval()
    parts = clips.frames.split(_BATCH)
    return torch.cat([model.logits(part.to(model.device)) for part in parts]).cpu()


def _score(logits: Tensor, labels: np.ndarray) -> dict[str, float]:
    """Return the accuracy in % and the mean cross-entropy in nats; 0.693 is chance."""
    truth = torch.from_numpy(labels)
    return {
        "accuracy": 100 * float((logits.argmax(1) == truth).float().mean()),
        "cross_entropy": float(F.cross_entropy(logits, truth)),
    }


def as_clip(clips: Clips, index: int) -> Clip:
    """Return one of `clips` as the package's attention pictures take it."""
    frames = clips.frames[index]
    return Clip(
        file=Path(f"clip {index}"),
        numbers=np.arange(FRAMES),
        size=(HEIGHT, WIDTH),
        frames=frames.permute(1, 2, 3, 0).numpy(),
        pixels=frames,
        rate=1.0,
    )
