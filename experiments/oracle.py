"""What an observer scores that finds everything, with and without a look at the cue."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from pycocotools.coco import COCO

from nl_detectron.data.relational import CUE_COLORS, read_cue, wrists
from nl_detectron.images import read_image

from .evaluation import average_precision
from .plan import METRIC


def oracle_ap(task: str, distance: int, *, sees_cue: bool, seed: int = 0) -> float:
    """Return the AP in per cent, on the validation split, of perfect boxes and keypoints.

    Args:
        task, distance: which data set.
        sees_cue: the answers are read off the images, from the colour at the cue. Otherwise
            they are guesses: every class of a crate with a random score, one pose of a walker.
        seed: of the guesses.
    """
    rng = np.random.default_rng(seed)
    metadata = MetadataCatalog.get(f"nl_relational_{task}_d{distance}_val")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(metadata.json_file)
        found = []
        for annotation in truth.dataset["annotations"]:
            name = truth.imgs[annotation["image_id"]]["file_name"]
            image = read_image(Path(metadata.image_root) / name, format="RGB")
            answer = read_cue(task, image, annotation["cue"])
            answers = [answer] if sees_cue else _guesses(task, rng)
            found += [_answered(task, annotation, a) | {"score": rng.random()} for a in answers]
    return average_precision(truth, found, METRIC[task])[0]


def _guesses(task: str, rng: np.random.Generator) -> list[int]:
    answers = range(len(CUE_COLORS[task]))
    return list(answers) if task == "crates" else [int(rng.choice(answers))]


def _answered(task: str, annotation: dict[str, Any], answer: int) -> dict[str, Any]:
    """Return `annotation` as a detection that gives this answer."""
    if task == "crates":
        without = {k: v for k, v in annotation.items() if k != "keypoints"}
        return without | {"category_id": answer + 1}
    hands = np.reshape(annotation["keypoints"], (-1, 3))
    upper, lower = sorted((point[:2] for point in hands if point[2]), key=lambda point: point[1])
    points = wrists(answer, upper, lower)
    triplets = np.column_stack([np.nan_to_num(points), np.isfinite(points[:, 0])])
    return annotation | {"keypoints": triplets.ravel().tolist()}
