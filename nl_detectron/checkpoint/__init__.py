"""Checkpoints: files of any origin are read without running code, and writes are atomic."""

from .detection_checkpoint import METADATA, Checkpointer
from .reading import UnreadableError

__all__ = ["METADATA", "Checkpointer", "UnreadableError"]
