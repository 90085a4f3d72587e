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

_TYPES: dict[str, Any] = {
    **dict.fromkeys(("name", "json_file", "image_root", "root", "list_file"), str),
    **dict.fromkeys(("keypoint_names", "keypoint_flip_map"), list),
    "classes": list | str | int,
    "multi_label": bool,
    "folder_rate": int | float,
}
_IMAGES, _VIDEOS = ("name", "json_file", "image_root"), ("name", "root")  # required
_OPTIONAL_OF_IMAGES = ("keypoint_names", "keypoint_flip_map")
_OPTIONAL_OF_VIDEOS = ("list_file", "classes", "multi_label", "folder_rate")


def register_datasets(cfg: CfgNode) -> None:
    """Register the datasets that a config lists in ``DATASETS.REGISTER``.

    An entry has the arguments of `register_videos`, or ``name``, ``json_file`` and ``image_root``
    of ``register_coco_instances``, with ``keypoint_names`` and ``keypoint_flip_map`` for
    keypoints. Relative paths start from the current folder. Entries that are already registered
    are skipped.

    Raises:
        ConfigError: an entry has a missing, unknown or wrong key, or the name of another dataset.
    """
    for number, entry in enumerate(cfg.DATASETS.REGISTER):
        _check(f"{KEY}[{number}]", entry)
        entry = dict(entry)
        name = entry["name"]
        if name in DatasetCatalog:
            if (there := MetadataCatalog.get(name).get(ENTRY)) != entry:
                said = f"by {short_repr(there)}" if there else "already"
                raise ConfigError(f"{KEY}: '{name}' is registered {said}; choose another name")
            continue
        if "json_file" in entry:
            metadata = {key: entry[key] for key in _OPTIONAL_OF_IMAGES if key in entry}
            register_coco_instances(name, metadata, entry["json_file"], entry["image_root"])
        else:
            register_videos(**{"list_file": None, **entry})
        MetadataCatalog.get(name).set(**{ENTRY: entry})


def _check(where: str, entry: Any) -> None:
    if not isinstance(entry, dict):
        example = "{name: NAME, json_file: FILE, image_root: FOLDER}"
        raise ConfigError(f"{where} must be as {example}, got {short_repr(entry)}")
    is_videos = "root" in entry or "list_file" in entry
    required = _VIDEOS if is_videos else _IMAGES
    allowed = [*required, *(_OPTIONAL_OF_VIDEOS if is_videos else _OPTIONAL_OF_IMAGES)]
    for key in entry:
        if key not in allowed:
            raise ConfigError(f"{where}: unknown key '{key}'.{nearest(str(key), list(_TYPES))}")
    for key in required:
        if key not in entry:
            raise ConfigError(f"{where} must have {', '.join(required)}, got no '{key}'")
    for key, value in entry.items():
        if not isinstance(value, _TYPES[key]) or value == "":
            names = str(getattr(_TYPES[key], "__name__", _TYPES[key]))
            raise ConfigError(f"{where}: {key} must be {names}, got {short_repr(value)}")
