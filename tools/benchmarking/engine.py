"""A training step of our engine, next to one of Detectron2's own trainer."""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultTrainer
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from tabulate import tabulate

from nl_detectron import model_zoo
from nl_detectron.config import Config
from nl_detectron.data import make_shapes
from nl_detectron.engine import Trainer

from .measure import alternate, ratio

BLOCK = 10  # iterations of one trainer between those of the other
BLOCKS = 10
TRAINERS: dict[str, type[DefaultTrainer]] = {"ours": Trainer, "theirs": DefaultTrainer}


def stock_config(images: Path, name: str) -> Config:
    """Return the config of one of Detectron2's own Faster R-CNNs with the quickstart's sizes."""
    cfg = model_zoo.get_config("quickstart.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.NON_LOCAL.AFTER_BLOCKS = [[], [], [], []]
    cfg.MODEL.ROI_KEYPOINT_HEAD.NON_LOCAL.EVERY_CONVS = 0
    cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = False
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (name,), ()
    # Iterations of a long run, without a checkpoint or an evaluation.
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.CHECKPOINT_PERIOD = 100_000
    cfg.OUTPUT_DIR = str(images / "output")
    Path(cfg.OUTPUT_DIR).mkdir()
    return cfg


def start(trainer: DefaultTrainer) -> None:
    trainer.storage = EventStorage(0)
    trainer.iter = 0
    with trainer.storage:
        trainer.before_train()


def seconds_of_block(trainer: DefaultTrainer) -> float:
    """Measure CPU seconds of BLOCK iterations, as `TrainerBase.train` runs them."""
    seed_all_rng(trainer.iter)
    begun = time.process_time()
    with trainer.storage:
        for _ in range(BLOCK):
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
            trainer.iter += 1
    return time.process_time() - begun


def losses(trainer: DefaultTrainer) -> dict[str, list[tuple[float, int]]]:
    """Return every logged loss of every iteration."""
    histories = trainer.storage.histories()
    return {name: h.values() for name, h in histories.items() if "loss" in name}


def engine_table(blocks: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        name = f"benchmark_{Path(folder).name}"
        shapes = make_shapes(Path(folder), num_train=32, num_val=1, progress=False)
        annotations = shapes / "annotations" / "instances_train.json"
        register_coco_instances(name, {}, str(annotations), str(shapes / "train"))
        cfg = stock_config(Path(folder), name)
        trainers = {}
        for side, trainer in TRAINERS.items():
            seed_all_rng(0)
            trainers[side] = trainer(cfg)
            start(trainers[side])
        steps = {side: partial(seconds_of_block, trainer) for side, trainer in trainers.items()}
        times = alternate(steps, blocks)
        same = losses(trainers["ours"]) == losses(trainers["theirs"])
    step = {side: statistics.median(values) / BLOCK for side, values in times.items()}
    more = ratio(times, "ours", "theirs")
    return (
        "### A training step: our engine and Detectron2's trainer\n\n"
        + tabulate(
            [["Faster R-CNN R18-FPN, 4 images of 128 pixels", blocks * BLOCK,
              f"{1e3 * step['theirs']:.1f}", f"{1e3 * step['ours']:.1f}",
              f"{100 * (more - 1):+.1f} %", "the same, bit for bit" if same else "DIFFERENT"]],
            ["model", "iterations of each", "Detectron2, ms", "ours, ms", "time", "losses"],
            tablefmt="github", disable_numparse=True,
        )
    )  # fmt: skip
