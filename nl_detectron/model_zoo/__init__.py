"""Configs of the package, their published and measured results, and trained models.

Four functions of ``detectron2.model_zoo``, without its need for ``pkg_resources``, and the table
``model_zoo.csv``, one `Entry` per config.
"""

from .model_zoo import (
    ENTRIES,
    METRICS,
    Entry,
    Figures,
    Metric,
    ModelZooError,
    find_entry,
    get,
    get_checkpoint_url,
    get_config,
    get_config_file,
)

__all__ = [
    "ENTRIES",
    "METRICS",
    "Entry",
    "Figures",
    "Metric",
    "ModelZooError",
    "find_entry",
    "get",
    "get_checkpoint_url",
    "get_config",
    "get_config_file",
]
