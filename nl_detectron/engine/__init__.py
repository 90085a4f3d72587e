"""Runs (setup, processes, training loop), and predictions of a trained model."""

from typing import Any

from .defaults import argument_parser, main, prepare, run_config
from .launch import Ranks, launch, ranks_from_environment
from .predictor import Predictor
from .train_loop import StepTrainer, Trainer

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
        from .video_predictor import VideoPredictor  # needs PyAV, unlike images

        return VideoPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
