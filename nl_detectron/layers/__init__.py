"""The non-local operation and block. Knows torch and Detectron2's layers; never sees a config."""

from .nonlocal_block import NonLocalBlock
from .nonlocal_ops import PAIRWISE_FORMS, explicit_nonlocal, nonlocal_operation, pairwise_weights

__all__ = [
    "PAIRWISE_FORMS",
    "NonLocalBlock",
    "explicit_nonlocal",
    "nonlocal_operation",
    "pairwise_weights",
]
