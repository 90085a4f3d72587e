"""Everything a run needs besides the model: set-up, processes, training loop, evaluation."""

from ..data import check_datasets
from .accumulate import StepTrainer
from .launch import Ranks, launch, ranks_from_environment
from .run import main, run_config
from .setup import argument_parser, prepare
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
    "run_config",
]
