"""From a command line to a checked config: a user's mistakes are errors of one line."""

import argparse
import sys

from detectron2.engine import default_argument_parser

from ..config import Config, RunSettings, check_lazy_run, load_config, load_lazy_config
from ..data import check_datasets
from ..tasks import task_of
from ..utils.arguments import add_traceback
from .trainer import check_tta


def argument_parser() -> argparse.ArgumentParser:
    """Return Detectron2's parser with examples of our own."""
    program = sys.argv[0]
    parser = default_argument_parser(
        epilog=f"""
examples:
  train on the data set that needs no download:
    {program} --config-file quickstart.yaml
  other values, as KEY VALUE (for a .py config: key=value):
    {program} --config-file quickstart.yaml SOLVER.BASE_LR 0.01 OUTPUT_DIR output/mine
  go on after an interruption:
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
        {program} --config-file FILE
    srun --kill-on-bad-exit --nodes 2 --ntasks-per-node 8 {program} --config-file FILE
"""
    )
    parser.description = "Train and evaluate a model from a YAML or LazyConfig (.py) file."
    add_traceback(parser)
    for action in parser._actions:
        if action.dest == "config_file":
            action.help = "a .yaml or a LazyConfig .py file"
        elif action.dest == "resume":
            action.help = "go on from the last checkpoint in OUTPUT_DIR, if there is one"
        elif action.dest == "num_gpus":
            action.help = "processes per machine: GPUs, or CPU processes where there is no GPU"
    return parser


def prepare(args: argparse.Namespace) -> Config:
    """Load and check the config that the command line asks for, before any process starts."""
    if str(args.config_file).endswith(".py"):
        cfg = load_lazy_config(args.config_file, args.opts)
        check_lazy_run(cfg, args.config_file, eval_only=args.eval_only)
    else:
        cfg = load_config(args.config_file, args.opts)
        cfg.freeze()
    settings = RunSettings.of(cfg)
    check_datasets(() if args.eval_only else settings.train_datasets)
    check_datasets(settings.test_datasets)
    check_tta(cfg)
    task_of(cfg).check(cfg)
    return cfg
