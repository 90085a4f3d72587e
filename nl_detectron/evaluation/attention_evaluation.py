"""Attention statistics of a model's blocks on a few samples, for training curves."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from detectron2.evaluation.evaluator import inference_context
from torch import Tensor, nn

from ..layers import NonLocalBlock
from ..modeling.attention_rows import AttentionRows, entropy, query_dependence


@torch.no_grad()
def evaluate_attention(model: nn.Module, samples: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Measure the attention of each `NonLocalBlock` on `samples`, inputs of `model` one by one.

    Returns:
        ``nonlocal/<block>/entropy``, the mean entropy of the attention weights in nats, and
        ``nonlocal/<block>/query_dependence``, the mean Jensen-Shannon divergence in bits between
        the weights of different queries of a sample; without blocks that saw nothing.
    """
    found: dict[str, list[float]] = defaultdict(list)

    def measure_as(name: str):
        def measure(block: NonLocalBlock, inputs: tuple[Tensor]) -> None:
            for x in inputs[0]:
                rows = AttentionRows(block, x)
                entropies = [entropy(p).flatten() for p, _, _ in rows.pieces()]
                found[f"nonlocal/{name}/entropy"].append(float(torch.cat(entropies).mean()))
                dependence, _ = query_dependence(rows.sample())
                found[f"nonlocal/{name}/query_dependence"].append(dependence)

        return measure

    with ExitStack() as stack:
        stack.enter_context(inference_context(model))
        for name, block in model.named_modules():
            if isinstance(block, NonLocalBlock):
                stack.enter_context(block.register_forward_pre_hook(measure_as(name)))
        for sample in samples:
            model([sample])
    return {name: float(np.mean(values)) for name, values in found.items()}
