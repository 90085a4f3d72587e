"""Bad videos: a line that names the file and the reason, and never another video in its place."""

import itertools
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from bad_videos import FRAMES, KINDS, Kind, noise, write_good
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from nl_detectron.config import load_config
from nl_detectron.data import register_videos
from nl_detectron.data.video import build as loading
from nl_detectron.data.video.info import VideoError
from nl_detectron.data.video.probing import probe
from nl_detectron.data.video.reading import read_frames
from nl_detectron.utils.errors import DataError

NUM_GOOD = 3


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_good(tmp_path_factory.mktemp("good"))


@pytest.fixture
def cfg(tmp_path: Path, good: Path) -> CfgNode:
    """A config with three good videos and, if a test makes it, ``bad`` and a suffix."""
    for i in range(NUM_GOOD):
        shutil.copy(good / "a.mp4", tmp_path / f"good{i}.mp4")
    opts = (
        *("MODEL.VIDEO_CLASSIFIER.NUM_CLASSES", 2, "DATASETS.TRAIN", ("dirty",)),
        *("INPUT.CLIP.FRAMES", FRAMES, "INPUT.CLIP.STRIDE", 1),  # whatever is bad is read
        *("INPUT.MIN_SIZE_TRAIN", (32,), "INPUT.MIN_SIZE_TEST", 32, "TEST.CLIPS", 1),
        *("TEST.CROPS", 1, "SOLVER.IMS_PER_BATCH", 1),
        *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.MAX_BAD_VIDEOS", 0.5),
    )
    return load_config("quickstart_video.yaml", opts)


def register(folder: Path, *bad: str) -> None:
    names = [f"good{i}.mp4" for i in range(NUM_GOOD)] + list(bad)
    (folder / "list.txt").write_text("".join(f"{name} 1\n" for name in names))
    register_videos("dirty", folder / "list.txt", folder, classes=2)


def trained(cfg: CfgNode) -> list[str]:
    """Return the videos of two epochs of training."""
    loader = loading.build_train_loader(cfg)
    return [v["video_id"] for batch in itertools.islice(loader, 2 * (NUM_GOOD + 1)) for v in batch]


def evaluated(cfg: CfgNode) -> list[str]:
    return [v["video_id"] for batch in loading.build_test_loader(cfg, "dirty") for v in batch]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damaged_video_is_refused_or_fully_read(tmp_path: Path, good: Path, kind: Kind) -> None:
    path = tmp_path / f"bad{kind.suffix}"
    kind.make(path, good)
    with nullcontext() if kind.is_usable else pytest.raises(VideoError, match=r"^[^\n]+\Z"):
        info = probe(path)
        read_frames(path, range(info.num_frames), info)


@pytest.fixture
def half_noise(cfg: CfgNode, tmp_path: Path, good: Path) -> Path:
    """A video that goes bad after probing, and whose file does not show it."""
    path = tmp_path / "bad.mp4"
    shutil.copy(good / "a.mp4", path)
    register(tmp_path, path.name)
    DatasetCatalog.get("dirty")
    state, content = path.stat(), bytearray(path.read_bytes())
    middle = slice(content.index(b"mdat") + 900, content.index(b"moov") - 4)
    content[middle] = noise(1, bytes(content[middle]))
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    return path


def test_bad_video_is_reported(cfg: CfgNode, half_noise: Path) -> None:
    cfg.DATALOADER.NUM_WORKERS = 1
    for run in (trained, evaluated):
        with pytest.raises(DataError) as caught:
            run(cfg)
        assert re.fullmatch(f".*{re.escape(str(half_noise))}.*", str(caught.value))  # one line


def test_unreadable_videos_are_skipped_up_to_limit(
    cfg: CfgNode, half_noise: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half_noise.write_bytes(b"")
    cfg.DATALOADER.SKIP_BAD_VIDEOS = True
    good = {f"good{i}.mp4" for i in range(NUM_GOOD)}
    assert set(trained(cfg)) == set(evaluated(cfg)) == good
    assert str(half_noise) in caplog.text
    cfg.DATALOADER.MAX_BAD_VIDEOS = 0.2  # of 4
    said = rf"^[^\n]*MAX_BAD_VIDEOS[^\n]*{re.escape(str(half_noise))}[^\n]*\Z"
    for run in (trained, evaluated):
        with pytest.raises(DataError, match=said):
            run(cfg)
