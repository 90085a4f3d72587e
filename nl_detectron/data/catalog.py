"""Registered datasets: their files, and class names in checkpoints and files."""

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..config import CLASSES_KEYS
from ..utils.errors import ConfigError, UserError, nearest, one_line
from .datasets.register import ENTRY
from .datasets.register import KEY as REGISTER
from .datasets.video_list import read_classes

logger = logging.getLogger(__name__)

_IDS = "thing_dataset_id_to_contiguous_id"
_PREDICTED = ("thing_classes", _IDS, "keypoint_names", "keypoint_connection_rules")
# Keys of a dataset's metadata that are paths: Detectron2's, and those of lists of videos.
_PATHS = (
    *("json_file", "image_root", "image_dir", "gt_dir", "dirname", "sem_seg_root"),
    *("panoptic_json", "panoptic_root", "list_file", "video_root"),
)


def check_datasets(names: Iterable[str]) -> None:
    """Check that datasets are registered and on disk.

    Raises:
        UserError: for the first dataset or file that is missing.
    """
    for name in names:
        if name not in DatasetCatalog:
            # Names share much, such as "_train", so only typing errors count as close.
            hint = nearest(name, list(DatasetCatalog.keys()), cutoff=0.85) or (
                f" Register your own by {REGISTER} in the config, [{{name: {name}, json_file: "
                f"FILE, image_root: FOLDER}}] or for videos [{{name: {name}, list_file: FILE, "
                "root: FOLDER}], or in a script"
            )
            raise UserError(f"dataset '{name}' is not registered.{hint}")
        metadata = MetadataCatalog.get(name)
        for path in map(metadata.get, _PATHS):
            if path and "://" not in path and not os.path.exists(path):
                raise UserError(
                    f"dataset '{name}' is missing: no {os.path.abspath(path)}; "
                    f"{_where_to_put(metadata)}"
                )


def _where_to_put(metadata: Metadata) -> str:
    if metadata.get(ENTRY):
        return f"correct its paths in {REGISTER}, which start from the current folder"
    root = os.environ.get("DETECTRON2_DATASETS")
    where = f"is '{root}'" if root else "is not set, so ./datasets is used"
    return (
        f"DETECTRON2_DATASETS {where}; set it to the folder of the datasets, or use "
        "nl_shapes_train and nl_shapes_val, or for videos nl_clips_train and nl_clips_val, which "
        "need no download"
    )


def metadata_of(names: Iterable[str]) -> dict[str, Any]:
    """Return metadata for predictions from the first registered dataset that has class names.

    These are Detectron2's ``thing_classes``, ``thing_dataset_id_to_contiguous_id``,
    ``keypoint_names`` and ``keypoint_connection_rules``. For a dataset that is not loaded yet they
    come from its annotation file. Without class names the dict is empty.
    """
    for name in names:
        if name not in DatasetCatalog:
            continue
        metadata = MetadataCatalog.get(name)
        found = _plain(metadata.as_dict())
        file = None if "thing_classes" in found else metadata.get("json_file")
        if file is not None and PathManager.isfile(file):
            found |= read_class_names(PathManager.get_local_path(file))
        if "thing_classes" in found:
            return found
    return {}


def class_metadata(
    cfg: CfgNode,
    trained: Mapping[str, Any],
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
) -> Metadata:
    """Return names and category ids of a model's classes; classes without a name get their number.

    Args:
        trained: the metadata in the checkpoint; if empty, a registered dataset of `cfg` provides
            it.
        classes: names, or a file of them, that replace these.

    Raises:
        UserError: the file cannot be read.
        ConfigError: `classes` and the model differ in the number of classes.
    """
    key = CLASSES_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
    count = attrgetter(key)(cfg) if key else None
    found = _plain(trained) or metadata_of((*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN))
    if classes is not None:
        given = (
            read_class_names(classes)
            if isinstance(classes, str | os.PathLike)
            else {"thing_classes": list(classes)}
        )
        number = len(given["thing_classes"])
        if count not in (None, number):
            raise ConfigError(f"expected {count} class names ({key}), got {number}")
        found |= given
    names = found.setdefault("thing_classes", [])
    if not names or (count is not None and len(names) > count):
        logger.warning(
            "Class names are unknown, so numbers from 0 replace names and category ids. The "
            "checkpoint %s has none that fit, and no dataset of the config is registered; pass a "
            "file of names or a COCO file (demo: --class-names, Predictor: classes)",
            cfg.MODEL.WEIGHTS,
        )
        found = {"thing_classes": (names := [])}
    names.extend(str(i) for i in range(len(names), count or 0))
    return Metadata(**found)


def classes_differ(names: Sequence[str] | None, others: Sequence[str] | None) -> bool:
    """Return True if two lists of known class names differ, which would mix up labels.

    Numbers replace unknown names, and a single class may have another name.
    """
    if not names or not others or len(names) == len(others) == 1:
        return False
    is_named = all(any(not name.isdecimal() for name in known) for known in (names, others))
    return is_named and list(names) != list(others)


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of `metadata_of` that there are; the list of class names is a new one."""
    found = {key: metadata[key] for key in _PREDICTED if metadata.get(key) is not None}
    if "thing_classes" in found:
        found["thing_classes"] = [str(name) for name in found["thing_classes"]]
    if _IDS in found:
        found[_IDS] = dict(found[_IDS])  # pairs in JSON
    return found


def read_class_names(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the metadata in a file of class names.

    The file is a COCO file, whose categories count in the order of their ids, or one for
    `read_classes`: a name per line, or a JSON object of names and numbers.

    Raises:
        UserError: the file is none of these.
    """
    try:
        content = json.loads(Path(file).read_bytes()) if str(file).endswith(".json") else None
        if not isinstance(content, dict) or "categories" not in content:
            return {"thing_classes": read_classes(Path(file))}
        categories = sorted((c["id"], str(c["name"])) for c in content["categories"])
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: expected JSON, with 'id' and 'name' in its categories ({one_line(error)})"
        ) from error
    return {
        "thing_classes": [name for _, name in categories],
        _IDS: {id_: i for i, (id_, _) in enumerate(categories)},
    }


def categories_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return COCO's table of categories, which `read_class_names` reads."""
    names: Sequence[str] = metadata.get("thing_classes", ())
    ids = metadata.get(_IDS) or {i: i for i in range(len(names))}
    return [{"id": own, "name": names[i]} for own, i in ids.items()]


def as_json(metadata: Mapping[str, Any]) -> str:
    """Return metadata as JSON, with category ids as pairs, since JSON's keys are text."""
    return json.dumps({**metadata, _IDS: list(metadata.get(_IDS, {}).items())})
