"""Bad videos: a line that names the file and the reason, and never another video in its place.

The fuzz test has a fixed budget; ``NL_DETECTRON_FUZZ_EXAMPLES=20000 python -m pytest
tests/test_video_bad.py -k fuzz`` looks further.
"""

import itertools
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bad_videos import FRAMES, KINDS, Kind, noise, write_good
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from dirty import fuzz
from hypothesis import given
from hypothesis import strategies as st

import nl_detectron
from nl_detectron.data import register_videos
from nl_detectron.data.video import build as loading
from nl_detectron.data.video import decoding
from nl_detectron.data.video.info import VideoError
from nl_detectron.data.video.probing import probe
from nl_detectron.data.video.reading import read_frames
from nl_detectron.data.video.skipping import log_skipped, read_skipped, skipped_file
from nl_detectron.utils.errors import DataError

NUM_GOOD = 3
BATCHES = 2 * (NUM_GOOD + 1)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    write_good(folder)
    return folder


@pytest.fixture
def cfg(tmp_path: Path, good: Path) -> Iterator[CfgNode]:
    """A config with three good videos and, where a test makes it, ``bad`` and a suffix."""
    for i in range(NUM_GOOD):
        shutil.copy(good / "a.mp4", tmp_path / f"good{i}.mp4")
    cfg = get_cfg()
    nl_detectron.add_nonlocal_config(cfg)
    cfg.MODEL.VIDEO_CLASSIFIER.NUM_CLASSES = 2
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("dirty",)
    cfg.INPUT.CLIP.FRAMES, cfg.INPUT.CLIP.STRIDE = FRAMES, 1  # whatever is bad is read
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (32,), 32
    cfg.TEST.CLIPS = cfg.TEST.CROPS = 1
    cfg.SOLVER.IMS_PER_BATCH = 1
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.MAX_BAD_VIDEOS = 0.5
    cfg.OUTPUT_DIR = str(tmp_path / "output")
    yield cfg
    DatasetCatalog.remove("dirty")
    MetadataCatalog.pop("dirty")


def register(folder: Path, *bad: str) -> None:
    names = [f"good{i}.mp4" for i in range(NUM_GOOD)] + list(bad)
    (folder / "list.txt").write_text("".join(f"{name} 1\n" for name in names))
    register_videos("dirty", folder / "list.txt", folder, classes=2)


def trained(cfg: CfgNode, batches: int = BATCHES) -> list[str]:
    """Return the videos of two epochs of training."""
    np.random.seed(5)  # noqa: NPY002 (what Detectron2 draws the sampler's seed from)
    loader = loading.build_train_loader(cfg)
    return [v["video_id"] for batch in itertools.islice(loader, batches) for v in batch]


def evaluated(cfg: CfgNode) -> list[str]:
    return [v["video_id"] for batch in loading.build_test_loader(cfg, "dirty") for v in batch]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_each_kind_is_named_or_used(cfg: CfgNode, tmp_path: Path, good: Path, kind: Kind) -> None:
    name = f"bad{kind.suffix}"
    kind.make(tmp_path / name, good)
    register(tmp_path, name)
    if kind.is_usable:
        assert sorted(trained(cfg)) == sorted([*(f"good{i}.mp4" for i in range(3)), name] * 2)
        assert sorted(evaluated(cfg)) == sorted([*(f"good{i}.mp4" for i in range(3)), name])
        return
    for run in (trained, evaluated):
        with pytest.raises(DataError) as caught:
            run(cfg)
        said = str(caught.value)
        assert f"{tmp_path}/{name}" in said
        assert "\n" not in said
    cfg.DATALOADER.SKIP_BAD_VIDEOS = True
    assert set(trained(cfg)) == set(evaluated(cfg)) == {f"good{i}.mp4" for i in range(3)}
    assert len(evaluated(cfg)) == 3
    [(dataset, path, _)] = read_skipped(skipped_file(cfg.OUTPUT_DIR))
    assert (dataset, path) == ("dirty", str(tmp_path / name))


def test_there_are_at_least_40_kinds() -> None:
    assert len({kind.name for kind in KINDS if not kind.is_usable}) >= 40


@pytest.mark.parametrize("name", ["a\0b.mp4", "x" * 300 + ".mp4", "good0.mp4/a.mp4"])
def test_paths_that_can_lead_nowhere(cfg: CfgNode, tmp_path: Path, name: str) -> None:
    register(tmp_path, name)
    with pytest.raises(DataError, match=r"^video '.*': "):
        trained(cfg)


def test_frames_of_too_many_pixels(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(VideoError, match="64x48"):
        probe(good / "a.webm")


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


def test_an_error_in_a_loader_worker_is_one_line_too(cfg: CfgNode, half_noise: Path) -> None:
    cfg.DATALOADER.NUM_WORKERS = 1
    with pytest.raises(DataError) as caught:
        trained(cfg)
    assert str(half_noise) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_video_in_whose_place_another_comes_is_counted_once_and_listed(
    cfg: CfgNode, half_noise: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.DATALOADER.SKIP_BAD_VIDEOS = True
    whole = trained(cfg, 12)
    assert set(whole) == {f"good{i}.mp4" for i in range(3)}
    cfg.DATALOADER.NUM_WORKERS = 2
    assert trained(cfg, 12) == whole  # which one comes follows from the place in the stream
    assert evaluated(cfg) == [f"good{i}.mp4" for i in range(3)]
    [(_, path, reason)] = read_skipped(skipped_file(cfg.OUTPUT_DIR))
    assert path.endswith("bad.mp4")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        log_skipped(cfg.OUTPUT_DIR)
    assert "1 videos were left out" in caplog.text
    assert f"bad.mp4 ({reason})" in caplog.text


@pytest.mark.parametrize("at_its_turn", [False, True])
def test_more_than_the_allowed_share_ends_the_run(
    cfg: CfgNode, half_noise: Path, at_its_turn: bool
) -> None:
    if not at_its_turn:
        half_noise.write_bytes(b"")
    cfg.DATALOADER.SKIP_BAD_VIDEOS = True
    cfg.DATALOADER.MAX_BAD_VIDEOS = 0.2  # of 4
    for run in (trained, evaluated):
        with pytest.raises(DataError) as caught:
            run(cfg)
        said = str(caught.value)
        assert str(half_noise) in said
        assert "DATALOADER.MAX_BAD_VIDEOS" in said
        assert "\n" not in said


def test_without_a_bad_video_nothing_is_listed(
    cfg: CfgNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    register(tmp_path)
    cfg.DATALOADER.SKIP_BAD_VIDEOS = True
    assert len(evaluated(cfg)) == NUM_GOOD
    assert not skipped_file(cfg.OUTPUT_DIR).exists()
    caplog.clear()  # what the loader says
    log_skipped(cfg.OUTPUT_DIR)
    assert caplog.text == ""


# Fuzzing


@pytest.fixture(scope="module")
def containers(good: Path) -> dict[str, bytes]:
    return {p.suffix: p.read_bytes() for p in sorted(good.iterdir()) if p.name != "fast.mp4"}


CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["byte", "cut", "drop", "twice"]),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=6,
)


def changed(content: bytes, changes: list[tuple[float, str, int]]) -> bytes:
    new = bytearray(content)
    for share, what, value in changes:
        place = int(share * len(new))
        if what == "byte" and new:
            new[place] = value
        elif what == "cut":
            del new[max(place, 1) :]
        elif what == "drop":
            del new[place : place + value]
        else:
            new[place:place] = new[place : place + value]
    return bytes(new)


@fuzz
@given(suffix=st.sampled_from([".mp4", ".mkv", ".webm", ".avi", ".ts"]), changes=CHANGES)
def test_fuzzed_containers_are_read_or_refused(
    containers: dict[str, bytes], good: Path, suffix: str, changes: list
) -> None:
    """Frames of the size that was asked for, or a VideoError; nothing else."""
    path = good.parent / f"fuzzed{suffix}"
    path.write_bytes(changed(containers[suffix], changes))
    try:
        info = probe(path)
        frames = read_frames(path, [0, info.num_frames - 1], info, size=(12, 16))
    except VideoError:
        return
    assert frames.shape == (2, 12, 16, 3)
