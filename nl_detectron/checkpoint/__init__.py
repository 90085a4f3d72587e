"""Checkpoints: read from files of any origin without running code, written whole or not at all."""

from .detection_checkpoint import METADATA, Checkpointer
from .reading import UnreadableError

__all__ = ["METADATA", "Checkpointer", "UnreadableError"]
