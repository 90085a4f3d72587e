"""Training on what is drawn as it is needed, for a number of iterations, with AdamW."""

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler
from detectron2.utils.events import EventStorage
from torch import nn

Score = TypeVar("Score")


def train(
    cfg: CfgNode, model: nn.Module, draw: Callable[[], list[dict]], evaluate: Callable[[], Score]
) -> tuple[dict[int, Score], float]:
    """Train `model`, which returns its losses.

    Args:
        cfg: SOLVER and TEST.EVAL_PERIOD count.
        draw: returns the next batch.
        evaluate: called each EVAL_PERIOD iterations and after the last one, in mode ``eval``.

    Returns:
        What `evaluate` returned, by iteration, and the processor's seconds without it.
    """
    # Not Detectron2's SGD, with which a block in time only stays on the plateau of chance.
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    clipping = cfg.SOLVER.CLIP_GRADIENTS  # of the norm of all gradients together
    curve: dict[int, Score] = {}
    seconds = 0.0
    with EventStorage() as storage:
        for iteration in range(1, cfg.SOLVER.MAX_ITER + 1):
            model.train()
            start = time.process_time()
            loss = sum(model(draw()).values())
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
                curve[iteration] = evaluate()
                print(f"iteration {iteration}: {curve[iteration]}", flush=True)
    return curve, seconds
