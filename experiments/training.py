"""Training with AdamW on data drawn as needed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler
from detectron2.utils.events import EventStorage
from torch import nn


def train(
    cfg: CfgNode,
    model: nn.Module,
    draw: Callable[[], list[dict]],
    evaluate: Callable[[], dict[str, float]],
) -> tuple[list[dict[str, Any]], float]:
    """Train `model`, and save its weights as ``model_final.pth`` in OUTPUT_DIR.

    Args:
        cfg: its SOLVER, TEST.EVAL_PERIOD and OUTPUT_DIR are used.
        draw: returns the next batch.
        evaluate: called every EVAL_PERIOD iterations and after the last one, in evaluation mode.

    Returns:
        Rows of the curve, and the processor's seconds without the evaluations.
    """
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
                curve.append({"iteration": iteration, **evaluate()})
                print(curve[-1], flush=True)
    weights = Path(cfg.OUTPUT_DIR) / "model_final.pth"
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, weights)
    return curve, seconds
