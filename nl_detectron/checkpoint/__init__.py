"""Checkpoints: files of any origin are read without running code, and writes are atomic."""

from .detection_checkpoint import METADATA, Checkpointer

__all__ = ["METADATA", "Checkpointer"]
