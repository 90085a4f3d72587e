"""The demo over many images: it keeps no file open and its memory does not grow."""

import argparse
import gc
from pathlib import Path

import psutil
import pytest
import tiny_run
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from nl_detectron.commands import demo
from nl_detectron.config import load_config
from nl_detectron.engine.predictor import Predictor
from nl_detectron.utils.errors import UserError

ROUNDS = 10


def run_rounds(folder: Path, count: int) -> tuple[list[int], list[float]]:
    """Run the demo in rounds; return open files and resident MiB after each but the first.

    Every ninth file is no image, since a handle is lost most easily where something fails.
    """
    tiny_run.write_run(folder, heads=True)
    torch.manual_seed(3)
    DetectionCheckpointer(build_model(load_config(folder / "tiny.yaml")), str(folder)).save("w")
    predictor = Predictor(folder / "tiny.yaml", weights=folder / "w.pth", confidence_threshold=0)

    images = sorted((folder / "images").iterdir())
    bad = folder / "images" / "half.png"
    bad.write_bytes(images[0].read_bytes()[:99])
    files = ([*images, bad] * count)[: count // ROUNDS]
    drawn = folder / "drawn"
    drawn.mkdir()
    targets = {file: drawn / file.name for file in files}
    arguments = argparse.Namespace(input=[], output=str(drawn), json=None, batch_size=2)
    process, open_files, memory = psutil.Process(), [], []
    for _ in range(ROUNDS):
        with pytest.raises(UserError, match=r"half\.png"):
            demo.detect_in_images(predictor, dict.fromkeys(files, 0), targets, arguments, False)
        gc.collect()
        open_files.append(process.num_fds())
        memory.append(process.memory_info().rss / 2**20)
    assert len(list((folder / "drawn").iterdir())) == len(images)
    return open_files[1:], memory[1:]


def test_a_hundred_images_leave_no_file_open(tmp_path: Path) -> None:
    open_files, memory = run_rounds(tmp_path, 100)
    assert len(set(open_files)) == 1
    assert memory[-1] - memory[0] < 30
