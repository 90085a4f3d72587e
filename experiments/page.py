"""``docs/experiments.md``: clips first, then boxes, and the former tasks as an appendix."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import report as panoramas
from .boxes import report as boxes
from .run import MACHINES
from .video import plots, report

_NOT_SHOWN = """**Not shown.** Nothing about Kinetics or COCO: these are narrow networks on drawn \
clips, made so that a match is all that matters. In real videos and images most of what decides \
is near, and the paper's gains there are of 1 or 2 points. Only a run there can tell \
(`tools/reproduce.py`)."""

_NOT_DECIDED = """## Keypoints: not decided

Left and right told by a match inside a person, the left glove having the hat's colour, were tried \
in some twenty pilots on seeds 101 and 102, and no experiment was run. The paper's head, eight \
convolutions without norm, stayed at chance with its four blocks and without, also with the hat \
beside the gloves. A head of two convolutions and one block learned the match as far as its \
convolutions reach; there the block brought nothing. So nothing here says whether blocks in the \
keypoint head help."""

_RUN = """**Run it.** `python tools/run_experiments.py --jobs 2` prints the plan, trains what is \
missing and writes this page; it can be stopped and started again at any time. One trial again, \
beside these: `--only 'cpu/clips_matching/spacetime/seed1' --results output/again --output \
output/again/runs`."""


def write_page(
    results: Mapping[str, dict[Any, Any]], folder: Path, page: Path, *, output: Path
) -> None:
    """Write `page`, and beside the raw results in `folder` the images that it shows.

    Args:
        results: of each experiment, by its name in `registry.EXPERIMENTS`.
        output: of the runs, whose weights are drawn from.
    """
    clips, detectors, former = (results[name] for name in ("video", "boxes", "panoramas"))
    at = folder.relative_to(page.parent)
    saved = plots.save_all(clips, folder, output)
    images = {what: f"{at}/{name}" for what, name in saved.items()}
    machines = json.loads((folder / MACHINES).read_text(encoding="utf-8"))
    parts = [
        "# When a non-local block helps, and when not",
        _head(clips, detectors),
        _NOT_SHOWN,
        _RUN,
    ]
    parts += [report.task(images["examples"]), _figures(images)]
    parts += [report.bars(clips), report.comparisons(clips), report.orderings(clips)]
    parts += [report.results_table(clips), report.use(clips), report.method(clips, machines)]
    if detectors:
        boxes.save_images(detectors, folder, output)
        parts += [boxes.section(detectors, folder, str(at), machines), _NOT_DECIDED]
    if former:
        parts.append(panoramas.appendix(former, folder, at, machines))
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _head(clips: dict[Any, Any], detectors: dict[Any, Any]) -> str:
    return report.head(clips, also=boxes.head(detectors) if detectors else "")


_CAPTIONS = {
    "kinds": "What a block must see: accuracy by kind of clip; dots are seeds",
    "curves": "What is learned, and when: cross-entropy on the validation set; lines are seeds",
    "dial": "How far the objects are apart: accuracy by distance; dots are seeds",
    "attention": "Where two objects that match attend: a clip, and the first seed's network",
}


def _figures(images: Mapping[str, str]) -> str:
    lines = ["## A figure for each claim"]
    for what, caption in _CAPTIONS.items():
        if what in images:
            lines += [f"### {caption}", f"![{caption}]({images[what]})"]
    return "\n\n".join(lines)
