"""The windows of a block's map in the coordinates of an image, or of the frames of a clip.

Coordinates are Detectron2's: continuous, in pixels, x to the right and y down, with pixel (i, j)
covering [i, i + 1) x [j, j + 1), so that its center is at (i + 0.5, j + 0.5). Frame t of a clip
covers [t, t + 1) in time; an image is a clip of one frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the map: `length` positions, of which number i covers
    ``start + i * step`` to ``start + (i + 1) * step``, in pixels of the image.

    Position i of x thus has its center at ``start + (i + 0.5) * step``. j runs over x̂, whose
    positions are windows of `subsample` positions of x, the last one perhaps partial.

    Args:
        end: end of the image, or of the region of interest; padding follows. A position that
            begins in the padding is not drawn, and one that extends into it is cropped.
    """

    start: float
    step: float
    length: int
    end: float
    subsample: int

    def position(self, coordinate: float) -> int:
        """Return the position of x that covers `coordinate`, or is nearest to it."""
        number = int((coordinate - self.start) // self.step)
        return min(max(number, 0), self.length - 1)

    def windows(self) -> FloatArray:
        """Return begin and end of each position of x̂ outside the padding: (M, 2)."""
        first = np.arange(0, self.length, self.subsample)
        begin = self.start + self.step * first
        # A map that extends to `end` may have a partial window there, which is cropped as well.
        end = np.minimum(begin + self.step * self.subsample, self.end)
        return np.stack([begin, end], axis=1)[begin < self.end]

    def centers(self) -> FloatArray:
        """Return the centers of `windows`: (M,)."""
        return self.windows().mean(axis=1)

    def positions(self) -> FloatArray:
        """Return the centers of all positions of x, including padding: (length,)."""
        return np.arange(0.5, self.length) * self.step + self.start

    def keys(self) -> FloatArray:
        """Return the mean position of each window of x̂, including padding: (M,)."""
        first = np.arange(0, self.length, self.subsample)
        last = np.minimum(first + self.subsample, self.length) - 1
        return (self.positions()[first] + self.positions()[last]) / 2

    def overlaps(self, begin: FloatArray, end: FloatArray) -> NDArray[np.bool_]:
        """Return a mask (M, K) of the windows of x̂ that overlap each of K intervals."""
        first = self.start + self.step * np.arange(0, self.length, self.subsample)[:, None]
        return (first < end) & (first + self.step * self.subsample > begin)

    def spread(self, count: int) -> FloatArray:
        """Return a matrix (count, M) that interpolates from the M centers to `count` even cells.

        The interpolation is linear, and constant beyond the outermost centers.
        """
        cells = self.start + (np.arange(count) + 0.5) * (self.end - self.start) / count
        centers = self.centers()
        return np.stack([np.interp(cells, centers, unit) for unit in np.eye(len(centers))], axis=1)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The map of a block over the frames of a clip, or over a region of interest in an image.

    Args:
        time: axis of time, in frames of the clip.
        y, x: axes of space, in pixels of a frame, equal in all frames.
    """

    time: Axis
    y: Axis
    x: Axis

    @classmethod
    def of_frames(
        cls,
        shape: Sequence[int],
        *,
        strides: Sequence[int],
        subsample: int,
        network_size: Sequence[int],
        size: Sequence[int],
    ) -> "Grid":
        """Return the grid of a block in a backbone; sequences are in time, height and width.

        Args:
            shape: shape of the block's input, in positions.
            strides: strides of the block's input, in frames and pixels of the network's input.
            subsample: the block's subsampling over space.
            network_size: frames and pixels of the network's input, resized but not padded.
                Padding is at the right and at the bottom.
            size: size of the original clip or image.
        """
        axes = [
            Axis(
                start=0.0,
                step=stride * own / seen,
                length=length,
                end=float(own),
                subsample=step,
            )
            for length, stride, step, seen, own in zip(
                shape, strides, (1, subsample, subsample), network_size, size, strict=True
            )
        ]
        return cls(time=axes[0], y=axes[1], x=axes[2])

    @classmethod
    def of_region(cls, shape: Sequence[int], *, box: Sequence[float], subsample: int) -> "Grid":
        """Return the grid of a block in a head: ROIAlign divides `box` (x0, y0, x1, y1) evenly."""
        x0, y0, x1, y1 = box
        axes = [
            Axis(
                start=begin,
                step=(end - begin) / length,
                length=length,
                end=end,
                subsample=step,
            )
            for length, begin, end, step in zip(
                (1, *shape), (0, y0, x0), (1, y1, x1), (1, subsample, subsample), strict=True
            )
        ]
        return cls(time=axes[0], y=axes[1], x=axes[2])

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Return the part of a frame that the grid covers: x0, y0, x1, y1."""
        return self.x.start, self.y.start, self.x.end, self.y.end

    def contains(self, x: float, y: float) -> bool:
        """Return True if the point lies in the box."""
        x0, y0, x1, y1 = self.box
        return x0 <= x <= x1 and y0 <= y <= y1

    def step(self, frame: int) -> int:
        """Return the time step that covers a frame of the clip."""
        return self.time.position(frame + 0.5)

    def position(self, frame: int, x: float, y: float) -> int:
        """Return the index of the position of x that covers the point, the last axis fastest."""
        row = self.step(frame) * self.y.length + self.y.position(y)
        return row * self.x.length + self.x.position(x)

    def places(self) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Return time, y, x of the positions of x (P, 3) and x̂ (M, 3), and a mask of x's inside."""
        axes = (self.time, self.y, self.x)
        positions, keys = (
            np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, 3)
            for values in ([a.positions() for a in axes], [a.keys() for a in axes])
        )
        begins = positions - [axis.step / 2 for axis in axes]
        return positions, keys, np.all(begins < [axis.end for axis in axes], axis=1)

    def overlaps(self, boxes: FloatArray) -> NDArray[np.bool_]:
        """Return a mask of the windows of x̂ that overlap any box: (time steps, M_y, M_x).

        Args:
            boxes: (K, 5), frame of the clip, x0, y0, x1, y1.
        """
        frame, x0, y0, x1, y1 = np.asarray(boxes, dtype=np.float64).reshape(-1, 5).T
        times = self.time.overlaps(frame, frame + 1)
        rows, columns = self.y.overlaps(y0, y1), self.x.overlaps(x0, x1)
        return np.einsum("tk,yk,xk->tyx", times, rows, columns, optimize=True) > 0

    def unpooled(self) -> "Grid":
        """Return the grid whose windows are the positions of x."""
        time, y, x = (replace(axis, subsample=1) for axis in (self.time, self.y, self.x))
        return Grid(time=time, y=y, x=x)

    def sample(self, weights: FloatArray, *, height: int, width: int) -> FloatArray:
        """Interpolate `weights` (M_y, M_x), one for each drawn window, over the box.

        Returns (height, width), the values at the centers of that many cells of the box. They are
        linear between the windows' centers, so a peak stays in its place.
        """
        return self.y.spread(height) @ weights @ self.x.spread(width).T
