"""One trial: train, evaluate, and look at where the blocks attend."""

import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from pycocotools.coco import COCO

from nl_detectron.analysis import analyze, build_on_meta
from nl_detectron.data.relational import HEIGHT, WIDTH
from nl_detectron.engine import run_config
from nl_detectron.images import read_image
from nl_detectron.inference import Predictor
from nl_detectron.visualization import Attention, look

from .evaluation import average_precision
from .plan import METRIC, Trial

_LAST_LOGGED = 5  # residual ratios at the end of training that are averaged: one is noisy


@dataclass(frozen=True, kw_only=True)
class BlockUse:
    """Whether a block is used.

    Attributes:
        block: its name in the model.
        residual_ratio: ``||z - x|| / ||x||`` at the end of training.
        cue_share: mean share of the attention, looking from the thing, that lands on windows with
            the cue; without softmax, of the absolute weight. NaN if nothing was detected.
        even_share: what it would be if all windows got the same.
    """

    block: str
    residual_ratio: float
    cue_share: float
    even_share: float

    @classmethod
    def mean(
        cls, block: str, ratios: Sequence[float], shares: Sequence[tuple[float, float]]
    ) -> "BlockUse":
        """Return the use of a block from ratios, and from pairs of share on the cue and even."""
        on_cue, even = np.mean(shares, axis=0)
        return cls(
            block=block,
            residual_ratio=float(np.mean(ratios)),
            cue_share=float(on_cue),
            even_share=float(even),
        )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a trial measured.

    Attributes:
        ap, ap50: in per cent; of boxes for crates, of keypoints for walkers.
        localization_ap50: of boxes in per cent, whatever class they were given.
        parameters, multiply_adds: of the whole model; for one panorama with 20 proposals, of
            which one is detected.
        seconds: of training, evaluations left out.
        curve: AP in per cent by iteration.
        blocks: what each non-local block did.
    """

    ap: float
    ap50: float
    localization_ap50: float
    parameters: int
    multiply_adds: int
    seconds: float
    curve: dict[int, float]
    blocks: Sequence[BlockUse]


def run_trial(trial: Trial, output: Path) -> Outcome:
    """Train and evaluate `trial` in its folder under `output`, and measure the model.

    A trial that was cut off goes on from its last checkpoint.
    """
    cfg = trial.config(output)
    cfg.freeze()
    run_config(cfg, Namespace(eval_only=False, resume=True, config_file="", opts=[]))
    lines = _metrics(Path(cfg.OUTPUT_DIR) / "metrics.json")
    key = METRIC[trial.task]
    last = [line for line in lines if f"{key}/AP" in line][-1]
    cost = cost_of(cfg)
    return Outcome(
        ap=last[f"{key}/AP"],
        ap50=last[f"{key}/AP50"],
        localization_ap50=localization_ap50(cfg),
        parameters=cost.parameters,
        multiply_adds=cost.multiply_adds,
        seconds=float(np.median([x["time"] for x in lines if "time" in x])) * cfg.SOLVER.MAX_ITER,
        # The last evaluation comes after training, with one iteration more in its line.
        curve={
            min(int(x["iteration"]) + 1, cfg.SOLVER.MAX_ITER): x[f"{key}/AP"]
            for x in lines
            if f"{key}/AP" in x
        },
        blocks=list(_block_uses(cfg, lines)),
    )


def cost_of(cfg: CfgNode):
    """Return parameters and multiply-adds of a model, as `nl_detectron.analysis.analyze`."""
    proposals = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    model = build_on_meta(cfg)
    return analyze(model, height=HEIGHT, width=WIDTH, proposals=proposals, detections=1).total


def localization_ap50(cfg: CfgNode) -> float:
    """Return the AP50 of the boxes of the last evaluation, in per cent, with classes ignored."""
    truth = COCO(MetadataCatalog.get(cfg.DATASETS.TEST[0]).json_file)
    results = Path(cfg.OUTPUT_DIR) / "inference" / "coco_instances_results.json"
    found = json.loads(results.read_text())
    # With keypoints in it, loadRes would take boxes from them.
    boxes = [{k: v for k, v in one.items() if k != "keypoints"} for one in found]
    return average_precision(truth, boxes, use_classes=False)[1]


def _block_uses(cfg: CfgNode, lines: Sequence[dict[str, Any]]) -> Iterator[BlockUse]:
    """Look from the thing in every image of the test set, with each block of the model."""
    keys = dict.fromkeys(k for line in lines for k in line if k.endswith("/residual_ratio"))
    if not keys:
        return
    predictor = Predictor(cfg, weights=str(Path(cfg.OUTPUT_DIR) / "model_final.pth"))
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0])
    truth = COCO(metadata.json_file)
    shares: dict[str, list[tuple[float, float]]] = {}
    for annotation in truth.dataset["annotations"]:
        name = truth.imgs[annotation["image_id"]]["file_name"]
        image = read_image(Path(metadata.image_root) / name)
        for attention in look(predictor, image, points=_asked(annotation)).attentions:
            shares.setdefault(attention.block, []).append(cue_share(attention, annotation["cue"]))
    for key in keys:
        block = key.removeprefix("nonlocal/").removesuffix("/residual_ratio")
        ratios = [line[key] for line in lines if key in line][-_LAST_LOGGED:]
        yield BlockUse.mean(block, ratios, shares.get(block, [(np.nan, np.nan)]))


def _asked(annotation: dict[str, Any]) -> list[tuple[float, float]]:
    """Where to look from: a walker's hands, the centre of a crate."""
    keypoints = np.reshape(annotation["keypoints"], (-1, 3))
    points = [(x + 0.5, y + 0.5) for x, y, visible in keypoints.tolist() if visible]
    x, y, width, height = annotation["bbox"]
    return points or [(x + width / 2, y + height / 2)]


def cue_share(attention: Attention, cue: Sequence[float]) -> tuple[float, float]:
    """Return the share of the absolute weight on windows that the cue's box overlaps, and the
    share of windows that it overlaps.

    Args:
        attention: a row of a block's map.
        cue: x, y, width and height in pixels.
    """
    x, y, width, height = cue
    columns, rows = attention.grid.x.windows(), attention.grid.y.windows()
    in_x = (columns[:, 0] < x + width) & (columns[:, 1] > x)
    in_y = (rows[:, 0] < y + height) & (rows[:, 1] > y)
    inside = np.outer(in_y, in_x)
    weights = np.abs(attention.weights)
    total = weights.sum()
    return float(weights[inside].sum() / total) if total else 0.0, float(inside.mean())


def _metrics(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
