"""Data loaders of images and videos, whose errors name the bad file.

Detectron2's loaders fail with errors of the JSON parser, the COCO API, Pillow or numpy. These
mostly lack a file's name, and have a traceback of the worker process. The loaders of this module
raise `DataError` instead: one line with the file and the fix.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from detectron2.config import LazyCall, instantiate
from detectron2.data import (
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
)
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from ..config import Config, is_video
from ..utils.errors import ConfigError, DataError, UserError
from .catalog import metadata_of
from .validation import check_registered
from .validation.coco import image_size
from .validation.images import header_error, image_error
from .validation.kinds import KINDS, Problem, Severity, error_text
from .validation.run import Run, Summary, problems_of_categories, problems_of_metadata

Mapper = Callable[..., Any]

_CHECK = "`nl-detectron check` finds all problems of a dataset"


class DataErrorMapper:
    """A mapper of dataset dicts whose errors name the image's file.

    Args:
        mapper: function from a dataset dict with ``file_name`` to the model's input, such as
            Detectron2's ``DatasetMapper``.

    Raises:
        DataError: the image is unreadable. With Detectron2's own mapper also: it has more than 8
            bits per channel, or invalid annotations. Errors of other mappers are raised unchanged,
            with a note that names the image.
    """

    def __init__(self, mapper: Mapper) -> None:
        self.mapper = mapper

    def __call__(self, record: dict[str, Any]) -> Any:
        path = record.get("file_name")
        reads_8_bits = type(self.mapper) is DatasetMapper
        try:
            if path is None or not reads_8_bits or not (problem := header_error(path)):
                return self.mapper(record)
        except Exception as error:  # Pillow's decoders raise errors of any type on hostile bytes
            if path is None:
                raise
            if problem := image_error(path, image_size(record)):
                raise DataError(_image_message(path, problem)) from error
            annotations = f"image {path!r}: its annotations (image id {record.get('image_id')})"
            if reads_8_bits:
                raise DataError(
                    f"{annotations} cannot be used ({error_text(error)}); {_CHECK}"
                ) from error
            error.add_note(f"while reading {annotations}")
            raise
        raise DataError(_image_message(path, problem))


def _image_message(path: str, problem: tuple[str, str]) -> str:
    kind = KINDS[problem[0]]
    return f"image {path!r}: {kind.meaning} ({problem[1]}); {kind.fix}; {_CHECK}"


@contextmanager
def annotation_errors(names: Iterable[str], *, is_loading: bool = True) -> Iterator[None]:
    """Explain failures of loading or evaluating datasets by problems of their annotation files.

    Raises:
        DataError: one of the files has an error; if `is_loading`, also if one is missing, or if
            Detectron2 refuses the datasets.
    """
    names = list(names)
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # from the JSON parser, the COCO API or Detectron2
        if isinstance(error, RuntimeError) and not is_loading:  # of the model, such as no memory
            raise
        for name in names:
            metadata = MetadataCatalog.get(name)
            if metadata.get("json_file") is None or metadata.get("evaluator_type") != "coco":
                continue
            if wrong := check_registered(name, with_images=False).first_error():
                raise DataError(f"dataset '{name}': {wrong}; {_CHECK}") from error
        # Detectron2 asserts that data exists, and compares the metadata of several datasets.
        if is_loading and isinstance(error, OSError | AssertionError | ValueError):
            raise DataError(f"dataset {', '.join(names)}: {error_text(error)}") from error
        raise


def build_train_loader(cfg: Config, mapper: Mapper | None = None) -> Iterable[list[dict]]:
    """Return Detectron2's loader of the training data; errors in the data name the file.

    Args:
        cfg: a YAML config with ``DATASETS.TRAIN``, or a LazyConfig with ``dataloader.train``.
        mapper: replaces Detectron2's ``DatasetMapper(cfg, True)``, the LazyConfig's mapper, or for
            videos `TrainMapper`, which also gets a `numpy.random.Generator`.

    Raises:
        DataError: an annotation file is unusable or, during iteration, an image or video.
        ConfigError: the categories of a dataset differ from the model's.
    """
    if is_video(cfg):
        from .video import build  # needs PyAV, which images do not

        return build.build_train_loader(cfg, mapper)
    if isinstance(cfg, DictConfig):
        loader = instantiate_loader(cfg.dataloader.train, mapper)
    else:
        mapper = DataErrorMapper(mapper or DatasetMapper(cfg, True))
        with annotation_errors(cfg.DATASETS.TRAIN):
            loader = build_detection_train_loader(cfg, mapper=mapper)
    check_categories(run := Run.of(cfg), run.train)
    return loader


def build_test_loader(cfg: Config, name: str, mapper: Mapper | None = None) -> DataLoader:
    """Return Detectron2's loader to evaluate on `name`; errors in the data name the file.

    Args:
        cfg: a YAML config, or a LazyConfig, whose ``dataloader.test`` is for one dataset.
        name: name of the dataset.
        mapper: replaces Detectron2's ``DatasetMapper(cfg, False)``, the LazyConfig's mapper, or
            for videos `TestMapper`.

    Raises:
        DataError, ConfigError: as `build_train_loader`.
    """
    if is_video(cfg):
        from .video import build

        return build.build_test_loader(cfg, name, mapper)
    if isinstance(cfg, DictConfig):
        loader = instantiate_loader(cfg.dataloader.test, mapper)
    else:
        mapper = DataErrorMapper(mapper or DatasetMapper(cfg, False))
        with annotation_errors([name]):
            loader = build_detection_test_loader(cfg, name, mapper=mapper)
    run = Run.of(cfg)
    check_categories(run, run.test if isinstance(cfg, DictConfig) else [name])
    return loader


def instantiate_loader(config: DictConfig, mapper: Mapper | None = None) -> Any:
    """Return the loader that a LazyConfig's ``dataloader.train`` or ``.test`` describes.

    Errors in the data name the file, with any mapper; `mapper` replaces the config's.
    """
    names = OmegaConf.select(config, "dataset.names", default=())
    config = copy.deepcopy(config)
    if mapper is not None or "mapper" in config:
        config.mapper = LazyCall(DataErrorMapper)(mapper=mapper or config.mapper)
    with annotation_errors([names] if isinstance(names, str) else names):
        return instantiate(config)


def check_metadata(run: Run) -> None:
    """Raise ConfigError for metadata that does not suit keypoint training, without reading data."""
    _raise_first(problems_of_metadata(run))


def check_categories(run: Run, names: Iterable[str]) -> None:
    """Raise ConfigError for a loaded dataset whose categories differ from the model's.

    The model's categories are those of the first dataset to train on. If their number is not the
    model's, as in an evaluation with another dataset in ``DATASETS.TRAIN``, only the number counts.
    """
    for name in names:
        found = _summary(name)
        trained = _summary(run.train[0]) if run.train else found
        fits = run.num_classes in (None, len(trained.categories))
        _raise_first(problems_of_categories(run, found, trained if fits else found))


def _summary(name: str) -> Summary:
    return Summary(name, metadata_of([name]).get("thing_classes", []), set())


def _raise_first(problems: Iterable[Problem]) -> None:
    for problem in problems:
        kind = KINDS[problem.kind]
        if kind.severity is Severity.ERROR:
            raise ConfigError(f"{problem.where}: {problem.detail} ({kind.meaning}); {kind.fix}")
