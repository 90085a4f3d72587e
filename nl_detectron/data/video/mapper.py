"""Mappers from a video's dict to clips: uint8 ``(V, 3, T, H, W)`` in RGB, V views of one video.

The dict has ``file_name``, ``video_id``, ``labels``, ``info`` (a `VideoInfo`) and, for labels of
parts of the video, ``intervals``: (label, first second, last second). Frames in memory, RGB uint8
``(T, H, W, 3)``, are ``frames``.
"""

from typing import Any, Self

import numpy as np
import torch
from detectron2.config import CfgNode

from ...utils.errors import DataError, one_line
from . import sampling
from .info import VideoError, VideoInfo
from .reading import WHOLE, Window, read_frames, resized


def bad_video(path: str, reason: object) -> DataError:
    """Return the error of an unreadable video: its file and the reason in one line."""
    return DataError(
        f"video {path!r}: {one_line(reason)}; `nl-detectron check` lists all such files, and "
        "DATALOADER.SKIP_BAD_VIDEOS True skips those that probing finds"
    )


class TrainMapper:
    """Mapper to one clip with random start, scale, crop and mirroring.

    Args:
        frames, stride: frames and stride of the clip, ``INPUT.CLIP``.
        min_size: ``INPUT.MIN_SIZE_TRAIN``, choices for the shorter side.
        is_range: draw a whole number between the two of `min_size`, both included.
        crop: height and width of the crop; None for the whole frame.
        flip: mirror half of the clips.
    """

    def __init__(
        self,
        *,
        frames: int,
        stride: int,
        min_size: tuple[int, ...] = (256, 320),
        is_range: bool = True,
        crop: tuple[int, int] | None = (224, 224),
        flip: bool = True,
    ) -> None:
        self.frames, self.stride = frames, stride
        self.min_size, self.is_range = min_size, is_range
        self.crop, self.flip = crop, flip

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Self:
        height, width = (int(side) for side in cfg.INPUT.CROP.SIZE)
        return cls(
            frames=cfg.INPUT.CLIP.FRAMES,
            stride=cfg.INPUT.CLIP.STRIDE,
            min_size=tuple(cfg.INPUT.MIN_SIZE_TRAIN),
            is_range=cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range",
            crop=(height, width) if cfg.INPUT.CROP.ENABLED else None,
            flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
        )

    def __call__(self, video: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
        """Return ``clips`` ``(1, 3, T, H, W)``, ``labels``, ``video_id`` and ``file_name``.

        Raises:
            DataError: the video cannot be read.
        """
        info: VideoInfo = video["info"]
        indices = sampling.random_clip(
            info.num_frames, frames=self.frames, stride=self.stride, random=random
        )
        short = sampling.random_short_side(self.min_size, is_range=self.is_range, random=random)
        size = sampling.scaled_size(info.height, info.width, short)
        window = sampling.random_crop(*size, self.crop, random) if self.crop else WHOLE
        if self.flip and random.random() < 0.5:
            window = sampling.mirrored(window, size[1])
        clip = _channels_first(_read(video, indices, size, window))
        return _sample(video, clip[None], _labels_of_clip(video, indices))


class TestMapper:
    """Mapper to all views of a video: `clips` at even distances, each with `crops`.

    View ``k * crops + c`` is crop c of clip k. The crops lie along the longer side.

    Args:
        frames, stride: frames and stride of a clip, ``INPUT.CLIP``.
        clips, crops: ``TEST.CLIPS`` and ``TEST.CROPS``.
        size: shorter side, and side of the square crops, ``INPUT.MIN_SIZE_TEST``.
    """

    __test__ = False  # pytest must not collect the class because of its name

    def __init__(
        self, *, frames: int, stride: int, clips: int = 10, crops: int = 3, size: int = 256
    ) -> None:
        self.frames, self.stride = frames, stride
        self.clips, self.crops, self.size = clips, crops, size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> Self:
        return cls(
            frames=cfg.INPUT.CLIP.FRAMES,
            stride=cfg.INPUT.CLIP.STRIDE,
            clips=cfg.TEST.CLIPS,
            crops=cfg.TEST.CROPS,
            size=cfg.INPUT.MIN_SIZE_TEST,
        )

    def __call__(self, video: dict[str, Any]) -> dict[str, Any]:
        """Return ``clips`` ``(clips * crops, 3, T, H, W)`` and the rest as `TrainMapper` does.

        Raises:
            DataError: the video cannot be read.
        """
        info: VideoInfo = video["info"]
        indices = sampling.even_clips(
            info.num_frames, clips=self.clips, frames=self.frames, stride=self.stride
        )
        height, width = sampling.scaled_size(info.height, info.width, self.size)
        # Clips share frames, so each is decoded once.
        needed, place = np.unique(indices, return_inverse=True)
        place_of_clip = torch.from_numpy(place.reshape(indices.shape))
        frames = _read(video, needed, (height, width))
        views = torch.empty(
            (self.clips, self.crops, 3, self.frames, self.size, self.size), dtype=torch.uint8
        )
        for c, (rows, columns) in enumerate(sampling.even_crops(height, width, self.crops)):
            crop = _channels_first(frames[:, rows, columns])
            for k in range(self.clips):
                torch.index_select(crop, 1, place_of_clip[k], out=views[k, c])
        return _sample(video, views.flatten(0, 1), list(video["labels"]))


def _channels_first(frames: np.ndarray) -> torch.Tensor:
    """Return ``(T, H, W, 3)`` as ``(3, T, H, W)``; numpy copies it eight times as fast as torch."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))


def _sample(video: dict[str, Any], clips: torch.Tensor, labels: list[int]) -> dict[str, Any]:
    return {
        "clips": clips,
        "labels": labels,
        "video_id": video["video_id"],
        "file_name": video["file_name"],
    }


def _read(
    video: dict[str, Any], indices: np.ndarray, size: tuple[int, int], window: Window = WHOLE
) -> np.ndarray:
    if "frames" in video:
        return np.stack([resized(video["frames"][i], size)[window] for i in indices])
    path = video["file_name"]
    try:
        return read_frames(path, indices, video["info"], size=size, window=window)
    except VideoError as error:
        raise bad_video(path, error) from error


def _labels_of_clip(video: dict[str, Any], indices: np.ndarray) -> list[int]:
    """Return the labels of the video, or those whose intervals contain a frame of the clip."""
    if "intervals" not in video:
        return list(video["labels"])
    seconds = video["info"].seconds(indices.tolist())
    return sorted(
        {
            label
            for label, first, last in video["intervals"]
            if any(first <= second <= last for second in seconds)
        }
    )
