"""Whether a compiler or tracer runs the code."""

import torch


def is_recorded() -> bool:
    """Whether what runs is recorded, for inputs of other sizes too."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
