"""Attention through a clip: a strip of frames as in Figure 3 of the paper, and an animation."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from ..data import video_file
from .clip_attention import ClipAttention, ClipLook
from .drawing import (
    DPI,
    LEAST_SHARE,
    QUERY_COLOUR,
    colour_numbers,
    draw_arrow,
    draw_query,
    explain,
    format_weight,
    palette,
    veiled,
)

COLUMNS = 8  # of a strip, at most
GAP = 0.06  # between its frames, in widths of a frame
LABEL = 0.14  # above each, in heights of a frame
FRAME_INCHES = 2.0
PANEL_INCHES = 3.0
PANEL_COLUMNS = 3  # of an animation, at most
Extent = tuple[float, float, float, float]  # left, right, bottom, top
HEAT_OPACITY = 0.7  # what is looked at, often as small as a window, stays visible below it
HEAT_SIDE = 96  # of a heat map, which is then scaled


def draw_strip(
    look: ClipLook, attentions: Sequence[ClipAttention], *, arrows: int = 8, title: str = ""
) -> Figure:
    """For each attention a strip: a frame for each time step, heat, and arrows from the query.

    Args:
        arrows: to how many of the strongest positions above an even share, at most.
    """
    height, width = look.clip.size
    strips = [_Strip(attention, height=height, width=width) for attention in attentions]
    columns = max(strip.columns for strip in strips)
    scale = FRAME_INCHES / (width * (1 + GAP))
    heights = [strip.height * scale + 0.55 for strip in strips]
    figure = Figure(figsize=(columns * FRAME_INCHES + 0.3, sum(heights) + 0.45), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    guess = ", ".join(f"{name} {score:.0%}" for name, score in look.best(3))
    figure.suptitle(f"{title or look.clip.file.name}: {guess}", fontsize=11, x=0.01, ha="left")
    every = figure.subplots(len(strips), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, strip in zip(every, strips, strict=True):
        strip.draw(axes, look, arrows=arrows)
        axes.set(xlim=(0, columns * width * (1 + GAP)), ylim=(strip.height, 0))
        axes.set(aspect="equal", xticks=[], yticks=[], frame_on=False, anchor="W")
        attention = strip.attention
        text = f"{attention.block} from {attention.query.label}; {explain(attention)}"
        axes.set_title(text, fontsize=8, loc="left", wrap=True)
    return figure


class _Strip:
    """Where the frames of one attention stand in its strip, row by row.

    Its time steps are as many as the block's; a step is shown by its middle frame, and that of
    the query by the query's own.
    """

    def __init__(self, attention: ClipAttention, *, height: int, width: int) -> None:
        self.attention = attention
        self.frame_height, self.frame_width = height, width
        self.shown = attention.grid.time.windows().mean(axis=1).astype(int)
        self.shown[attention.grid.step(attention.query.frame)] = attention.query.frame
        self.columns = min(COLUMNS, len(self.shown))

    @property
    def height(self) -> float:
        return math.ceil(len(self.shown) / self.columns) * self.frame_height * (1 + LABEL)

    def place(self, step: int, x: float, y: float) -> tuple[float, float]:
        """Where (x, y) of the frame of a time step is in the strip."""
        row, column = divmod(step, self.columns)
        return (
            x + (column * (1 + GAP) + GAP / 2) * self.frame_width,
            y + row * self.frame_height * (1 + LABEL) + LABEL * self.frame_height,
        )

    def draw(self, axes: Axes, look: ClipLook, *, arrows: int) -> None:
        attention = self.attention
        own = attention.grid.step(attention.query.frame)
        for step, frame in enumerate(self.shown):
            left, top = self.place(step, 0, 0)
            right, bottom = self.place(step, self.frame_width, self.frame_height)
            extent = (left, right, bottom, top)
            axes.imshow(veiled(look.clip.frames[frame]), extent=extent, interpolation="bilinear")
            _show_heat(axes, attention, step, extent)
            weight = float(attention.weights[step].sum())
            label = f"frame {look.clip.numbers[frame]}"
            if not attention.sees[step].any():
                label += ": not seen"
            elif not attention.signed:
                is_little = weight < LEAST_SHARE
                shown = f"<{LEAST_SHARE:.1%}" if is_little else format_weight(attention, weight)
                label += f": {shown}"
            axes.text(
                left,
                top - 0.03 * self.frame_height,
                label,
                fontsize=8,
                color="#007d8a" if step == own else "black",
                fontweight="bold" if step == own else "normal",
            )
        query = self.place(own, attention.query.x, attention.query.y)
        for step, x, y, weight in attention.strongest(arrows):
            draw_arrow(axes, query, self.place(step, x, y), weight / attention.peak)
        draw_query(axes, *query)


def _show_heat(axes: Axes, attention: ClipAttention, step: int, extent: Extent) -> AxesImage:
    return axes.imshow(
        _heat(attention, step),
        cmap=ListedColormap(palette(signed=attention.signed, opacity=HEAT_OPACITY)),
        vmin=0,
        vmax=255,
        extent=extent,
        interpolation="bilinear",
    )


def _heat(attention: ClipAttention, step: int) -> np.ndarray:
    """The weights of a time step over a frame, as numbers of `palette`."""
    values = attention.grid.space.sample(attention.weights[step], height=HEAT_SIDE, width=HEAT_SIDE)
    return colour_numbers(attention, values)


def animate(look: ClipLook, attentions: Sequence[ClipAttention], *, arrows: int = 8) -> np.ndarray:
    """The clip, with heat and arrows of each block as its frames pass: RGB uint8 (T, H, W, 3).

    Arrows go to the positions in the frame that is shown, from the place of the query, whose dot
    is filled in its own frame. H and W are even, as video files want it.
    """
    height, width = look.clip.size
    panels = 1 + len(attentions)
    columns = min(PANEL_COLUMNS, panels)
    rows = math.ceil(panels / columns)
    side = PANEL_INCHES / max(height, width)
    size = (columns * width * side, rows * (height * side + 0.3) + 0.25)
    wide, high = (math.ceil(inches * DPI / 2) * 2 / DPI for inches in size)  # even in pixels
    figure = Figure(figsize=(wide, high), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in every:
        axes.set(xticks=[], yticks=[], frame_on=False)
    extent = (0, width, height, 0)
    name, score = look.best(1)[0]
    every[0].set_title(f"{name} {score:.0%}", fontsize=8)
    plain = every[0].imshow(look.clip.frames[0], extent=extent)
    moving = [
        _Panel(axes, look, attention, arrows=arrows, extent=extent)
        for axes, attention in zip(every[1:], attentions, strict=False)
    ]
    images = []
    for frame, number in enumerate(look.clip.numbers):
        figure.suptitle(f"{look.clip.file.name}, frame {number}", fontsize=9)
        plain.set_data(look.clip.frames[frame])
        for panel in moving:
            panel.show(frame)
        canvas.draw()
        if not frame:  # what is laid out once does not move
            figure.set_layout_engine("none")
        images.append(np.asarray(canvas.buffer_rgba())[:, :, :3].copy())
    return np.stack(images)


class _Panel:
    """One block's part of an animation."""

    def __init__(
        self,
        axes: Axes,
        look: ClipLook,
        attention: ClipAttention,
        *,
        arrows: int,
        extent: Extent,
    ) -> None:
        self.attention = attention
        self.frames = np.stack([veiled(frame) for frame in look.clip.frames])
        query = attention.query
        axes.set_title(".".join(attention.block.split(".")[-2:]), fontsize=8)
        self.image = axes.imshow(self.frames[0], extent=extent)
        self.heat = _show_heat(axes, attention, 0, extent)
        self.arrows = [
            (step, draw_arrow(axes, (query.x, query.y), (x, y), weight / attention.peak))
            for step, x, y, weight in attention.strongest(arrows)
        ]
        self.dot = draw_query(axes, query.x, query.y)
        axes.set(xlim=extent[:2], ylim=extent[2:])

    def show(self, frame: int) -> None:
        step = self.attention.grid.step(frame)
        self.image.set_data(self.frames[frame])
        self.heat.set_data(_heat(self.attention, step))
        for at, arrow in self.arrows:
            arrow.set_visible(at == step)
        self.dot.set_markerfacecolor(
            QUERY_COLOUR if frame == self.attention.query.frame else "none"
        )


def write_animation(images: np.ndarray, file: Path, *, rate: float) -> None:
    """Write `file` with the suffix .mp4 (H.264, by PyAV) or .gif, which repeats.

    Args:
        images: RGB uint8 (T, H, W, 3), H and W even.
        rate: frames a second; in a file a whole number, at least 1.

    Raises:
        UserError: PyAV is not installed.
        OSError: `file` cannot be written.
    """
    whole = max(1, round(rate))
    if file.suffix == ".mp4":
        video_file.write(file, images, rate=whole)
        return
    first, *rest = (Image.fromarray(image) for image in images)
    first.save(file, save_all=True, append_images=rest, duration=round(1000 / whole), loop=0)
