"""Whether data sets are there, before a run asks for them."""

import os
from collections.abc import Iterable

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import UserError, nearest

# Keys of a data set's metadata that are paths: COCO's, and those of lists of videos.
_PATHS = ("json_file", "image_root", "list_file", "video_root")


def check_datasets(names: Iterable[str]) -> None:
    """Raise `UserError` for the first data set that is not registered or not on disk."""
    known = list(DatasetCatalog.keys())
    for name in names:
        if name not in known:
            raise UserError(f"data set '{name}' is not registered.{nearest(name, known)}")
        metadata = MetadataCatalog.get(name)
        for path in map(metadata.get, _PATHS):
            if path and "://" not in path and not os.path.exists(path):
                root = os.environ.get("DETECTRON2_DATASETS")
                where = f"is '{root}'" if root else "is not set, so ./datasets is used"
                raise UserError(
                    f"data set '{name}' is not there: no {os.path.abspath(path)}. "
                    f"DETECTRON2_DATASETS {where}; point it at the folder that holds the data "
                    "sets, or use nl_shapes_train and nl_shapes_val, or with videos "
                    "nl_clips_train and nl_clips_val, which need no download"
                )
