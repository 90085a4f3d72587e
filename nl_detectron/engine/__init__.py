"""Everything a run needs besides the model: set-up, processes, training loop, evaluation."""

from .accumulate import StepTrainer
from .evaluation import build_evaluator
from .launch import Ranks, launch, ranks_from_environment
from .lazy_config import load_lazy_config
from .run import main, run_lazy, run_yaml
from .setup import argument_parser, check_datasets, prepare
from .trainer import Trainer
from .yaml_config import load_config

__all__ = [
    "Ranks",
    "StepTrainer",
    "Trainer",
    "argument_parser",
    "build_evaluator",
    "check_datasets",
    "launch",
    "load_config",
    "load_lazy_config",
    "main",
    "prepare",
    "ranks_from_environment",
    "run_lazy",
    "run_yaml",
]
