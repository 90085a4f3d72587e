"""Registration of the generated datasets, made at first use, and of the standard videos."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.data.datasets import load_coco_json
from detectron2.data.datasets.builtin_meta import (
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
    KEYPOINT_CONNECTION_RULES,
)

from ...utils.file_io import cache_root
from . import charades
from .register_videos import load_entries, register_videos
from .synthetic import clips
from .synthetic.coco import annotation_file
from .synthetic.shapes import CLASSES, make_shapes
from .video_list import read_list


class GeneratedMetadata(Metadata):
    """Metadata of a dataset that is made when its path is read.

    ``json_file`` and ``image_root`` have the values of ``register_coco_instances``, so
    COCOEvaluator finds the annotations even before the dataset is loaded.
    """

    @property
    def json_file(self) -> str:
        """Path of the annotations; reading it makes a missing dataset."""
        return str(annotation_file(self.make(), self.split))

    @property
    def image_root(self) -> str:
        """Folder of the images; reading it makes a missing dataset."""
        return str(self.make() / self.split)


def register_generated(
    name: str, split: str, classes: Sequence[str], make: Callable[[], Path]
) -> None:
    """Register one split of a generated dataset with COCO's person keypoints.

    Do nothing if a dataset of this name exists.

    Args:
        name: name in the catalogs.
        split: name of the split.
        classes: names of the categories; their ids in the file count from 1 in this order.
        make: makes the dataset unless it exists, and returns its folder.
    """
    if name in DatasetCatalog:
        return
    metadata = GeneratedMetadata(
        name=name,
        split=split,
        make=make,
        evaluator_type="coco",
        thing_classes=list(classes),
        thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(classes))},
        keypoint_names=COCO_PERSON_KEYPOINT_NAMES,
        keypoint_flip_map=COCO_PERSON_KEYPOINT_FLIP_MAP,
        keypoint_connection_rules=KEYPOINT_CONNECTION_RULES,
    )
    MetadataCatalog[name] = metadata
    DatasetCatalog.register(
        name, lambda: load_coco_json(metadata.json_file, metadata.image_root, name)
    )


def register_all() -> None:
    """Register the generated datasets, and Kinetics-400 and Charades unless they are registered.

    Generated are ``nl_shapes_train`` and ``nl_shapes_val``, ``nl_clips_train`` and
    ``nl_clips_val``. The others are under ``DETECTRON2_DATASETS``.
    """
    if "nl_shapes_train" in DatasetCatalog:
        return
    for split in ("train", "val"):
        register_generated(f"nl_shapes_{split}", split, CLASSES, lambda: make_shapes(cache_root()))
        _register_clips(split)
    datasets = Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    kinetics, root = datasets / "kinetics400", datasets / "charades"
    names, of_charades = kinetics / "classids.json", root / "Charades_v1_classes.txt"
    # The official files of Charades call the common validation part "test".
    for split, official in (("train", "train"), ("val", "test")):
        if f"kinetics400_{split}" not in DatasetCatalog:
            register_videos(
                f"kinetics400_{split}",
                kinetics / f"{split}.txt",
                kinetics,
                classes=names if names.is_file() else 400,
            )
        if f"charades_{split}" not in DatasetCatalog:
            register_videos(
                f"charades_{split}",
                root / f"Charades_v1_{official}.csv",
                charades.video_folder(root),
                classes=of_charades if of_charades.is_file() else 157,
                multi_label=True,
            )


def _register_clips(split: str) -> None:
    name = f"nl_clips_{split}"

    def load() -> list[dict[str, Any]]:
        list_file = clips.make_clips(cache_root()) / f"{split}.txt"
        return load_entries(
            name,
            read_list(list_file),
            root=list_file.parent,
            list_file=list_file,
            num_classes=len(clips.CLASSES),
        )

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        evaluator_type="video_top_k",
        thing_classes=[clip_class.name for clip_class in clips.CLASSES],
        class_groups=clips.class_groups(),
    )
