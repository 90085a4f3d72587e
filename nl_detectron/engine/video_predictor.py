"""Predictions for videos: from a config and its weights in three lines.

```python
from nl_detectron.engine import VideoPredictor
predict = VideoPredictor("configs/quickstart_video.yaml", weights="model_final.pth")
juggling = predict("juggling.mp4")
street, beach = predict(["street.mp4", "beach.mp4"])
```
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from detectron2.config import CfgNode
from PIL import Image, ImageSequence

from ..config import is_video
from ..data.video import sampling
from ..data.video.info import FOLDER_RATE, VideoError, VideoInfo
from ..data.video.mapper import TestMapper
from ..data.video.probing import probe
from ..data.video.streaming import Frame
from ..data.video.windows import Window, sliding_windows
from ..modeling import VideoClassifier
from ..utils.errors import ConfigError, DataError, UserError
from .predictor import Classes, complete_config, is_one, load_model, precision

VideoInput: TypeAlias = str | os.PathLike[str] | np.ndarray | Image.Image | torch.Tensor


@dataclass(frozen=True, kw_only=True)
class WindowScores:
    """Scores of a window of a video.

    Args:
        first_frame, last_frame: frame numbers in the video, from 0, both included.
        start, end: times in seconds from the video's first frame.
        scores: (C,), pooled over the crops of its frames.
    """

    first_frame: int
    last_frame: int
    start: float
    end: float
    scores: np.ndarray


@dataclass(frozen=True, kw_only=True)
class VideoPrediction:
    """Scores of a video and of its windows.

    Args:
        scores: (C,), probabilities, pooled over all windows by ``TEST.VIEW_POOLING``.
        classes: C names.
        windows: windows in the order of time.
    """

    scores: np.ndarray
    classes: Sequence[str]
    windows: Sequence[WindowScores]

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the names of the `count` best classes with their scores, the best one first."""
        return [(self.classes[c], float(self.scores[c])) for c in best_classes(self.scores, count)]


class VideoPredictor:
    """A trained model that takes videos and returns a `VideoPrediction` for each.

    Args:
        config: a YAML file, or a complete config.
        weights: checkpoint; default: the config's ``MODEL.WEIGHTS``.
        device: ``cuda`` or ``cpu``; default: the config's, or a GPU if available.
        half: run in half precision under autocast: bfloat16, or float16 on GPUs without it.
        views_at_once: number of clips in one forward pass; default: the model's.
        classes: names of the classes, or a file of them, see `data.catalog.read_class_names`;
            default: those in the checkpoint, or of a registered dataset of the config.
        opts: ``KEY, VALUE, ...`` merged into the config.

    Raises:
        ConfigError: the config is not for videos, or differs from `classes` in their number.
        UserError: the weights are missing or unreadable.
    """

    def __init__(
        self,
        config: CfgNode | str | os.PathLike[str],
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        half: bool = False,
        views_at_once: int | None = None,
        classes: Classes | None = None,
        opts: Sequence[str] = (),
    ) -> None:
        self.cfg = cfg = complete_config(config, weights=weights, device=device, opts=opts)
        if not is_video(cfg):
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE is '{cfg.MODEL.META_ARCHITECTURE}', a model for images; "
                "use nl_detectron.engine.predictor.Predictor"
            )
        model, metadata = load_model(cfg, classes)
        self.model = cast(VideoClassifier, model)
        self.classes: list[str] = metadata.thing_classes
        self.model.views_at_once = views_at_once or self.model.views_at_once
        self._map = TestMapper.from_config(cfg)
        self._half = half

    def __call__(self, videos: Any, *, rate: float = FOLDER_RATE) -> Any:
        """Return the `VideoPrediction` of a video by the test protocol, or a list for several.

        Arguments and errors are those of `stream`.

        Args:
            videos: one video, or several in an iterable.
        """
        if is_one(videos, dims=4):
            return next(self.stream([videos], rate=rate))
        return list(self.stream(videos, rate=rate))

    def stream(
        self, videos: Iterable[VideoInput], *, rate: float = FOLDER_RATE
    ) -> Iterator[VideoPrediction]:
        """Yield the prediction for each video, in order; one video is in memory at a time.

        A video's windows are its ``TEST.CLIPS`` clips, so scores equal those of an evaluation.

        Args:
            videos: files; folders of frames; arrays (T, H, W, 3) or tensors (T, 3, H, W) of uint8
                in RGB order; or PIL images, such as an animated GIF.
            rate: frames per second of all inputs but files, for the windows' times.

        Raises:
            DataError: a video cannot be read, or its scores are not finite.
            ValueError: an array or tensor has another shape or type.
        """
        for video in videos:
            record = _record(video, rate)
            clips = self._map(record)["clips"]
            try:
                views = self.scores(clips)
            except UserError as error:
                raise DataError(f"{record['file_name']}: {error}") from error
            yield self._prediction(
                record["info"], views.reshape(-1, self._map.crops, len(views[0]))
            )

    def slide(self, frames: Iterable[Frame], *, step: int | None = None) -> Iterator[WindowScores]:
        """Yield the scores of each window, of ``INPUT.CLIP``, that slides over `frames`.

        Args:
            frames: frames of one video, such as a `VideoStream` with `scaled_size` as its scale.
            step: frames between the starts of windows; default: half a window.
        """
        clip = self.cfg.INPUT.CLIP
        windows = sliding_windows(frames, frames=clip.FRAMES, stride=clip.STRIDE, step=step)
        at_once = max(1, self.model.views_at_once // self._map.crops)
        while batch := list(islice(windows, at_once)):
            yield from self._score(batch)

    def _score(self, windows: Sequence[Window]) -> list[WindowScores]:
        """Return the scores of windows of one size, from ``TEST.CROPS`` crops of each."""
        clips = torch.from_numpy(np.stack([window.clip for window in windows]))
        crops = sampling.even_crops(clips.shape[2], clips.shape[3], self._map.crops)
        views = torch.stack([clips[:, :, rows, columns] for rows, columns in crops], 1)
        scores = self.scores(views.flatten(0, 1).permute(0, 4, 1, 2, 3).contiguous())
        pooled = self.pool(scores.reshape(len(windows), len(crops), -1), axis=1)
        return [
            WindowScores(
                first_frame=window.first_frame,
                last_frame=window.last_frame,
                start=window.start,
                end=window.end,
                scores=of_window,
            )
            for window, of_window in zip(windows, pooled, strict=True)
        ]

    @torch.no_grad()
    def scores(self, clips: torch.Tensor) -> np.ndarray:
        """Return the probabilities (V, C) of clips (V, 3, T, H, W), uint8.

        Raises:
            UserError: the probabilities are not finite.
        """
        with precision(self.cfg.MODEL.DEVICE, half=self._half):
            (output,) = self.model([{"clips": clips}])
        scores = output["view_scores"].float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise UserError("scores must be finite, got NaN or infinity; check the weights")
        return scores

    def pool(self, scores: np.ndarray, *, axis: int = 0) -> np.ndarray:
        """Return the mean or the maximum of probabilities, by ``TEST.VIEW_POOLING``."""
        return scores.mean(axis) if self.cfg.TEST.VIEW_POOLING == "mean" else scores.max(axis)

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the frames' size for the network."""
        return sampling.scaled_size(height, width, self._map.size)

    def _prediction(self, info: VideoInfo, views: np.ndarray) -> VideoPrediction:
        """Pool `views` (clips, crops, C) into a prediction."""
        length = self._map.frames * self._map.stride
        starts = sampling.even_starts(info.num_frames, self._map.clips)
        lasts = [min(start + length, info.num_frames) - 1 for start in starts]
        times = info.seconds(range(info.num_frames))
        times.append(times[-1] + 1 / info.rate)  # the end of the last frame
        return VideoPrediction(
            scores=self.pool(views.reshape(-1, views.shape[-1])),
            classes=self.classes,
            windows=[
                WindowScores(
                    first_frame=first,
                    last_frame=last,
                    start=times[first],
                    end=times[last + 1],
                    scores=scores,
                )
                for first, last, scores in zip(starts, lasts, self.pool(views, axis=1), strict=True)
            ],
        )


def best_classes(scores: np.ndarray, count: int = 5) -> list[int]:
    """Return the numbers of the `count` classes with the highest scores, the best one first."""
    return np.argsort(-scores, kind="stable")[:count].tolist()


def _record(video: VideoInput, rate: float) -> dict[str, Any]:
    """Return the input of `TestMapper`."""
    if isinstance(video, Image.Image):
        video = np.stack(
            [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(video)]
        )
    if isinstance(video, torch.Tensor) and video.ndim == 4:
        video = video.permute(0, 2, 3, 1).cpu().numpy()
    if isinstance(video, np.ndarray | torch.Tensor):
        if video.ndim != 4 or video.shape[3] != 3 or not video.size or video.dtype != np.uint8:
            raise ValueError(
                "expected an array (T, H, W, 3) or a tensor (T, 3, H, W) of uint8, got "
                f"{tuple(video.shape)} of {video.dtype}"
            )
        count, height, width, _ = video.shape
        info = VideoInfo(num_frames=count, rate=rate, height=height, width=width)
        record: dict[str, Any] = {"file_name": "an array", "frames": video}
    else:
        try:
            info = probe(video, folder_rate=rate)
        except VideoError as error:
            raise DataError(f"{os.fspath(video)}: {error}") from error
        record = {"file_name": os.fspath(video)}
    return {**record, "info": info, "video_id": record["file_name"], "labels": []}
