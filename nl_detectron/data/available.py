"""Whether data sets are there, before a run asks for them."""

import importlib.util
import os
from collections.abc import Iterable

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..utils.errors import UserError, nearest

# Keys of a dataset's metadata that are paths: Detectron2's, and those of lists of videos.
_PATHS = (
    *("json_file", "image_root", "image_dir", "gt_dir", "dirname", "sem_seg_root"),
    *("panoptic_json", "panoptic_root", "list_file", "video_root"),
)
# Packages that Detectron2 imports when it loads or evaluates a dataset, by evaluator_type, and the
# requirement that pip installs them by.
_PACKAGES = {
    "cityscapes_instance": {"cityscapesscripts": "cityscapesscripts", "shapely": "shapely"},
    "cityscapes_sem_seg": {"cityscapesscripts": "cityscapesscripts"},
    "coco_panoptic_seg": {
        "panopticapi": "git+https://github.com/cocodataset/panopticapi.git",
    },
    "lvis": {"lvis": "lvis"},
}


def check_datasets(names: Iterable[str]) -> None:
    """Check that datasets are registered and on disk, and that their packages are installed.

    Raises:
        UserError: the first that is missing.
    """
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
        for package, requirement in _PACKAGES.get(metadata.get("evaluator_type"), {}).items():
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"dataset '{name}' needs the package {package}, which is not installed; "
                    f"pip install {requirement}"
                )
