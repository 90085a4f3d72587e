"""The non-local operation and block, on torch and Detectron2's layers; independent of configs."""

from .nonlocal_block import NonLocalBlock
from .nonlocal_ops import PAIRWISE_FORMS, explicit_nonlocal, nonlocal_operation, pairwise_weights

__all__ = [
    "PAIRWISE_FORMS",
    "NonLocalBlock",
    "explicit_nonlocal",
    "nonlocal_operation",
    "pairwise_weights",
]
