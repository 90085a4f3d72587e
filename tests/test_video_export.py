"""Exported video networks and the model agree, for clips of sizes not seen before."""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import versions
from bad_videos import write_good
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument
from torch import Tensor, nn
from video_networks import build, clip, randomize, video_cfg

from nl_detectron import export
from nl_detectron.commands import export as export_command
from nl_detectron.data.video.probing import probe
from nl_detectron.data.video.sampling import scaled_size
from nl_detectron.layers import PAIRWISE_FORMS, NonLocalBlock
from nl_detectron.modeling import VideoClassifier
from nl_detectron.utils.errors import UserError

FORMATS = ["torchscript", pytest.param("onnx", marks=versions.free_sizes)]
NON_LOCAL = "MODEL.RESNETS.NON_LOCAL"
SMALL = (
    "MODEL.RESNETS.DEPTH",
    34,
    "MODEL.RESNETS.OUT_FEATURES",
    ["res2"],
    "INPUT.CROP.SIZE",
    [32, 32],
)
SMALL += (f"{NON_LOCAL}.AFTER_BLOCKS", [[0, 1, 2], [], [], []])
SMALL += ("MODEL.VIDEO_RESNET.STEM_TIME_STRIDE", 1)
OF_GROUPS = ("MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.OUT_FEATURES", ["res3"])
OF_GROUPS += (f"{NON_LOCAL}.AFTER_BLOCKS", [[], [0], [], []], "INPUT.CROP.ENABLED", False)
OF_GROUPS += (f"{NON_LOCAL}.GROUP_FRAMES", [0, 2, 0, 0], "INPUT.CLIP.FRAMES", 16)
OF_GROUPS += ("MODEL.VIDEO_RESNET.TEMPORAL", "i3d_3x3x3", "MODEL.VIDEO_RESNET.STEM_TIME_STRIDE", 2)


def classifier(*opts: Any) -> VideoClassifier:
    """A small one with random weights, and statistics of random clips: each block has an effect.

    By default it has three blocks in res2.
    """
    model = randomize(build(video_cfg(*SMALL, *opts)))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train().logits(clip(views=4, frames=16, size=(32, 32)))
    return model.eval()


def blocks(model: VideoClassifier) -> list[NonLocalBlock]:
    return [module for module in model.modules() if isinstance(module, NonLocalBlock)]


def scores(model: VideoClassifier, clips: Tensor) -> Tensor:
    with torch.no_grad():
        return model([{"clips": clips}])[0]["view_scores"]


def run(path: Path, clips: Tensor) -> Tensor:
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(["scores"], {"clips": clips.numpy()})[0])
    with torch.no_grad():
        return torch.jit.load(path)(clips)["scores"]


def export_classifier(model: VideoClassifier, folder: Path, file_format: str) -> Path:
    path = folder / f"classifier{export.SUFFIXES[file_format]}"
    checks = export.export_part(model, part="classifier", file_format=file_format, path=path)
    assert len({check.input for check in checks}) == 3
    assert all(check.passed for check in checks), checks
    return path


def assert_agrees(path: Path, model: VideoClassifier) -> None:
    """On sizes of which the export has seen none."""
    for frames, size, views in ((16, (32, 32), 1), (9, (40, 72), 2), (26, (64, 43), 3)):
        clips = clip(views=views, frames=frames, size=size)
        torch.testing.assert_close(run(path, clips), scores(model, clips), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("pairwise", "file_format"),
    [
        *((pairwise, "torchscript") for pairwise in PAIRWISE_FORMS),
        pytest.param("concatenation", "onnx", marks=versions.free_sizes),
    ],
)
def test_every_form_and_axes_for_clips_of_any_size(tmp_path, pairwise, file_format) -> None:
    """A block of each axes in one network: an export to ONNX takes seconds.

    All forms go to ONNX in test_layers_ecosystem.py.
    """
    model = classifier(f"{NON_LOCAL}.PAIRWISE", pairwise)
    for block, axes in zip(blocks(model), ("spacetime", "space", "time"), strict=True):
        block.axes = axes
    assert_agrees(export_classifier(model, tmp_path, file_format), model)


@pytest.mark.parametrize("file_format", FORMATS)
def test_i3d_with_groups_of_time_steps_and_without_a_crop(tmp_path, file_format) -> None:
    """Take any number of whole groups; refuse clips that are too small for the network."""
    model = classifier(*OF_GROUPS)
    assert blocks(model)[0].frames == 2
    path = export_classifier(model, tmp_path, file_format)
    for views, frames, size in ((1, 31, (24, 40)), (3, 15, (16, 23))):
        clips = clip(views=views, frames=frames, size=size)
        torch.testing.assert_close(run(path, clips), scores(model, clips), rtol=1e-4, atol=1e-6)
    # no whole group, nothing left of the frames, nothing left of their height
    for frames, size in ((24, (24, 40)), (3, (24, 40)), (16, (2, 40))):
        with pytest.raises((RuntimeError, InvalidArgument, Fail)):
            run(path, clip(frames=frames, size=size))


def test_the_file_refuses_frames_smaller_than_a_crop(tmp_path) -> None:
    """The model pools such a map as a whole, but in a file the window has one size."""
    model = classifier()
    path = export_classifier(model, tmp_path, "torchscript")
    assert run(path, clip(size=(32, 32))).shape == (1, 5)
    with pytest.raises(RuntimeError, match="out of range"):
        run(path, clip(size=(24, 48)))


@pytest.fixture
def command(tmp_path, monkeypatch) -> Callable[..., int]:
    """The script's command line for a video config and weights on disk."""
    cfg = video_cfg(*SMALL, "INPUT.MIN_SIZE_TEST", 40, "INPUT.CLIP.FRAMES", 9)
    torch.save({"model": classifier().state_dict()}, tmp_path / "w.pth")
    (tmp_path / "c.yaml").write_text(cfg.dump())

    def run(*more: Any, opts: Sequence[Any] = ()) -> int:
        line = ["export_model.py", "--config-file", tmp_path / "c.yaml", "--format", "torchscript"]
        line += ["--output", tmp_path / "out", *more]
        line += ["--opts", "MODEL.WEIGHTS", tmp_path / "w.pth", *opts]
        monkeypatch.setattr(sys, "argv", [str(word) for word in line])
        return export_command.main()

    return run


def test_the_script_checks_clips_of_videos(command, tmp_path, capsys) -> None:
    assert command() == 0
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {"classifier.ts", "classes.json"}
    assert "1 x 3 x 9 x 40 x 40" in capsys.readouterr().out
    write_good(tmp_path)
    assert command("--input", tmp_path / "a.mp4") == 0
    info = probe(tmp_path / "a.mp4")
    height, width = scaled_size(info.height, info.width, 40)
    assert f"1 x 3 x 9 x {height} x {width}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "opts", "named"),
    [
        (("--part", "detector"), (), "detector"),
        (("--input", "image.png"), (), "image.png"),
        (("--output", "file"), (), "file"),
        (("--output", "folder"), (), "classifier.ts"),  # a folder of the file's name
        ((), ("INPUT.MIN_SIZE_TEST", 24), "INPUT.MIN_SIZE_TEST"),  # smaller than a crop
    ],
)
def test_invalid_arguments_are_refused(
    command, tmp_path, monkeypatch, arguments, opts, named
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("image.png").write_bytes(b"no video")
    Path("file").touch()
    Path("folder", "classifier.ts").mkdir(parents=True)
    with pytest.raises(UserError, match=re.escape(named)):
        command(*arguments, opts=opts)
