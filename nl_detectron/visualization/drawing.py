"""Drawings of attention: heat map and arrows, in a sheet of an image or a strip of a clip.

A strip is as Figure 3 of the paper.
"""

import math
from collections.abc import Sequence
from itertools import groupby
from textwrap import fill

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from ..analysis.attention import Attention, ClipAttention, ImageAttention
from ..analysis.clip import Clip

QUERY_COLOR = "#00e5ff"
VEIL = 0.4  # darkening and graying of the image below a heat map
BELOW_SCALE = "#3a3d42"  # a dark image's color, below the transparent end of the color bar
LEAST_PEAK = 4  # smallest end of the color scale, as a multiple of an even share
LEAST_SHARE = 0.001  # smallest share of a time step that is written out
HEAT_SIDE = 256  # side of a heat map before scaling
COLUMNS = 4  # largest number in a sheet
MAX_PANELS = 8  # for each block in a sheet
PANEL_INCHES = 4.0
NOTE_WIDTH = 40  # characters below a panel
STRIP_COLUMNS = 8  # largest number in a strip
GAP = 0.06  # between its frames, in widths of a frame
LABEL = 0.14  # above each frame, in heights of a frame
FRAME_INCHES = 2.0
STRIP_OPACITY = 0.7  # objects, often as small as a window, stay visible below the heat
DPI = 110
EMPTY = {"xticks": [], "yticks": [], "frame_on": False}
"""Axes of a panel."""


def palette(*, signed: bool, opacity: float = 0.9) -> np.ndarray:
    """Return the 256 colors of a heat map: (256, 4), RGBA from 0 to 1.

    Without sign they go from weight 0 to `scale_end`, with sign from minus to plus `scale_end`:
    blue is negative, red positive. Opacity grows with the distance from zero.
    """
    steps = np.linspace(-1 if signed else 0, 1, 256)
    if signed:
        # The middle of the scale is transparent, so only its two arms are used.
        colors = colormaps["RdBu_r"](0.5 + np.sign(steps) * (0.25 + 0.2 * np.abs(steps)))
    else:
        colors = colormaps["inferno"](0.15 + 0.85 * steps)
    colors[:, 3] = opacity * np.abs(steps) ** 0.6
    return colors


def scale_end(attention: Attention) -> float:
    """Return the weight of the strongest color: the peak, unless attention is nearly even.

    A map that is even to a few % must look flat, not full of peaks.
    """
    if attention.signed:
        return attention.peak or 1.0
    return max(attention.peak, LEAST_PEAK * attention.even)


def heat_map(attention: Attention, *, height: int, width: int, step: int = 0) -> np.ndarray:
    """Return the weights of a time step over the grid's box as indices into `palette`.

    Returns (height, width), uint8.
    """
    values = attention.grid.sample(attention.weights[step], height=height, width=width)
    values = values / scale_end(attention)
    if attention.signed:
        values = (values + 1) / 2
    return np.round(255 * values).clip(0, 255).astype(np.uint8)


def draw_frame(
    axes: Axes,
    image: np.ndarray,
    attention: Attention,
    *,
    step: int = 0,
    size: tuple[int, int],
    offset: tuple[float, float] = (0.0, 0.0),
    opacity: float = 0.9,
) -> AxesImage:
    """Draw the weights of a time step over a darkened frame; return the heat map.

    Args:
        image: RGB uint8, of any size.
        size: height and width in the coordinates of `axes`.
        offset: x and y of the frame's upper left corner there.
    """
    (height, width), (left, top), (x0, y0, x1, y1) = size, offset, attention.grid.box
    gray = image.mean(axis=2, keepdims=True)
    veiled = np.round((1 - VEIL) * (0.5 * image + 0.5 * gray)).astype(np.uint8)
    axes.imshow(veiled, extent=(left, left + width, top + height, top), interpolation="bilinear")
    return axes.imshow(
        heat_map(attention, height=HEAT_SIDE, width=HEAT_SIDE, step=step),
        cmap=ListedColormap(palette(signed=attention.signed, opacity=opacity)),
        vmin=0,
        vmax=255,
        extent=(left + x0, left + x1, top + y1, top + y0),
        interpolation="bilinear",
    )


def format_weight(attention: Attention, weight: float) -> str:
    """Format a weight as a share in %, or as a signed number."""
    return f"{weight:.3g}" if attention.signed else f"{100 * weight:.3g}%"


def explain(attention: Attention) -> str:
    """Return one line about the color scale, with the numbers at its ends."""
    if attention.signed:
        text = f"signed weights f/C (no softmax), on a symmetric scale, ±{attention.peak:.3g}"
    else:
        times = attention.peak / attention.even
        text = f"share of attention; the strongest is {times:.3g} times an even share"
    if attention.padding >= 0.005:
        text += f"; {attention.padding:.0%} lies in the padding"
    return text


def draw_sheet(
    seen: ImageAttention,
    *,
    detections: np.ndarray | None = None,
    arrows: int = 8,
    title: str = "",
) -> Figure:
    """Draw a sheet with the image, its detections, and up to MAX_PANELS queries for each block.

    Args:
        detections: the image of `draw_instances`; None skips that panel.
        arrows: largest number of arrows, to the strongest positions above an even share.
    """
    groups = [
        (block, every[:: math.ceil(len(every) / MAX_PANELS)])  # evenly from all
        for block, group in groupby(seen.attentions, key=lambda attention: attention.block)
        for every in [list(group)]
    ]
    rows = [1, *(math.ceil(len(group) / COLUMNS) for _, group in groups)]
    height, width = seen.image.shape[:2]
    panel_height = PANEL_INCHES * min(max(height / width, 0.5), 1.5) + 0.7
    columns = min(COLUMNS, max([2, *(len(group) for _, group in groups)]))
    figure = Figure(
        figsize=(columns * PANEL_INCHES, sum(rows) * panel_height + 0.4),
        dpi=DPI,
        layout="constrained",
    )
    parts = figure.subfigures(len(rows), squeeze=False, height_ratios=rows)[:, 0]
    panels = [
        part.subplots(count, columns, squeeze=False, subplot_kw=EMPTY).ravel()
        for part, count in zip(parts, rows, strict=True)
    ]
    panels[0][0].imshow(seen.image)
    panels[0][0].set_title(title or "image", fontsize=10)
    if detections is not None:
        panels[0][1].imshow(detections)
        panels[0][1].set_title(f"{len(seen.instances)} detections", fontsize=10)
    for part, every, (block, group) in zip(parts[1:], panels[1:], groups, strict=True):
        part.suptitle(block, fontsize=12, fontweight="bold", x=0.01, ha="left")
        for axes, attention in zip(every, group, strict=False):
            heat = _draw_panel(axes, seen, attention, arrows=arrows)
            axes.set_title(attention.query.label, fontsize=10)
            bar = part.colorbar(heat, ax=axes, fraction=0.04, pad=0.02)
            ends = [-1, 0, 1] if attention.signed else [0, 1]
            labels = [format_weight(attention, end * scale_end(attention)) for end in ends]
            bar.set_ticks(np.linspace(0, 255, len(ends)), labels=labels, fontsize=8)
            bar.ax.set_facecolor(BELOW_SCALE)
            axes.set_xlabel(fill(explain(attention), NOTE_WIDTH), fontsize=8)
    return figure


def _draw_panel(
    axes: Axes, seen: ImageAttention, attention: Attention, *, arrows: int
) -> AxesImage:
    """Draw the grid's box and a fifth around it, in pixels of the image; return the heat map."""
    height, width = size = seen.image.shape[:2]
    heat = draw_frame(axes, seen.image, attention, size=size)
    query = attention.query
    for _, x, y, weight in attention.strongest(arrows):
        draw_arrow(axes, (query.x, query.y), (x, y), weight / attention.peak)
    draw_query(axes, query.x, query.y)
    x0, y0, x1, y1 = attention.grid.box
    margin = max(x1 - x0, y1 - y0) / 5
    axes.set(xlim=(max(0, x0 - margin), min(width, x1 + margin)))
    axes.set(ylim=(min(height, y1 + margin), max(0, y0 - margin)), aspect="equal")
    return heat


def draw_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], strength: float
) -> None:
    """Draw the arrow of a weight of `strength` times the peak; blue if that is negative."""
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        arrowprops={
            "arrowstyle": "-|>",
            "shrinkA": 4,
            "shrinkB": 0,
            "mutation_scale": 9,
            "linewidth": 0.6 + 1.2 * abs(strength),
            "color": "#7fb8ff" if strength < 0 else "white",
            "alpha": 0.35 + 0.65 * abs(strength),
            "path_effects": [withStroke(linewidth=2.6, foreground=(0, 0, 0, 0.45))],
        },
    )


def draw_query(axes: Axes, x: float, y: float) -> None:
    """Draw the dot of the query."""
    outline = [withStroke(linewidth=2.5, foreground="black")]
    axes.plot(x, y, "o", ms=6, mfc=QUERY_COLOR, mec="black", path_effects=outline)


def draw_strip(
    seen: ClipAttention, attentions: Sequence[Attention], *, arrows: int = 8, title: str = ""
) -> Figure:
    """Draw a strip for each attention: a frame per time step, heat, and arrows from the query.

    Args:
        arrows: largest number of arrows, to the strongest positions above an even share.
    """
    height, width = seen.clip.size
    columns = min(STRIP_COLUMNS, max(len(attention.weights) for attention in attentions))
    sides = [
        math.ceil(len(attention.weights) / columns) * height * (1 + LABEL)
        for attention in attentions
    ]
    scale = FRAME_INCHES / (width * (1 + GAP))
    heights = [side * scale + 0.55 for side in sides]
    figure = Figure(
        figsize=(columns * FRAME_INCHES + 0.3, sum(heights) + 0.45), dpi=DPI, layout="constrained"
    )
    guess = ", ".join(f"{name} {score:.0%}" for name, score in seen.best(3))
    figure.suptitle(f"{title or seen.clip.file.name}: {guess}", fontsize=11, x=0.01, ha="left")
    every = figure.subplots(len(sides), 1, squeeze=False, height_ratios=heights, subplot_kw=EMPTY)
    for axes, attention, side in zip(every[:, 0], attentions, sides, strict=True):
        _draw_frames(axes, seen.clip, attention, columns=columns, arrows=arrows)
        axes.set(xlim=(0, columns * width * (1 + GAP)), ylim=(side, 0))
        axes.set(aspect="equal", anchor="W")
        text = f"{attention.block} from {attention.query.label}; {explain(attention)}"
        axes.set_title(text, fontsize=8, loc="left", wrap=True)
    return figure


def _draw_frames(
    axes: Axes, clip: Clip, attention: Attention, *, columns: int, arrows: int
) -> None:
    """Draw the middle frame of each time step, and the query's own frame for its time step."""
    (height, width), query = clip.size, attention.query
    own = attention.grid.step(query.frame)
    shown = attention.grid.time.centers().astype(int)
    shown[own] = query.frame

    def place(step: int, x: float = 0.0, y: float = 0.0) -> tuple[float, float]:
        row, column = divmod(step, columns)
        left = (column * (1 + GAP) + GAP / 2) * width
        return left + x, (row * (1 + LABEL) + LABEL) * height + y

    for step, frame in enumerate(shown):
        draw_frame(
            axes,
            clip.frames[frame],
            attention,
            step=step,
            size=clip.size,
            offset=place(step),
            opacity=STRIP_OPACITY,
        )
        axes.text(
            *place(step, y=-0.03 * height),
            f"frame {clip.numbers[frame]}{_share(attention, step)}",
            fontsize=8,
            color="#007d8a" if step == own else "black",
            fontweight="bold" if step == own else "normal",
        )
    start = place(own, query.x, query.y)
    for step, x, y, weight in attention.strongest(arrows):
        draw_arrow(axes, start, place(step, x, y), weight / attention.peak)
    draw_query(axes, *start)


def _share(attention: Attention, step: int) -> str:
    """Return the share of a time step, to follow its name."""
    if not attention.sees[step].any():
        return ": not seen"
    if attention.signed:
        return ""
    weight = float(attention.weights[step].sum())
    is_little = weight < LEAST_SHARE
    return f": <{LEAST_SHARE:.1%}" if is_little else f": {format_weight(attention, weight)}"
