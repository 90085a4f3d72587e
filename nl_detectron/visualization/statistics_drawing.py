"""A figure of the statistics of one block."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..analysis.statistics import SHARES, BlockStatistics

_OWN, _UNIFORM = "#1f6f8b", "#b8bec6"
_SHARE_COLORS = ("#1f6f8b", "#67a9b9", "#d98c3f", "#dfe3e8")


def draw_statistics(block: BlockStatistics) -> Figure:
    """Draw entropy, reach, query dependence and, with regions, the shares of the weight.

    Each panel compares the block with uniform weights, or with pairs of queries of different
    samples.
    """
    figures = block.figures()
    panels = [
        _draw_entropy,
        _draw_reach,
        _draw_dependence,
        *([_draw_shares] if "own" in figures else []),
    ]
    figure = Figure(figsize=(2.3 * len(panels), 2.2), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels)), strict=True):
        panel(axes, block, figures)
        axes.tick_params(labelsize=7)
        axes.title.set_fontsize(8)
        axes.xaxis.label.set_fontsize(8)
        axes.spines[["top", "right"]].set_visible(False)
    ratio = figures["residual_ratio"]
    figure.suptitle(f"{block.name}, {block.form}; residual ratio {ratio:.2g}", fontsize=8)
    return figure


def _draw_entropy(axes: Axes, block: BlockStatistics, figures: dict[str, float]) -> None:
    counts = block.entropies.numpy()
    edges = np.linspace(0, 1, len(counts) + 1)
    axes.stairs(counts / counts.sum(), edges, fill=True, color=_OWN)
    axes.set(xlim=(0, 1), xlabel="entropy / log M", title="queries")
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _draw_reach(axes: Axes, block: BlockStatistics, figures: dict[str, float]) -> None:
    own, uniform = block.by_distance.numpy()
    ends = np.linspace(0, 1, len(own) + 1)
    for weights, color, label in ((uniform, _UNIFORM, "uniform"), (own, _OWN, "block")):
        axes.plot(ends, [0, *np.cumsum(weights) / weights.sum()], color=color, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="distance / diagonal", title="weight up to there")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(fontsize=7, frameon=False)


def _draw_dependence(axes: Axes, block: BlockStatistics, figures: dict[str, float]) -> None:
    for x, (name, color) in enumerate((("", _OWN), ("_between", _UNIFORM))):
        values = [figures.get(f"{key}{name}", 0.0) for key in ("divergence", "cosine")]
        label = "other sample" if name else "same sample"
        axes.bar(np.arange(2) + 0.35 * (x - 0.5), values, 0.33, color=color, label=label)
    axes.set_xticks([0, 1], ["divergence", "cosine"])
    axes.set(ylim=(0, 1.02), title="two queries differ by")
    axes.legend(fontsize=7, frameon=False)


def _draw_shares(axes: Axes, block: BlockStatistics, figures: dict[str, float]) -> None:
    left = np.zeros(2)
    for name, color in zip(SHARES, _SHARE_COLORS, strict=True):
        values = np.array([figures[name], figures[f"{name}_uniform"]])
        axes.barh([1, 0], values, left=left, color=color, label=name.replace("_", " "))
        left += values
    axes.set_yticks([1, 0], ["block", "uniform"])
    axes.set(xlim=(0, 1), ylim=(-1.6, 1.6), title="weight of a region's queries")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(fontsize=6, frameon=False, ncols=2, loc="lower center")
