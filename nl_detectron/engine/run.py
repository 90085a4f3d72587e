"""What ``train_net.py`` does, in every process of a run."""

import argparse
import json
import logging
import os
from typing import Any

import torch
from detectron2.engine import default_setup
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..checkpoint import METADATA, Checkpointer
from ..config import Config, RunSettings
from ..tasks import task_of
from .defaults import prepare
from .launch import launch
from .run_errors import translate_errors
from .trainer import Trainer, check_test_classes, uses_tta, verify

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace, trainer: type[Trainer] = Trainer) -> None:
    """Run what the command line (see `argument_parser`) asks for, in all its processes.

    Args:
        args: the parsed command line.
        trainer: replaces `Trainer`, in training and evaluation. Define a class of your own at the
            top of a module, so that all processes find it.
    """
    cfg = prepare(args)
    launch(
        _main_of_process,
        num_processes=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        device=RunSettings.of(cfg).device,
        args=(args, trainer),
    )


def _main_of_process(args: argparse.Namespace, trainer: type[Trainer]) -> None:
    # The config is read again, as functions that a LazyConfig file defines cannot be pickled.
    cfg = prepare(args)
    with translate_errors(RunSettings.of(cfg).output_dir, resume=args.resume):
        try:
            run_config(cfg, args, trainer)
        finally:
            if comm.is_main_process():
                task_of(cfg).report(cfg)


def run_config(
    cfg: Config, args: argparse.Namespace, trainer: type[Trainer] = Trainer
) -> dict[str, Any]:
    """Train, or only evaluate, the model of a config, in one process of a run.

    Args:
        cfg: a YAML config, or a LazyConfig with ``model``, ``optimizer``, ``lr_multiplier``,
            ``dataloader`` and ``train`` as Detectron2's own have them.
        args: the command line; `eval_only` and `resume` count.
        trainer: the class that trains and evaluates.

    Returns:
        the results of the last evaluation; in other processes than the main one there are none.
    """
    settings = RunSettings.of(cfg)
    _set_up(cfg, args, settings)
    if not args.eval_only:
        run = trainer(cfg)
        run.resume_or_load(resume=args.resume)
        return run.train()
    model = trainer.build_model(cfg)
    checkpointer = Checkpointer(model, save_dir=settings.output_dir)
    extra = checkpointer.resume_or_load(settings.weights, resume=args.resume)
    check_test_classes(cfg, extra.get(METADATA, {}))
    results = trainer.test(cfg, model)
    if uses_tta(cfg):
        results = {**results, **trainer.test_with_TTA(cfg, model)}
    _write_results(results, extra.get("iteration"), settings.output_dir)
    verify(cfg, results)
    return results


def _set_up(cfg: Config, args: argparse.Namespace, settings: RunSettings) -> None:
    setup_logger(settings.output_dir, distributed_rank=comm.get_rank(), name="nl_detectron")
    default_setup(cfg, args)
    if comm.is_main_process():
        _remove_incomplete_line(os.path.join(settings.output_dir, "metrics.json"))
        if not args.resume:
            task_of(cfg).start(cfg)
    if torch.device(settings.device).type == "cpu" and not torch.cuda.is_available():
        logger.info("No GPU is visible to torch: running on the CPU")


def _remove_incomplete_line(path: str) -> None:
    """Remove a last line that a killed process has not finished; the next would join it."""
    if not os.path.isfile(path):
        return
    with open(path, "rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _write_results(results: dict[str, Any], iteration: int | None, output_dir: str) -> None:
    """Add the results of an evaluation without training to ``metrics.json``."""
    if comm.is_main_process():
        line = flatten_results_dict(results)
        if iteration is not None:
            line["iteration"] = iteration
        with open(os.path.join(output_dir, "metrics.json"), "a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
