"""Marks of tests that need a newer torch than the oldest declared one (docs/install.md)."""

import pytest
import torch

free_sizes = pytest.mark.skipif(
    torch.__version__ < "2.14",
    reason="older torch.export fixes whether pooled sizes are even, and a classifier's batch",
)
