"""COCO's average precision of what was found."""

import contextlib
import io
from collections.abc import Sequence

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def average_precision(
    truth: COCO, found: Sequence[dict], what: str = "bbox", *, use_classes: bool = True
) -> tuple[float, float]:
    """Return AP and AP50 in per cent; without `use_classes`, whatever class things were given.

    Args:
        found: COCO's results.
        what: ``bbox`` or ``keypoints``.
    """
    if not found:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(list(found)), what)
        evaluation.params.useCats = int(use_classes)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * float(evaluation.stats[0]), 100 * float(evaluation.stats[1])
