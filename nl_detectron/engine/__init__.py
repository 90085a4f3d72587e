"""Everything a run needs besides the model: set-up, processes, training loop, evaluation."""

from typing import Any

from .accumulate import StepTrainer
from .defaults import argument_parser, prepare
from .launch import Ranks, launch, ranks_from_environment
from .predictor import Predictor
from .run import main, run_config
from .trainer import Trainer

__all__ = [
    "Predictor",
    "Ranks",
    "StepTrainer",
    "Trainer",
    "VideoPredictor",
    "argument_parser",
    "launch",
    "main",
    "prepare",
    "ranks_from_environment",
    "run_config",
]


def __getattr__(name: str) -> Any:
    if name == "VideoPredictor":
        from .video_predictor import VideoPredictor  # needs PyAV, which images do not

        return VideoPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
