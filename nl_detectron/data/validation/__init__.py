"""Search for problems of a dataset before a run.

`check_file` reads an annotation file and its images, `check_registered` a dataset by its name,
`check_run` all datasets of a config, and compares them with it. The table `KINDS` has all kinds of
problems.
"""

from pathlib import Path

from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ...utils.errors import UserError
from .annotations import problems_of_annotations, problems_of_lists
from .coco import Coco, Expected, read
from .images import problems_of_images
from .kinds import KINDS, Kind, Problem, Report, Severity
from .run import Run, Summary, problems_between, problems_of_metadata

__all__ = [
    "KINDS",
    "Expected",
    "Kind",
    "Problem",
    "Report",
    "Run",
    "Severity",
    "check_file",
    "check_registered",
    "check_run",
]


def check_file(
    annotations: Path,
    images: Path | None,
    *,
    expected: Expected | None = None,
    decode: bool = True,
    progress: bool = False,
) -> Report:
    """Report the problems of an annotation file and its images.

    Args:
        annotations: a JSON file in COCO's format.
        images: the folder of the images; None skips the images.
        expected: requirements of the run.
        decode: read every image, instead of only checking that its file exists.
        progress: show a progress bar while images are read.
    """
    coco = read(annotations, expected)
    return _report(str(annotations), coco, images, decode=decode, progress=progress)


def check_registered(
    name: str, *, expected: Expected | None = None, with_images: bool = True, **options: bool
) -> Report:
    """Report the problems of a dataset in Detectron2's catalog; `options` as for `check_file`.

    Raises:
        UserError: it has no annotation file in COCO's format.
    """
    file, images = located(name)
    return _report(name, read(file, expected), images if with_images else None, **options)


def check_run(run: Run, *, decode: bool = True, progress: bool = False) -> list[Report]:
    """Report on each dataset of a run, and last on all of them with the model."""
    reports, summaries = [], []
    for name in dict.fromkeys(run.train + run.test):
        file, images = located(name)
        coco = read(file, run.expected(name))
        reports.append(_report(name, coco, images, decode=decode, progress=progress))
        summaries.append(Summary.of(name, coco, images))
    together = Report("the config and its datasets together")
    together.add(problems_of_metadata(run))
    together.add(problems_between(run, summaries))
    return [*reports, together]


def located(name: str) -> tuple[Path, Path]:
    """Return annotation file and image folder of a dataset in Detectron2's catalog."""
    metadata = MetadataCatalog.get(name)
    annotations, images = metadata.get("json_file"), metadata.get("image_root")
    if annotations is None or images is None:
        raise UserError(
            f"expected a dataset in COCO's format, got '{name}', whose metadata has no json_file "
            "or image_root"
        )
    return Path(PathManager.get_local_path(annotations)), Path(images)


def _report(
    title: str, coco: Coco, images: Path | None, *, decode: bool = True, progress: bool = False
) -> Report:
    report = Report(title)
    report.add(coco.malformed)
    if coco.images or coco.annotations or coco.categories:
        report.facts = {
            "images": len(coco.images),
            "annotations": len(coco.annotations),
            "crowds": sum(bool(a.get("iscrowd")) for a in coco.annotations),
            "categories": len(coco.categories),
        }
        report.add(problems_of_lists(coco))
        report.add(problems_of_annotations(coco))
        if images is not None:
            report.add(problems_of_images(coco.images, images, decode=decode, progress=progress))
    return report
