"""Attention through a clip: a strip of frames as in Figure 3 of the paper."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..analysis.attention import Attention, ClipAttention
from ..analysis.clip import Clip
from .drawing import (
    DPI,
    EMPTY,
    LEAST_SHARE,
    draw_arrow,
    draw_frame,
    draw_query,
    explain,
    format_weight,
)

COLUMNS = 8  # largest number in a strip
GAP = 0.06  # between its frames, in widths of a frame
LABEL = 0.14  # above each frame, in heights of a frame
FRAME_INCHES = 2.0
OPACITY = 0.7  # objects, often as small as a window, stay visible below the heat


def draw_strip(
    seen: ClipAttention, attentions: Sequence[Attention], *, arrows: int = 8, title: str = ""
) -> Figure:
    """Draw a strip for each attention: a frame per time step, heat, and arrows from the query.

    Args:
        arrows: largest number of arrows, to the strongest positions above an even share.
    """
    height, width = seen.clip.size
    columns = min(COLUMNS, max(len(attention.weights) for attention in attentions))
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
        axes.set(aspect="equal", xticks=[], yticks=[], anchor="W")
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
            opacity=OPACITY,
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
