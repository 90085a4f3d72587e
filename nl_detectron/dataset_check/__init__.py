"""Find everything that is wrong with a COCO-format data set, before a run does.

`check_file` looks at an annotation file and its images, `check_registered` at a data set by its
name, `check_run` at all data sets of a config and whether they fit it. What is looked for is the
table `KINDS`.

`kinds` and `report` know no format: another one adds its kinds to the table and fills a `Report`.
"""

from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from nl_detectron.errors import UserError, nearest

from .annotations import problems_of_annotations, problems_of_lists
from .coco import Coco, Expected, read
from .images import image_error, problems_of_images
from .kinds import KINDS, Kind, Problem, Severity
from .report import Finding, Report
from .run import Run, Summary, problems_between, problems_of_metadata

__all__ = [
    "KINDS",
    "Expected",
    "Finding",
    "Kind",
    "Problem",
    "Report",
    "Run",
    "Severity",
    "check_file",
    "check_registered",
    "check_run",
    "image_error",
    "problems_of_metadata",
]


def check_file(
    annotations: Path,
    images: Path | None,
    *,
    expected: Expected | None = None,
    decode: bool = True,
    progress: bool = False,
    max_examples: int = 3,
    title: str | None = None,
) -> Report:
    """Report all that is wrong with an annotation file and its images.

    Args:
        annotations: a JSON file in COCO's format.
        images: the folder of the images; None: do not look at them.
        expected: what the run asks of the data set.
        decode: read every image, not only see whether its file is there.
        progress: show a progress bar while images are read.
        max_examples: how many problems of each kind the report names.
        title: what the report calls the data set (default: the file).
    """
    return _check(
        annotations,
        images,
        Report(title or str(annotations), max_examples=max_examples),
        expected=expected or Expected(),
        decode=decode,
        progress=progress,
    )[0]


def check_registered(
    name: str,
    *,
    expected: Expected | None = None,
    decode: bool = True,
    with_images: bool = True,
    progress: bool = False,
    max_examples: int = 3,
) -> Report:
    """Report all that is wrong with a data set in Detectron2's catalog; arguments as `check_file`.

    Raises:
        UserError: there is no such data set, or it is not from an annotation file of COCO's.
    """
    annotations, images = located(name)
    return check_file(
        annotations,
        images if with_images else None,
        expected=expected,
        decode=decode,
        progress=progress,
        max_examples=max_examples,
        title=name,
    )


def check_run(
    run: Run, *, decode: bool = True, progress: bool = False, max_examples: int = 3
) -> list[Report]:
    """Report on each data set of a run, and last on how they fit the model and each other."""
    reports, summaries = [], []
    for name in dict.fromkeys(run.train + run.test):
        annotations, images = located(name)
        report, coco = _check(
            annotations,
            images,
            Report(name, max_examples=max_examples),
            expected=run.expected(name),
            decode=decode,
            progress=progress,
        )
        reports.append(report)
        summaries.append(Summary.of(name, coco))
    whole = Report("the config and its data sets together", max_examples=max_examples)
    whole.add(problems_of_metadata(run))
    whole.add(problems_between(run, summaries))
    return [*reports, whole]


def located(name: str) -> tuple[Path, Path]:
    """Return annotation file and image folder of a data set in Detectron2's catalog."""
    known = list(DatasetCatalog.keys())
    if name not in known:
        raise UserError(f"data set '{name}' is not registered.{nearest(name, known)}")
    metadata = MetadataCatalog.get(name)
    annotations, images = metadata.get("json_file"), metadata.get("image_root")
    if annotations is None or images is None:
        raise UserError(
            f"data set '{name}' has no json_file or image_root in its metadata: only data sets in "
            "COCO's format can be checked"
        )
    return Path(PathManager.get_local_path(annotations)), Path(images)


def _check(
    annotations: Path,
    images: Path | None,
    report: Report,
    *,
    expected: Expected,
    decode: bool,
    progress: bool,
) -> tuple[Report, Coco]:
    coco, malformed = read(annotations, expected)
    report.add(malformed)
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
    return report, coco
