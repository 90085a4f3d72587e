"""Videos through the whole engine: two processes, a kill, resuming, and evaluation."""

import json
import os
import signal
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from forked import in_fresh_process, run_forked
from recording import RecordingTrainer, record, same

from nl_detectron.config import load_config
from nl_detectron.data import register_videos
from nl_detectron.data.video.writing import write_video
from nl_detectron.engine import Trainer
from nl_detectron.engine.defaults import run_config

CLASSES = ("abseiling", "baking cookies", "zumba")
NUM_VIDEOS = 31  # no multiple of anything
TRAINING = Namespace(eval_only=False, resume=False, config_file="", opts=[])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
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
    return root.name


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


@in_fresh_process
def test_killed_and_resumed_run_takes_same_clips(config, tmp_path):
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


@in_fresh_process
def test_three_processes_evaluate_as_one_does(config, tmp_path):
    torch.manual_seed(3)
    cfgs = [config("one"), config("three")]
    model = Trainer.build_model(cfgs[0])
    model.train()
    for _ in range(3):  # statistics for the norms, so that scores differ
        model([{"clips": torch.randint(256, (5, 3, 4, 16, 16)).byte(), "labels": [1]}])
    weights = model.state_dict()

    def evaluate(cfg: CfgNode) -> None:
        model = Trainer.build_model(cfg)
        model.load_state_dict(weights)
        if results := Trainer.test(cfg, model):
            (Path(cfg.OUTPUT_DIR) / "results.json").write_text(json.dumps(results))

    for cfg in cfgs:
        Path(cfg.OUTPUT_DIR).mkdir()
    evaluate(cfgs[0])
    assert run_forked(3, lambda: evaluate(cfgs[1]), tmp_path / "store") == [0] * 3
    folders = [Path(cfg.OUTPUT_DIR) for cfg in cfgs]
    assert len({(folder / "results.json").read_text() for folder in folders}) == 1
    one, three = (dict(np.load(*(folder / "inference").iterdir())) for folder in folders)
    assert len(one["video_id"]) == NUM_VIDEOS
    assert len(np.unique(one["scores"], axis=0)) == NUM_VIDEOS
    assert all(np.array_equal(one[key], three[key]) for key in one)
