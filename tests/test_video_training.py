"""Videos through the whole engine: two processes, a kill, resuming, and evaluation."""

import json
import os
import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import draw_video_scores
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from forked import in_fresh_process, run_forked
from recording import RecordingTrainer, record, same

from nl_detectron.config import load_config
from nl_detectron.data import register_videos
from nl_detectron.data.video.skipping import read_skipped, skipped_file
from nl_detectron.data.video.writing import write_video
from nl_detectron.engine import Trainer
from nl_detectron.engine.defaults import run_config
from nl_detectron.visualization.contact_sheet import RIGHT, WRONG, draw_contact_sheet

CLASSES = ("abseiling", "baking cookies", "zumba")
NUM_VIDEOS = 31  # no multiple of anything
TRAINING = Namespace(eval_only=False, resume=False, config_file="", opts=[])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory):
    """The name of a dataset whose files are named as those of Kinetics."""
    root = tmp_path_factory.mktemp("kinetics")
    random = np.random.default_rng(0)
    lines = []
    for number in range(NUM_VIDEOS):
        label = number % len(CLASSES)
        folder = root / CLASSES[label].replace(" ", "_")
        folder.mkdir(exist_ok=True)
        path = folder / f"Ab-{number:09d}_000010_000020.mp4"
        frames = random.integers(0, 256, (int(random.integers(5, 14)), 16, 20, 3), np.uint8)
        write_video(path, frames, rate=10)
        lines.append(f"{path.relative_to(root)} {label}")
    (root / "train.txt").write_text("\n".join(lines))
    register_videos(root.name, root / "train.txt", root, classes=list(CLASSES))
    yield root.name
    DatasetCatalog.remove(root.name)
    MetadataCatalog.remove(root.name)


@pytest.fixture
def config(dataset: str, tmp_path: Path) -> Callable[..., CfgNode]:
    """Return `make(name, *opts)`: the config of a tiny run into a subfolder of that name."""

    def make(name: str, *opts: object) -> CfgNode:
        fixed = (
            *("DATASETS.TRAIN", (dataset,), "DATASETS.TEST", (dataset,), "MODEL.DEVICE", "cpu"),
            *("MODEL.RESNETS.STEM_OUT_CHANNELS", 4, "MODEL.RESNETS.RES2_OUT_CHANNELS", 4),
            *("MODEL.VIDEO_CLASSIFIER.NUM_CLASSES", len(CLASSES), "DATALOADER.NUM_WORKERS", 0),
            *("INPUT.CLIP.FRAMES", 4, "INPUT.MIN_SIZE_TRAIN", (16, 20), "INPUT.MIN_SIZE_TEST", 18),
            *("INPUT.MIN_SIZE_TRAIN_SAMPLING", "range", "INPUT.CROP.ENABLED", True),
            *("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [16, 16], "TEST.CROPS", 3),
            *("SOLVER.IMS_PER_BATCH", 4, "SOLVER.MAX_ITER", 9, "SOLVER.CHECKPOINT_PERIOD", 3),
            *("OUTPUT_DIR", str(tmp_path / name)),
        )
        cfg = load_config("configs/quickstart_video.yaml", [*fixed, *opts])
        cfg.freeze()
        return cfg

    return make


def train(cfg: CfgNode, *, resume: bool = False, die_at: int | None = None) -> Callable[[], None]:
    def die(trainer: Trainer) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def in_process() -> None:
        RecordingTrainer.at = {} if die_at is None else {die_at: die}
        run_config(cfg, Namespace(**vars(TRAINING) | {"resume": resume}), RecordingTrainer)

    return in_process


@pytest.mark.parametrize("norm_of_block", ["BN", ""])
def test_norms_without_statistics_are_left_alone_by_precise_bn(config, tmp_path, norm_of_block):
    cfg = config(
        f"affine{norm_of_block}",
        *("MODEL.RESNETS.NORM", "Affine", "MODEL.RESNETS.NON_LOCAL.NORM", norm_of_block),
        *("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2, "SOLVER.MAX_ITER", 1),
    )
    run_config(cfg, TRAINING)
    model = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)["model"]
    counts = [value for key, value in model.items() if key.endswith("num_batches_tracked")]
    assert counts == [3] * bool(norm_of_block)  # of training 1, of precise BN 2


@in_fresh_process
def test_two_processes_killed_and_resumed_take_the_same_clips(config, tmp_path):
    attention = ("TEST.ATTENTION_SAMPLES", 1)  # which one process alone measures
    whole = config("whole", *attention)
    assert run_forked(2, train(whole), tmp_path / "store0") == [0, 0]
    cut = config("cut", *attention)
    killed = run_forked(2, train(cut, die_at=7), tmp_path / "store1")
    assert killed == [-signal.SIGKILL] * 2
    assert run_forked(2, train(cut, resume=True), tmp_path / "store2") == [0, 0]
    for rank in range(2):
        of_whole, of_cut = (record(tmp_path / name, rank) for name in ("whole", "cut"))
        assert [line["iteration"] for line in of_cut] == [*range(8), 6, 7, 8]
        assert of_cut[:8] == of_whole[:8]
        assert of_cut[8:] == of_whole[6:]
        clips = [tuple(clip) for line in of_whole for clip in line["images"]]
        assert len(set(clips)) > 0.9 * len(clips) == 0.9 * 9 * 2
    seen = [line["images"] for rank in range(2) for line in record(tmp_path / "whole", rank)]
    assert len({video for clips in seen for video, _ in clips}) == NUM_VIDEOS
    a, b = (torch.load(tmp_path / name / "model_final.pth") for name in ("whole", "cut"))
    assert same(a["model"], b["model"])
    results = [json.loads((tmp_path / n / "metrics.json").read_text().split("\n")[-2])
               for n in ("whole", "cut")]  # fmt: skip
    of_videos = [{k: v for k, v in r.items() if k.startswith("video/")} for r in results]
    assert of_videos[0] == of_videos[1]
    assert set(of_videos[0]) == {f"video/{clip}top{k}" for clip in ("", "clip_") for k in (1, 5)}


def test_only_a_resumed_run_goes_on_with_the_list_of_skipped_videos(config):
    cfg = config("run", "SOLVER.MAX_ITER", 1, "DATALOADER.SKIP_BAD_VIDEOS", True)
    row = ("of an earlier run", "bad.mp4", "it has no bytes")
    file = skipped_file(cfg.OUTPUT_DIR)
    file.parent.mkdir()
    file.write_text("\t".join(row) + "\n")
    train(cfg, resume=True)()
    assert read_skipped(file) == [row]
    train(cfg)()
    assert read_skipped(file) == []


def test_an_interrupted_evaluation_continues(config, monkeypatch):
    cfg = config("run")
    Path(cfg.OUTPUT_DIR).mkdir()
    model = Trainer.build_model(cfg)
    forward, seen = type(model).forward, []

    def interrupted(self: Any, videos: list[dict]) -> Any:
        seen.append(videos[0]["video_id"])
        if len(seen) == 10:
            raise InterruptedError
        return forward(self, videos)

    monkeypatch.setattr(type(model), "forward", interrupted)
    with pytest.raises(InterruptedError):
        Trainer.test(cfg, model)
    results = Trainer.test(cfg, model)
    assert len(seen) == NUM_VIDEOS + 1
    assert len(set(seen)) == NUM_VIDEOS
    assert results == Trainer.test(cfg, model)


def test_videos_are_drawn_with_their_scores(dataset, monkeypatch, tmp_path):
    videos = DatasetCatalog.get(dataset)
    scores = np.eye(len(CLASSES), dtype=np.float32)[[v["labels"][0] for v in videos]]
    scores[1] = [0.25, 0.25, 0.5]  # its label is 1
    np.savez(tmp_path / "scores.npz", video_id=[v["video_id"] for v in videos], scores=scores)
    sheets = []

    def draw(*args: Any) -> Any:
        sheets.append(draw_contact_sheet(*args))
        return sheets[-1]

    monkeypatch.setattr(draw_video_scores, "draw_contact_sheet", draw)
    line = f"x --dataset {dataset} --scores {tmp_path}/scores.npz --output {tmp_path}/d/sheet.png"
    monkeypatch.setattr("sys.argv", [*line.split(), "--count", "2"])
    draw_video_scores.main()
    assert (tmp_path / "d" / "sheet.png").stat().st_size > 1000
    said = [[(text.get_text(), text.get_color()) for text in axis.texts] for axis in sheets[0].axes]
    assert said[0][0] == ("100 % abseiling", RIGHT)
    assert said[1] == [("50 % zumba", WRONG), ("25 % abseiling", WRONG),
                       ("25 % baking cookies", RIGHT)]  # fmt: skip
