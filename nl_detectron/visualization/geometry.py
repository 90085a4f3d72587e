"""Where the positions of a block's map lie in the image, or in the frames of a clip.

Coordinates are Detectron2's: continuous, in pixels, x to the right and y down, with pixel (i, j)
covering [i, i + 1) x [j, j + 1), so that its centre is at (i + 0.5, j + 0.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of the map: `length` positions, of which number i covers
    ``start + i * step`` to ``start + (i + 1) * step``, in pixels of the image.

    Position i of x thus has its centre at ``start + (i + 0.5) * step``. j runs over x̂, whose
    positions are windows of `subsample` positions of x, the last one perhaps partial.

    Args:
        end: where the image, or the region of interest, ends. What lies beyond is padding: a
            position that begins there is not drawn, one that only reaches into it is cut off.
    """

    start: float
    step: float
    length: int
    end: float
    subsample: int

    def position(self, coordinate: float) -> int:
        """The position of x that covers `coordinate`, or is nearest to it."""
        number = int((coordinate - self.start) // self.step)
        return min(max(number, 0), self.length - 1)

    def windows(self) -> FloatArray:
        """Begin and end of each position of x̂ that is not padding: (M, 2)."""
        first = np.arange(0, self.length, self.subsample)
        begin = self.start + self.step * first
        # A map that reaches to `end` may have a partial window there, which this cuts off as well.
        end = np.minimum(begin + self.step * self.subsample, self.end)
        return np.stack([begin, end], axis=1)[begin < self.end]

    def centres(self) -> FloatArray:
        """The centres of `windows`: (M,)."""
        return self.windows().mean(axis=1)

    def spread(self, coordinates: FloatArray) -> FloatArray:
        """Linear interpolation from the M centres to `coordinates` (K,), as a matrix (K, M).

        Beyond the outermost centres the value stays; there are none of it beyond the windows.
        """
        centres, identity = self.centres(), np.eye(len(self.centres()))
        return np.stack([np.interp(coordinates, centres, unit) for unit in identity], axis=1)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The map of a block over an image, or over a region of interest in it."""

    y: Axis
    x: Axis

    @classmethod
    def of_image(
        cls,
        shape: Sequence[int],
        *,
        stride: int,
        subsample: int,
        network_size: tuple[int, int],
        size: tuple[int, int],
    ) -> "Grid":
        """The grid of a block in a backbone.

        Args:
            shape: height and width of the block's input, in positions.
            stride: of the block's input, in pixels that the network sees.
            subsample: of the block.
            network_size: height and width of the image as the network sees it, resized but
                not padded. Padding is at the right and at the bottom.
            size: height and width of the image itself.
        """
        axes = [
            Axis(
                start=0.0,
                step=stride * own / seen,
                length=length,
                end=float(own),
                subsample=subsample,
            )
            for length, seen, own in zip(shape, network_size, size, strict=True)
        ]
        return cls(y=axes[0], x=axes[1])

    @classmethod
    def of_region(cls, shape: Sequence[int], *, box: Sequence[float], subsample: int) -> "Grid":
        """The grid of a block in a head: ROIAlign divides `box` (x0, y0, x1, y1) evenly."""
        x0, y0, x1, y1 = box
        axes = [
            Axis(
                start=begin,
                step=(end - begin) / length,
                length=length,
                end=end,
                subsample=subsample,
            )
            for length, begin, end in zip(shape, (y0, x0), (y1, x1), strict=True)
        ]
        return cls(y=axes[0], x=axes[1])

    @property
    def box(self) -> tuple[float, float, float, float]:
        """What the grid covers of the image: x0, y0, x1, y1."""
        return self.x.start, self.y.start, self.x.end, self.y.end

    def contains(self, x: float, y: float) -> bool:
        """Whether the point lies in the box."""
        x0, y0, x1, y1 = self.box
        return x0 <= x <= x1 and y0 <= y <= y1

    def position(self, x: float, y: float) -> int:
        """The number of the position of x that covers the point, counted row by row."""
        return self.y.position(y) * self.x.length + self.x.position(x)

    def sample(self, weights: FloatArray, *, height: int, width: int) -> FloatArray:
        """Spread `weights` (M_y, M_x), one for each window drawn, evenly over the box.

        Returns (height, width): values at the centres of that many cells of the box. Linear
        between the windows' centres, so a peak stays where it is.
        """
        x0, y0, x1, y1 = self.box
        ys = y0 + (np.arange(height) + 0.5) * (y1 - y0) / height
        xs = x0 + (np.arange(width) + 0.5) * (x1 - x0) / width
        return self.y.spread(ys) @ weights @ self.x.spread(xs).T


@dataclass(frozen=True, kw_only=True)
class ClipGrid:
    """The map of a block over the frames of a clip: frame t of it covers [t, t + 1) in time.

    Args:
        time: in frames of the clip.
        space: in pixels of a frame, the same in each.
    """

    time: Axis
    space: Grid

    @classmethod
    def of_clip(
        cls,
        shape: Sequence[int],
        *,
        time_stride: int,
        stride: int,
        subsample: int,
        frames: int,
        network_size: tuple[int, int],
        size: tuple[int, int],
    ) -> "ClipGrid":
        """The grid of a block in a video network.

        Args:
            shape: time steps, height and width of the block's input, in positions.
            time_stride: of the block's input, in frames of the clip.
            frames: of the clip.
            stride, subsample, network_size, size: as for `Grid.of_image`, of its frames.
        """
        return cls(
            time=Axis(
                start=0.0,
                step=float(time_stride),
                length=shape[0],
                end=float(frames),
                subsample=1,
            ),
            space=Grid.of_image(
                shape[1:],
                stride=stride,
                subsample=subsample,
                network_size=network_size,
                size=size,
            ),
        )

    def step(self, frame: int) -> int:
        """The time step that covers a frame of the clip."""
        return self.time.position(frame + 0.5)

    def position(self, frame: int, x: float, y: float) -> int:
        """The number of the position of x that covers the point, the last axis fastest."""
        area = self.space.y.length * self.space.x.length
        return self.step(frame) * area + self.space.position(x, y)
