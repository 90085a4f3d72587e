"""The configs that ship with the package, what is known of each, and trained models of them.

Same four functions as ``detectron2.model_zoo``, without its need for ``pkg_resources``.
"""

from .api import ModelZooError, get, get_checkpoint_url, get_config, get_config_file
from .entries import AP, ENTRIES, METRICS, find_entry
from .entry import Checkpoint, Entry, Metric, Results

__all__ = [
    "AP",
    "ENTRIES",
    "METRICS",
    "Checkpoint",
    "Entry",
    "Metric",
    "ModelZooError",
    "Results",
    "find_entry",
    "get",
    "get_checkpoint_url",
    "get_config",
    "get_config_file",
]
