"""Everything a run needs besides the model: set-up, processes, training loop, evaluation."""

from .accumulate import StepTrainer
from .launch import Ranks, launch, ranks_from_environment
from .run import main, run_lazy, run_yaml
from .setup import argument_parser, check_datasets, prepare
from .trainer import Trainer

__all__ = [
    "Ranks",
    "StepTrainer",
    "Trainer",
    "argument_parser",
    "check_datasets",
    "launch",
    "main",
    "prepare",
    "ranks_from_environment",
    "run_lazy",
    "run_yaml",
]
