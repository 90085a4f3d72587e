"""Training with AdamW on data drawn as needed."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from torch import nn

from nl_detectron.analysis.cost import PartCost

from .results import Outcome

VALIDATION, TRAINING = 0, 1
"""Streams of random numbers."""


def train(
    cfg: CfgNode,
    *,
    build: Callable[[CfgNode], nn.Module],
    draw: Callable[[np.random.Generator, int], list[dict]],
    evaluate: Callable[[Any], Sequence[Mapping[str, Any]]],
    cost: PartCost,
) -> Outcome:
    """Train a model, save its weights as ``model_final.pth`` in OUTPUT_DIR, and measure it.

    Args:
        cfg: its SEED, SOLVER, TEST.EVAL_PERIOD and OUTPUT_DIR are used.
        build: returns the model of a config.
        draw: returns a batch of the given size.
        evaluate: returns the measured values of a model in evaluation mode, the first ones for
            the curve. It is called every EVAL_PERIOD iterations and after the last one.
        cost: the cost of the model.

    Returns:
        The values after the last iteration, with the processor's seconds without evaluations and
        the cost, and the curve.
    """
    seed_all_rng(cfg.SEED)
    model = build(cfg)
    rng = np.random.default_rng([TRAINING, cfg.SEED])
    # With Detectron2's SGD a block in time only stays at chance.
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    clipping = cfg.SOLVER.CLIP_GRADIENTS  # of the norm of all gradients together
    curve: list[dict[str, Any]] = []
    seconds = 0.0
    with EventStorage() as storage:
        for iteration in range(1, cfg.SOLVER.MAX_ITER + 1):
            model.train()
            start = time.process_time()
            loss = sum(model(draw(rng, cfg.SOLVER.IMS_PER_BATCH)).values())
            optimizer.zero_grad()
            loss.backward()
            if clipping.ENABLED:
                nn.utils.clip_grad_norm_(model.parameters(), clipping.CLIP_VALUE)
            optimizer.step()
            scheduler.step()
            storage.step()
            seconds += time.process_time() - start
            if iteration % cfg.TEST.EVAL_PERIOD == 0 or iteration == cfg.SOLVER.MAX_ITER:
                model.eval()
                with torch.no_grad():
                    measured = evaluate(model)
                curve.append({"iteration": iteration, **measured[0]})
                print(curve[-1], flush=True)
    weights = Path(cfg.OUTPUT_DIR) / "model_final.pth"
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, weights)
    costs = {
        "seconds": seconds,
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
    }
    return Outcome(runs=[{**values, **costs} for values in measured], curves=curve)
