"""From a command line to a checked config: what a user can get wrong is found here, in one line."""

import argparse
import os
import sys
from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from omegaconf import DictConfig, OmegaConf

from ..arguments import add_traceback
from ..config import check_lazy_run, load_config, load_lazy_config
from ..errors import UserError, nearest
from ..tasks import task_of


def argument_parser() -> argparse.ArgumentParser:
    """Return Detectron2's parser with examples of our own."""
    program = sys.argv[0]
    parser = default_argument_parser(
        epilog=f"""
examples:
  train on the data set that needs no download:
    {program} --config-file configs/quickstart.yaml
  other values, as KEY VALUE (for a .py config: key=value):
    {program} --config-file configs/quickstart.yaml SOLVER.BASE_LR 0.01 OUTPUT_DIR output/mine
  go on after an interruption:
    {program} --config-file configs/quickstart.yaml --resume
  evaluate a checkpoint:
    {program} --config-file configs/quickstart.yaml --eval-only MODEL.WEIGHTS model_final.pth
  8 GPUs; 2 processes on the CPU:
    {program} --config-file FILE --num-gpus 8
    {program} --config-file FILE --num-gpus 2 MODEL.DEVICE cpu
  2 machines with 8 GPUs each, by hand, by torchrun, by SLURM:
    {program} --config-file FILE --num-gpus 8 --num-machines 2 --machine-rank <0 or 1> \\
        --dist-url tcp://<first machine>:29500
    torchrun --nnodes 2 --nproc-per-node 8 --node-rank <0 or 1> --master-addr <first machine> \\
        {program} --config-file FILE
    srun --nodes 2 --ntasks-per-node 8 {program} --config-file FILE
"""
    )
    parser.description = "Train and evaluate a detector from a YAML or LazyConfig (.py) file."
    add_traceback(parser)
    for action in parser._actions:
        if action.dest == "config_file":
            action.help = "a .yaml or a LazyConfig .py file"
        elif action.dest == "resume":
            action.help = "go on from the last checkpoint in OUTPUT_DIR, if there is one"
        elif action.dest == "num_gpus":
            action.help = "processes per machine: GPUs, or CPU processes where there is no GPU"
    return parser


def prepare(args: argparse.Namespace) -> CfgNode | DictConfig:
    """Load and check the config that the command line asks for, before any process starts."""
    if str(args.config_file).endswith(".py"):
        lazy = load_lazy_config(args.config_file, args.opts)
        check_lazy_run(lazy, args.config_file, eval_only=args.eval_only)
        parts = ("test",) if args.eval_only else ("train", "test")
        names: list[str] = []
        for part in parts:
            found = OmegaConf.select(lazy, f"dataloader.{part}.dataset.names", default=())
            names += [found] if isinstance(found, str) else list(found)
        check_datasets(names)
        task_of(lazy).check(lazy)
        return lazy
    cfg = load_config(args.config_file, args.opts)
    cfg.freeze()
    check_datasets(cfg.DATASETS.TEST if args.eval_only else cfg.DATASETS.TRAIN + cfg.DATASETS.TEST)
    task_of(cfg).check(cfg)
    return cfg


def check_datasets(names: Iterable[str]) -> None:
    """Raise :class:`UserError` for the first data set that is not registered or not on disk."""
    known = list(DatasetCatalog.keys())
    for name in names:
        if name not in known:
            raise UserError(f"data set '{name}' is not registered.{nearest(name, known)}")
        metadata = MetadataCatalog.get(name)
        for path in (metadata.get("json_file"), metadata.get("image_root")):
            if path and "://" not in path and not os.path.exists(path):
                root = os.environ.get("DETECTRON2_DATASETS")
                where = f"is '{root}'" if root else "is not set, so ./datasets is used"
                raise UserError(
                    f"data set '{name}' is not there: no {os.path.abspath(path)}. "
                    f"DETECTRON2_DATASETS {where}; point it at the folder that holds the data "
                    "sets, or use nl_shapes_train and nl_shapes_val, which need no download"
                )
