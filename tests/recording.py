"""A `Trainer` that writes down every iteration as it happens, for tests that end a run early."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import HookBase
from detectron2.utils import comm

from nl_detectron.engine import Trainer, argument_parser, main


class Recorder(HookBase):
    """Append an iteration's record to ``record<rank>.jsonl``, before any checkpoint is saved."""

    def __init__(self, output: str) -> None:
        self.path = os.path.join(output, f"record{comm.get_rank()}.jsonl")
        self.images: list[Any] = []

    def before_train(self) -> None:
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.trainer.model.register_forward_pre_hook(self._see)

    def after_step(self) -> None:
        optimizer = self.trainer.optimizer
        momentum = [state["momentum_buffer"] for state in optimizer.state.values()]
        history = self.trainer.storage.histories().get("total_loss")  # of the main process
        line = {
            "iteration": self.trainer.iter,
            "loss": history and history.latest(),
            "lr": optimizer.param_groups[0]["lr"],
            "momentum": sum(buffer.double().abs().sum().item() for buffer in momentum),
            "images": self.images.copy(),
            "threads": torch.get_num_threads(),
        }
        self.images.clear()
        # One system call: a kill leaves the whole line or nothing.
        os.write(self.file, (json.dumps(line) + "\n").encode())
        RecordingTrainer.at.get(self.trainer.iter, lambda trainer: None)(self.trainer)

    def after_train(self) -> None:
        os.close(self.file)

    def _see(self, model: torch.nn.Module, inputs: tuple[list[dict]]) -> None:
        if model.training:
            self.images += map(_identity, inputs[0])


def _identity(sample: dict[str, Any]) -> Any:
    """Return an image's id, or a clip's video and a digest of its pixels."""
    if "clips" not in sample:
        return sample["image_id"]
    return [sample["video_id"], zlib.crc32(sample["clips"].numpy().tobytes())]


class RecordingTrainer(Trainer):
    """Also calls ``at[iteration](trainer)`` in an iteration, before anything is saved."""

    at: ClassVar[dict[int, Callable[[Any], None]]] = {}

    def build_hooks(self) -> list[HookBase]:
        return [Recorder(self.cfg.OUTPUT_DIR), *super().build_hooks()]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return `train(folder, name, *opts, at, flags)`, which trains `tiny_run`'s model in this
    process into the subfolder `name`, and returns that."""

    def train(
        folder: Path,
        name: str,
        *opts: object,
        at: dict[int, Callable[[Any], None]] | None = None,
        flags: tuple[str, ...] = (),
    ) -> Path:
        data = str(folder)
        if data not in DatasetCatalog.list():
            register_coco_instances(data, {}, str(folder / "tiny.json"), str(folder / "images"))
        monkeypatch.setattr(RecordingTrainer, "at", at or {})
        fixed = ("DATASETS.TRAIN", f"({data!r},)", "DATASETS.TEST", f"({data!r},)")
        line = ("--config-file", folder / "tiny.yaml", *flags, *fixed, *opts)
        args = argument_parser().parse_args([*map(str, line), "OUTPUT_DIR", str(folder / name)])
        main(args, trainer=RecordingTrainer)
        return folder / name

    return train


def record(output: Path, rank: int = 0) -> list[dict]:
    """Return the records that `Recorder` wrote into `output`, in the order of time."""
    path = output / f"record{rank}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def same(a: Any, b: Any) -> bool:
    """Return True if two checkpoints, or parts of them, are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b
