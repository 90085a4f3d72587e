"""Speed of loading videos: clips per second of the loader, next to the decoder alone.

The decoder alone opens the same files at the same key frames, decodes to the same last frame, and
converts the same frames to RGB at the same size; the loader also draws, crops, mirrors, and hands
clips from worker processes to the main one.
"""

import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
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

from .measure import alternate, ratio

FRAMES, STRIDE, MIN_SIZE, CROP = 32, 2, (256, 320), (224, 224)
BATCH = 4
WORKERS = (1, 2)


def write_videos(folder: Path, count: int, *, seconds: int = 10) -> list[dict[str, Any]]:
    """Write videos like Kinetics' copies of 340 x 256 pixels: H.264, 25 frames a second."""
    videos = []
    for number in range(count):
        path = folder / f"{number:02d}.mp4"
        random = np.random.default_rng(number)
        texture = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        canvas = np.kron(texture, np.ones((16, 16, 1), np.uint8))
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for i in range(25 * seconds):
                x, y = i % 500, i // 2 % 300
                image = canvas[y : y + 256, x : x + 340] // 2
                image = image + random.integers(0, 24, image.shape, dtype=np.uint8)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        videos.append(
            {
                "file_name": str(path),
                "video_id": path.name,
                "labels": [0],
                "info": probe(path),
            }
        )
    return videos


def draws(videos: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], np.ndarray, int]]:
    """Yield, without end, the video, frame numbers and shorter side of the loader's clips."""
    for index, numbers in ClipSampler(len(videos), seed=1):
        random = np.random.default_rng(numbers)
        video = videos[index]
        indices = sampling.random_clip(
            video["info"].num_frames, frames=FRAMES, stride=STRIDE, random=random
        )
        yield video, indices, sampling.random_short_side(MIN_SIZE, is_range=True, random=random)


def decode(video: dict[str, Any], indices: np.ndarray, short: int) -> None:
    """Decode a clip with PyAV alone."""
    info = video["info"]
    height, width = sampling.scaled_size(info.height, info.width, short)
    stamps = info.stamps.values(info.num_frames)
    wanted = {stamps[i] for i in indices}
    reformatter = av.video.reformatter.VideoReformatter()
    with av.open(video["file_name"]) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        container.seek(stamps[info.key_frame(int(indices.min()))], stream=stream)
        for frame in container.decode(stream):
            if frame.pts in wanted:
                reformatter.reformat(
                    frame, width=width, height=height, format="rgb24", threads=1
                ).to_ndarray()
                wanted.remove(frame.pts)
            if not wanted:
                break


def decoder_rate(videos: Sequence[dict[str, Any]], workers: int, clips: int) -> float:
    """Return clips per second of processes that only decode."""
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        share = clips // workers
        parts = [(videos, worker, workers, share) for worker in range(workers)]
        return sum(pool.map(_decoder_rate_of_one, parts))


def _decoder_rate_of_one(part: tuple[Sequence[dict[str, Any]], int, int, int]) -> float:
    videos, worker, workers, clips = part
    mine = itertools.islice(draws(videos), worker, None, workers)
    decode(*next(mine))
    start = time.perf_counter()
    for video, indices, short in itertools.islice(mine, clips):
        decode(video, indices, short)
    return clips / (time.perf_counter() - start)


def loader_rate(videos: Sequence[dict[str, Any]], workers: int, clips: int) -> float:
    """Return clips per second of the training loader, once its workers are busy."""
    mapper = TrainMapper(frames=FRAMES, stride=STRIDE, min_size=MIN_SIZE, crop=CROP)
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


def report(quick: bool = False) -> Iterator[str]:
    """Yield the table, as ``tools/benchmark.py`` prints it."""
    rounds, clips, count = (1, 16, 2) if quick else (5, 96, 8)
    with tempfile.TemporaryDirectory() as folder:
        videos = write_videos(Path(folder), count, seconds=4 if quick else 10)
        rows = []
        for workers in WORKERS:
            rates = alternate(
                {
                    "decoder": partial(decoder_rate, videos, workers, clips),
                    "loader": partial(loader_rate, videos, workers, clips),
                },
                rounds,
            )
            alone, loaded = map(statistics.median, rates.values())
            share = ratio(rates, "loader", "decoder")
            rows.append([workers, f"{alone:.1f}", f"{loaded:.1f}", f"{share:.0%}"])
    headers = ["workers", "decoder alone, clips/s", "loader, clips/s", "loader / decoder"]
    yield (
        f"### Loading clips of {FRAMES} x {STRIDE} frames, 340 x 256 pixels, median of {rounds} "
        "alternating rounds\n\n" + tabulate(rows, headers, tablefmt="github")
    )
