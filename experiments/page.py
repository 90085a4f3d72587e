"""``docs/experiments.md``: clips, boxes and keypoints."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .boxes import report as boxes
from .keypoints import report as keypoints
from .run import MACHINES
from .video import plots, report

_NOT_SHOWN = """**Not shown.** Nothing about Kinetics or COCO: these are narrow networks on drawn \
clips, made so that a match is all that matters. In real videos and images most of what decides \
is near, and the paper's gains there are of 1 or 2 points. Only a run there can tell \
(`tools/reproduce.py`)."""

_RUN = """**Run it.** `python tools/run_experiments.py --jobs 2` prints the plan, trains what is \
missing and writes this page; it can be stopped and started again at any time. It trains \
five seeds of every arm; `--only '*'` trains the others as well, and what was trained again, for \
longer, with a larger batch or with the hat in the first row. One trial again, beside these: \
`--only 'cpu/clips_matching/spacetime/seed1' --results output/again --output output/again/runs`."""

_FORMER = """Earlier tasks of boxes and keypoints, on panoramas with gates and faces, decided \
little. Commit 225dc86 is the last one with them."""


def write_page(
    results: Mapping[str, dict[Any, Any]], folder: Path, page: Path, *, output: Path
) -> None:
    """Write `page`, and beside the raw results in `folder` the images that it shows.

    Args:
        results: of each experiment, by its name in `registry.EXPERIMENTS`.
        output: of the runs, whose weights are drawn from.
    """
    clips = results["video"]
    detectors = {name: part for name, part in _DETECTORS.items() if results[name]}
    at = folder.relative_to(page.parent)
    saved = plots.save_all(clips, folder, output)
    images = {what: f"{at}/{name}" for what, name in saved.items()}
    machines = json.loads((folder / MACHINES).read_text(encoding="utf-8"))
    parts = [
        "# When a non-local block helps, and when not",
        report.head(clips, also=[part.head(results[name]) for name, part in detectors.items()]),
        _NOT_SHOWN,
        _RUN,
    ]
    parts += [report.task(images["examples"]), _figures(images)]
    parts += [report.bars(clips), report.comparisons(clips), report.orderings(clips)]
    parts += [report.results_table(clips), report.use(clips), report.method(clips, machines)]
    for name, part in detectors.items():
        part.save_images(results[name], folder, output)
        parts.append(part.section(results[name], folder, str(at), machines))
    parts.append(_FORMER)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


_DETECTORS = {"boxes": boxes, "keypoints": keypoints}

_CAPTIONS = {
    "kinds": "What a block must see: accuracy by kind of clip; dots are seeds",
    "curves": "What is learned, and when: cross-entropy on the validation set; lines are seeds",
    "dial": "How far the objects are apart: accuracy by distance; dots are seeds",
    "networks": "Forms, places, numbers of blocks and I3D: accuracy on all clips; dots are seeds",
    "attention": "Where two objects that match attend: a clip, and the first seed's network",
}


def _figures(images: Mapping[str, str]) -> str:
    lines = ["## A figure for each claim"]
    for what, caption in _CAPTIONS.items():
        if what in images:
            lines += [f"### {caption}", f"![{caption}]({images[what]})"]
    return "\n\n".join(lines)
