"""Speed of loading videos: clips per second of the training loader, next to decoding alone.

Both run in the loader's processes. Decoding alone opens the same files at the same key frames,
decodes to the same last frame, and converts the same frames to RGB at the same size; the loader's
mapper also crops and mirrors, and its clips go from worker processes to the main one.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from detectron2.data.build import build_batch_data_loader
from tabulate import tabulate

from nl_detectron.data.video import sampling
from nl_detectron.data.video.build import ClipSampler, TrainingClips
from nl_detectron.data.video.mapper import TrainMapper
from nl_detectron.data.video.probing import probe
from nl_detectron.data.video.streaming import Frame
from nl_detectron.data.video.writing import VideoWriter

from .measure import alternate, ratio

FRAMES, STRIDE, MIN_SIZE, CROP = 32, 2, (256, 320), (224, 224)
BATCH = 4
WORKERS = (1, 2)


def write_videos(folder: Path, count: int, seconds: int) -> list[dict[str, Any]]:
    """Write videos like Kinetics' copies of 340 x 256 pixels: H.264, 25 frames a second."""
    videos = []
    for number in range(count):
        path = folder / f"{number:02d}.mp4"
        random = np.random.default_rng(number)
        texture = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        canvas = np.kron(texture, np.ones((16, 16, 1), np.uint8))
        with VideoWriter(path, size=(256, 340), rate=Fraction(25)) as writer:
            for i in range(25 * seconds):
                x, y = i % 500, i // 2 % 300
                image = canvas[y : y + 256, x : x + 340] // 2
                image = image + random.integers(0, 24, image.shape, dtype=np.uint8)
                start, end = Fraction(i, 25), Fraction(i + 1, 25)
                writer.write(Frame(pixels=image, start=start, end=end))
        videos.append(
            {"file_name": str(path), "video_id": path.name, "labels": [0], "info": probe(path)}
        )
    return videos


def decode(video: dict[str, Any], random: np.random.Generator) -> None:
    """Decode the clip that `TrainMapper` draws, with PyAV alone."""
    info = video["info"]
    indices = sampling.random_clip(info.num_frames, frames=FRAMES, stride=STRIDE, random=random)
    short = sampling.random_short_side(MIN_SIZE, is_range=True, random=random)
    height, width = sampling.scaled_size(info.height, info.width, short)
    stamps = info.stamps.values(info.num_frames)
    wanted = {stamps[i] for i in indices}
    with av.open(video["file_name"]) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(stamps[info.key_frame(int(indices.min()))], stream=stream)
        for frame in container.decode(stream):
            if frame.pts in wanted:
                frame.reformat(width, height, "rgb24", threads=1).to_ndarray()
                wanted.remove(frame.pts)
            if not wanted:
                break


def clip_rate(
    mapper: Callable[..., Any], videos: list[dict[str, Any]], workers: int, clips: int
) -> float:
    """Return clips per second of the training loader with `mapper`, once its workers are busy."""
    loader = build_batch_data_loader(
        TrainingClips(videos, mapper),
        ClipSampler(len(videos), seed=1),
        BATCH,
        num_workers=workers,
    )
    batches = iter(loader)
    for _ in range(3 * workers):  # as many as workers make ahead, and one each
        next(batches)
    start = time.perf_counter()
    for _ in range(clips // BATCH):
        next(batches)
    return clips // BATCH * BATCH / (time.perf_counter() - start)


def loading_table(quick: bool) -> str:
    rounds, clips, count, seconds = (1, 16, 2, 4) if quick else (5, 96, 8, 10)
    mapper = TrainMapper(frames=FRAMES, stride=STRIDE, min_size=MIN_SIZE, crop=CROP)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        videos = write_videos(Path(folder), count, seconds)
        for workers in WORKERS:
            steps = {
                "decoder": partial(clip_rate, decode, videos, workers, clips),
                "loader": partial(clip_rate, mapper, videos, workers, clips),
            }
            rates = alternate(steps, rounds)
            alone, loaded = map(statistics.median, rates.values())
            rows.append([
                workers, f"{alone:.1f}", f"{loaded:.1f}",
                f"{ratio(rates, 'loader', 'decoder'):.0%}",
            ])  # fmt: skip
    return (
        f"### Loading clips of {FRAMES} x {STRIDE} frames, 340 x 256 pixels, median of {rounds} "
        "alternating rounds\n\n"
    ) + tabulate(
        rows,
        ["workers", "decoder alone, clips/s", "loader, clips/s", "loader / decoder"],
        tablefmt="github",
    )
