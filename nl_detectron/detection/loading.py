"""Data loaders that name the file when data is bad.

Detectron2's loaders end in whatever the JSON parser, the COCO API, Pillow or numpy says, mostly
without a file's name, and out of a worker process with that process's traceback. With the loaders
of this module it is a :class:`DataError` that names file and way out in one line.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.config import CfgNode, LazyCall, instantiate
from detectron2.data import (
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from ..dataset_check import (
    KINDS,
    Run,
    check_registered,
    image_fault,
    problems_of_metadata,
)
from ..dataset_check.coco import shown_error
from ..dataset_check.images import image_size, special_file
from ..errors import ConfigError, DataError, UserError

_CHECK = "tools/check_dataset.py finds all that is wrong with a data set"


class NamingMapper:
    """A mapper of dataset dicts whose errors name the image's file.

    Args:
        mapper: what makes a dataset dict with ``file_name`` ready for the model, e.g. Detectron2's
            ``DatasetMapper``.

    Raises:
        DataError: the image cannot be used, or is a pipe or device, which is not read; or
            Detectron2's own mapper failed, so the annotations cannot. Errors of other mappers
            stay as they are, with a note that names the image.
    """

    def __init__(self, mapper: Callable[[dict], Any]) -> None:
        self.mapper = mapper

    def __call__(self, record: dict[str, Any]) -> Any:
        path = record.get("file_name")
        if path is not None and (fault := special_file(path)):
            raise DataError(_image_message(path, fault))
        try:
            return self.mapper(record)
        except Exception as error:  # Pillow's decoders raise errors of any type on hostile bytes
            if path is None:
                raise
            if fault := image_fault(path, image_size(record)):
                raise DataError(_image_message(path, fault)) from error
            annotations = f"image {path!r}: its annotations (image id {record.get('image_id')})"
            if type(self.mapper) is DatasetMapper:
                raise DataError(
                    f"{annotations} cannot be used ({shown_error(error)}); {_CHECK}"
                ) from error
            error.add_note(f"while reading {annotations}")
            raise


def _image_message(path: str, fault: tuple[str, str]) -> str:
    kind = KINDS[fault[0]]
    return f"image {path!r}: {kind.meaning} ({fault[1]}); {kind.way_out}; {_CHECK}"


@contextmanager
def naming_annotations(names: Iterable[str]) -> Iterator[None]:
    """Say what is wrong in the annotation files of data sets where reading them fails.

    Raises:
        DataError: reading failed, and one of the files has an error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # from the JSON parser, the COCO API or Detectron2
        for name in names:
            if MetadataCatalog.get(name).get("json_file") is None:
                continue
            if found := check_registered(name, with_images=False).first_error():
                raise DataError(f"data set '{name}': {found}; {_CHECK}") from error
        raise


def build_train_loader(cfg: CfgNode) -> Iterable[list[dict]]:
    """Return Detectron2's loader for ``DATASETS.TRAIN``; errors in the data name the file."""
    with naming_annotations(cfg.DATASETS.TRAIN):
        loader = build_detection_train_loader(cfg, mapper=NamingMapper(DatasetMapper(cfg, True)))
    check_categories(Run.from_config(cfg))
    return loader


def build_test_loader(cfg: CfgNode, name: str) -> DataLoader:
    """Return Detectron2's loader to evaluate on `name`; errors in the data name the file."""
    with naming_annotations([name]):
        return build_detection_test_loader(
            cfg, name, mapper=NamingMapper(DatasetMapper(cfg, False))
        )


def instantiate_loader(config: DictConfig) -> Any:
    """Return the loader that a LazyConfig's ``dataloader.train`` or ``.test`` describes.

    Errors in the data name the file, whichever mapper the config has.
    """
    names = OmegaConf.select(config, "dataset.names", default=())
    config = copy.deepcopy(config)
    if "mapper" in config:
        config.mapper = LazyCall(NamingMapper)(mapper=config.mapper)
    with naming_annotations([names] if isinstance(names, str) else names):
        return instantiate(config)


def check_metadata(run: Run) -> None:
    """Raise ConfigError for metadata that keypoints cannot be trained with; reads no data."""
    for problem in problems_of_metadata(run):
        kind = KINDS[problem.kind]
        raise ConfigError(f"{problem.where}: {problem.detail} ({kind.meaning}); {kind.way_out}")


def check_categories(run: Run) -> None:
    """Raise ConfigError if a loaded data set has more categories than the model has classes.

    On a GPU the loss would fail on them without saying why.
    """
    for name in run.train:
        categories = MetadataCatalog.get(name).get("thing_classes", [])
        if run.num_classes is not None and len(categories) > run.num_classes:
            raise ConfigError(
                f"data set '{name}' has {len(categories)} categories, but "
                f"MODEL.ROI_HEADS.NUM_CLASSES is {run.num_classes}; set it to {len(categories)}"
            )
