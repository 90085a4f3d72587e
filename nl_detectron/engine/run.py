"""What ``train_net.py`` does, in every process of a run."""

import argparse
import json
import logging
import os
from typing import Any

import torch
from detectron2.config import CfgNode, instantiate
from detectron2.engine import default_setup, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format, verify_results
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from ..checkpoint import Checkpointer
from ..tasks import task_of
from .accumulate import StepTrainer, to_distributed
from .faults import CheckWeights, telling_faults
from .launch import launch
from .residual_norm import ResidualNormHook
from .resume import ExactResume
from .setup import prepare
from .stop import StopOnTerm
from .trainer import Trainer

logger = logging.getLogger(__name__)


def main(args: argparse.Namespace) -> None:
    """Run what the command line (see `argument_parser`) asks for, in all its processes."""
    cfg = prepare(args)
    launch(
        _main_of_process,
        num_processes=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        device=cfg.MODEL.DEVICE if isinstance(cfg, CfgNode) else cfg.train.device,
        args=(args,),
    )


def _main_of_process(args: argparse.Namespace) -> None:
    # The config is read again, as functions that a LazyConfig file defines cannot be pickled.
    cfg = prepare(args)
    is_yaml = isinstance(cfg, CfgNode)
    with telling_faults(cfg.OUTPUT_DIR if is_yaml else cfg.train.output_dir, resume=args.resume):
        (run_yaml if is_yaml else run_lazy)(cfg, args)


def run_yaml(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    """Train, or only evaluate, a model of a YAML config; return the last evaluation's results."""
    _set_up(cfg, args, output_dir=cfg.OUTPUT_DIR, device=cfg.MODEL.DEVICE)
    if args.eval_only:
        model = Trainer.build_model(cfg)
        checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR)
        extra = checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        results = Trainer.test(cfg, model)
        _write_results(results, extra.get("iteration"), cfg.OUTPUT_DIR)
        if comm.is_main_process():
            verify_results(cfg, results)
        return results
    trainer = Trainer(cfg)
    trainer.start_iter = _resume_or_load(
        trainer, trainer.checkpointer, cfg.MODEL.WEIGHTS, resume=args.resume
    )
    return trainer.train() or {}


def run_lazy(cfg: DictConfig, args: argparse.Namespace) -> dict[str, Any]:
    """The same for a LazyConfig with ``model``, ``optimizer``, ``lr_multiplier``, ``dataloader``
    and ``train``, as Detectron2's own have them, and ``train.accumulate_steps``."""
    train = cfg.train
    _set_up(cfg, args, output_dir=train.output_dir, device=train.device)
    model = instantiate(cfg.model).to(train.device)
    logger.info("Model:\n%s", model)
    if args.eval_only:
        checkpointer = Checkpointer(model, save_dir=train.output_dir)
        extra = checkpointer.resume_or_load(train.init_checkpoint, resume=args.resume)
        found = _evaluate_lazy(cfg, model)
        _write_results(found, extra.get("iteration"), train.output_dir)
        return found
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    data_loader = task_of(cfg).build_train_loader(cfg)
    # fp16_compression is Detectron2's option, not torch's.
    ddp = {k: v for k, v in train.get("ddp", {}).items() if k != "fp16_compression"}
    model = to_distributed(model, **ddp)
    trainer = StepTrainer(
        model=model,
        data_loader=data_loader,
        optimizer=optimizer,
        accumulate_steps=train.accumulate_steps,
        amp=train.amp.enabled,
    )
    checkpointer = Checkpointer(model, train.output_dir, trainer=trainer)
    results: dict[str, Any] = {}

    def evaluate() -> dict[str, Any]:
        results.clear()
        results.update(_evaluate_lazy(cfg, model))
        return results

    trainer.register_hooks(
        [
            ResidualNormHook(model, period=train.log_period) if comm.is_main_process() else None,
            CheckWeights(model, train.checkpointer.period),
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **train.checkpointer)
            if comm.is_main_process()
            else None,
            StopOnTerm(checkpointer, data_loader),
            hooks.EvalHook(train.eval_period, evaluate),
            hooks.PeriodicWriter(
                default_writers(train.output_dir, train.max_iter), period=train.log_period
            )
            if comm.is_main_process()
            else None,
            ExactResume(data_loader, accumulate_steps=train.accumulate_steps),
        ]
    )
    start = _resume_or_load(trainer, checkpointer, train.init_checkpoint, resume=args.resume)
    trainer.train(start, train.max_iter)
    return results


def _set_up(
    cfg: CfgNode | DictConfig, args: argparse.Namespace, *, output_dir: str, device: str
) -> None:
    setup_logger(output_dir, distributed_rank=comm.get_rank(), name="nl_detectron")
    default_setup(cfg, args)
    if comm.is_main_process():
        _cut_half_line(os.path.join(output_dir, "metrics.json"))
    if torch.device(device).type == "cpu" and not torch.cuda.is_available():
        logger.info("No GPU is visible to torch: running on the CPU")


def _cut_half_line(path: str) -> None:
    """Remove what a killed run has left of its last line, or the next one would be spoilt too."""
    if not os.path.isfile(path):
        return
    with open(path, "rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _resume_or_load(trainer: Any, checkpointer: Checkpointer, weights: str, *, resume: bool) -> int:
    """Load, and return the iteration to start from."""
    checkpointer.resume_or_load(weights, resume=resume)
    if resume and checkpointer.has_checkpoint():
        # A checkpoint holds the number of the iteration that was just finished.
        return trainer.iter + 1
    return 0


def _evaluate_lazy(cfg: DictConfig, model: torch.nn.Module) -> dict[str, Any]:
    task = task_of(cfg)
    evaluator = task.build_evaluator(cfg, "")
    results = inference_on_dataset(model, task.build_test_loader(cfg, ""), evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results


def _write_results(results: dict[str, Any], iteration: int | None, output_dir: str) -> None:
    """Add the results of an evaluation without training to ``metrics.json``."""
    if comm.is_main_process():
        line = flatten_results_dict(results)
        if iteration is not None:
            line["iteration"] = iteration
        with open(os.path.join(output_dir, "metrics.json"), "a", encoding="utf-8") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
