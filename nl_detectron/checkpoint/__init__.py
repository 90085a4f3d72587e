"""Checkpoints: read from files of any origin without running code, written whole or not at all."""

from .checkpointer import Checkpointer
from .reading import UnreadableError

__all__ = ["Checkpointer", "UnreadableError"]
