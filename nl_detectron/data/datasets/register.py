"""Registration of datasets by ``DATASETS.REGISTER`` of a config, instead of a script."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ...utils.errors import ConfigError, nearest, short_repr
from .register_videos import register_videos

KEY = "DATASETS.REGISTER"
ENTRY = "config_entry"
"""Key of a dataset's metadata for the entry that registered it."""

_IMAGES = ("name", "json_file", "image_root", "keypoint_names", "keypoint_flip_map")
_VIDEOS = ("name", "root", "list_file", "classes", "multi_label", "folder_rate")
_REQUIRED = ("name", "json_file", "image_root", "root")


def register_datasets(cfg: CfgNode) -> None:
    """Register the datasets that a config lists in ``DATASETS.REGISTER``.

    An entry of images has ``name``, ``json_file`` and ``image_root``, and for keypoints
    ``keypoint_names`` and ``keypoint_flip_map``. An entry of videos has ``name``, ``root`` and the
    optional arguments of `register_videos`. Relative paths start from the current folder. An entry
    equal to the one registered under its name is skipped.

    Raises:
        ConfigError: an entry lacks a key, has an unknown one, or has the name of another dataset.
    """
    for number, entry in enumerate(cfg.DATASETS.REGISTER):
        _check(f"{KEY}[{number}]", entry)
        entry = dict(entry)
        name = entry["name"]
        if name in DatasetCatalog:
            there = MetadataCatalog.get(name).get(ENTRY)
            if there != entry:
                said = f"by {short_repr(there)}" if there else "already"
                raise ConfigError(f"{KEY}: '{name}' is registered {said}; choose another name")
            continue
        if _is_of_videos(entry):
            register_videos(**{"list_file": None, **entry})  # without a list, folders are classes
        else:
            metadata = {key: value for key, value in entry.items() if key not in _REQUIRED}
            register_coco_instances(name, metadata, entry["json_file"], entry["image_root"])
        MetadataCatalog.get(name).set(**{ENTRY: entry})


def _is_of_videos(entry: dict[str, Any]) -> bool:
    return "root" in entry or "list_file" in entry


def _check(where: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        example = "{name: NAME, json_file: FILE, image_root: FOLDER}"
        raise ConfigError(f"{where} must be as {example}, got {short_repr(entry)}")
    keys = _VIDEOS if _is_of_videos(entry) else _IMAGES
    required = [key for key in keys if key in _REQUIRED]
    for key in required:
        if not entry.get(key):
            raise ConfigError(f"{where} must have {', '.join(required)}, got no '{key}'")
    for key in entry:
        if key not in keys:
            hint = nearest(str(key), list(keys))
            raise ConfigError(f"{where} must have keys of {', '.join(keys)}, got '{key}'.{hint}")
