"""Command line and setup of a run; a user's mistakes are errors of one line."""

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..checkpoint import METADATA, Checkpointer
from ..config import (
    Config,
    check_clips,
    check_lazy_run,
    dataset_names,
    is_video,
    load_any_config,
    setting,
)
from ..data import check_datasets, register_datasets
from ..data.build import check_metadata
from ..data.validation.run import Run
from ..utils.arguments import add_traceback
from ..utils.errors import UserError
from .launch import launch
from .run_errors import translate_errors
from .train_loop import Trainer, check_test_classes, verify

logger = logging.getLogger(__name__)

# Pixels of a training that takes over a day on a CPU: one thread of an AMD EPYC took 14 s for a
# step of Mask R-CNN R50-FPN with an image of 10^6.
_PIXELS_OF_DAYS = 1e10


def argument_parser() -> argparse.ArgumentParser:
    """Return Detectron2's parser with this package's examples."""
    program = sys.argv[0]
    # torchrun starts scripts and modules, not commands.
    launched = program.replace("nl-detectron", "-m nl_detectron")
    parser = default_argument_parser(
        epilog=f"""
examples:
  train on the embedded dataset, without a download:
    {program} --config-file quickstart.yaml
  other values, as KEY VALUE (for a .py config: key=value):
    {program} --config-file quickstart.yaml SOLVER.BASE_LR 0.01 OUTPUT_DIR output/mine
  continue after an interruption:
    {program} --config-file quickstart.yaml --resume
  evaluate a checkpoint:
    {program} --config-file quickstart.yaml --eval-only MODEL.WEIGHTS model_final.pth
  8 GPUs; 2 processes on the CPU:
    {program} --config-file FILE --num-gpus 8
    {program} --config-file FILE --num-gpus 2 MODEL.DEVICE cpu
  2 machines with 8 GPUs each, by hand, by torchrun, by SLURM:
    {program} --config-file FILE --num-gpus 8 --num-machines 2 --machine-rank <0 or 1> \\
        --dist-url tcp://<first machine>:29500
    torchrun --nnodes 2 --nproc-per-node 8 --node-rank <0 or 1> --master-addr <first machine> \\
        {launched} --config-file FILE
    srun --kill-on-bad-exit --nodes 2 --ntasks-per-node 8 {program} --config-file FILE
"""
    )
    parser.description = "Train and evaluate a model from a YAML or LazyConfig (.py) file."
    add_traceback(parser)
    return parser


def prepare(args: argparse.Namespace) -> Config:
    """Load and check the config of the command line, before any process starts."""
    cfg = load_any_config(args.config_file, args.opts)
    if isinstance(cfg, CfgNode):
        cfg.freeze()
        register_datasets(cfg)
    else:
        check_lazy_run(cfg, args.config_file, eval_only=args.eval_only)
    check_datasets(() if args.eval_only else dataset_names(cfg, "train"))
    check_datasets(dataset_names(cfg, "test"))
    if not is_video(cfg):
        check_metadata(Run.of(cfg))
    elif isinstance(cfg, CfgNode):
        check_clips(cfg)
    else:
        raise UserError(f"expected a YAML config for videos, got {args.config_file}")
    return cfg


def main(args: argparse.Namespace, trainer: type[Trainer] = Trainer) -> None:
    """Train or evaluate in all processes, by the command line of `argument_parser`.

    Args:
        args: the parsed command line.
        trainer: replaces `Trainer`, in training and evaluation. Define a custom class at the top
            of a module, so that all processes find it.
    """
    run = _Run(args, trainer, prepare(args))
    launch(
        run,
        num_processes=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        device=setting(run.cfg, "MODEL.DEVICE"),
    )


@dataclass
class _Run:
    """Function that each process of a run calls."""

    args: argparse.Namespace
    trainer: type[Trainer]
    cfg: Config | None

    def __getstate__(self) -> dict[str, Any]:
        # A new process also has to register the datasets, and a LazyConfig cannot be pickled.
        return {**self.__dict__, "cfg": None}

    def __call__(self) -> None:
        cfg, args = self.cfg or prepare(self.args), self.args
        with translate_errors(setting(cfg, "OUTPUT_DIR")):
            run_config(cfg, args, self.trainer)


def run_config(
    cfg: Config, args: argparse.Namespace, trainer: type[Trainer] = Trainer
) -> dict[str, Any]:
    """Train, or only evaluate, the model of a config, in one process of a run.

    Args:
        cfg: a YAML config, or a LazyConfig with Detectron2's ``model``, ``optimizer``,
            ``lr_multiplier``, ``dataloader`` and ``train``.
        args: the command line, of which `eval_only` and `resume` are used.
        trainer: the class that trains and evaluates.

    Returns:
        The results of the last evaluation; empty in other processes than the main one.
    """
    output_dir = setting(cfg, "OUTPUT_DIR")
    setup_logger(output_dir, distributed_rank=comm.get_rank(), name="nl_detectron")
    default_setup(cfg, args)
    if setting(cfg, "MODEL.DEVICE") == "cpu" and not torch.cuda.is_available():
        logger.info("torch finds no GPU; running on the CPU")
    if comm.is_main_process():
        _remove_incomplete_line(os.path.join(output_dir, "metrics.json"))
    if not args.eval_only:
        if isinstance(cfg, CfgNode) and cfg.MODEL.DEVICE == "cpu":
            advise_a_trial(cfg)
        run = trainer(cfg)
        run.resume_or_load(resume=args.resume)
        return run.train()
    model = trainer.build_model(cfg)
    checkpointer = Checkpointer(model, save_dir=output_dir)
    extra = checkpointer.resume_or_load(setting(cfg, "MODEL.WEIGHTS"), resume=args.resume)
    check_test_classes(cfg, extra.get(METADATA, {}))
    results = trainer.test_with_TTA(cfg, model)
    _write_results(results, extra.get("iteration"), output_dir)
    verify(cfg, results)
    return results


def advise_a_trial(cfg: CfgNode) -> None:
    """Log the keys to lower if a training can take days on a CPU."""
    solver, frames = cfg.SOLVER, cfg.INPUT.CLIP.FRAMES if is_video(cfg) else 1
    inputs = solver.MAX_ITER * solver.IMS_PER_BATCH * solver.ACCUMULATE_STEPS
    if inputs * frames * max(cfg.INPUT.MIN_SIZE_TRAIN) ** 2 < _PIXELS_OF_DAYS:
        return
    sizes = 'INPUT.MIN_SIZE_TRAIN "(240,)" INPUT.MIN_SIZE_TEST 240'
    if is_video(cfg):
        sizes = 'INPUT.CLIP.FRAMES 4 INPUT.MIN_SIZE_TRAIN "(128,128)" INPUT.CROP.SIZE "[112,112]"'
    logger.warning(
        "%s iterations of %s inputs can take days on a CPU. For a trial, add SOLVER.MAX_ITER 20 "
        'SOLVER.STEPS "()" SOLVER.IMS_PER_BATCH 2 %s, or start from quickstart.yaml or '
        "quickstart_video.yaml, which are small",
        f"{solver.MAX_ITER:,}",
        solver.IMS_PER_BATCH * solver.ACCUMULATE_STEPS,
        sizes,
    )


def _remove_incomplete_line(path: str) -> None:
    """Remove an incomplete last line of a killed process, or the next line would join it."""
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
