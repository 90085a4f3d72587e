"""A trial of a detector on what is drawn as it is needed: train, evaluate, look at the blocks."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling.meta_arch import GeneralizedRCNN
from detectron2.utils.env import seed_all_rng
from numpy.typing import NDArray

from nl_detectron.analysis import PartCost
from nl_detectron.inference import Predictor
from nl_detectron.layers import NonLocalBlock
from nl_detectron.visualization import look

from .evaluation import detect
from .plan import Trial
from .training import train
from .trial import BlockUse, Outcome, cue_share

_VALIDATION, _TRAINING = 0, 1  # streams of random numbers


class Score(NamedTuple):
    """AP and AP50 in per cent, and the AP50 of what does not depend on the cue."""

    ap: float
    ap50: float
    localization_ap50: float


class View(NamedTuple):
    """An image (H, W, 3), a point (x, y) in it that is looked from, and the box of its cue, x0,
    y0, x1, y1."""

    image: NDArray[np.uint8]
    point: tuple[float, float]
    cue: tuple[int, int, int, int]


def validation_rng() -> np.random.Generator:
    """Return the source of the validation set, the same for all trials."""
    return np.random.default_rng([_VALIDATION])


def run_detector(
    trial: Trial,
    output: Path,
    *,
    build: Callable[[CfgNode], GeneralizedRCNN],
    draw: Callable[[np.random.Generator], dict],
    val: Sequence[dict],
    score: Callable[[Sequence[dict]], Score],
    cost: PartCost,
    views: Sequence[View],
) -> Outcome:
    """Train the detector of `trial`, keep its weights under `output`, and measure it.

    Args:
        build: returns the detector of a config.
        draw: returns the record of one image, as the detector takes it.
        val: records of the validation set.
        score: of COCO's results on `val`.
        cost: of the detector.
        views: from where the blocks are looked at.
    """
    cfg = trial.config(output)
    seed_all_rng(trial.seed)
    model = build(cfg)
    rng = np.random.default_rng([_TRAINING, trial.seed])
    curve, seconds = train(
        cfg,
        model,
        lambda: [draw(rng) for _ in range(cfg.SOLVER.IMS_PER_BATCH)],
        lambda: score(detect(model, val)).ap,
    )
    weights = trial.weights(output)
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, weights)
    return Outcome(
        **score(detect(model, val))._asdict(),
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        seconds=seconds,
        curve=curve,
        blocks=list(_block_uses(Predictor(cfg, weights=weights), views)),
    )


def _block_uses(predictor: Predictor, views: Sequence[View]) -> Iterator[BlockUse]:
    blocks = {n: m for n, m in predictor.model.named_modules() if isinstance(m, NonLocalBlock)}
    ratios: dict[str, list[float]] = {name: [] for name in blocks}
    shares: dict[str, list[tuple[float, float]]] = {name: [] for name in blocks}

    def note(name: str):
        def hook(_, inputs: tuple, output: torch.Tensor) -> None:
            ratios[name].append(float((output - inputs[0]).norm() / inputs[0].norm()))

        return hook

    handles = [block.register_forward_hook(note(name)) for name, block in blocks.items()]
    for image, point, (left, top, right, bottom) in views if blocks else ():
        for attention in look(predictor, image, points=[point]).attentions:
            share = cue_share(attention, (left, top, right - left, bottom - top))
            shares[attention.block].append(share)
    for handle in handles:
        handle.remove()
    for name in blocks:
        yield BlockUse.mean(name, ratios[name], shares[name])
