"""An image that all experiments have."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .statistics import mean


def plot_arms(found: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Draw a row for each arm: its mean, and its seeds as dots.

    Args:
        found: of each seed, by the arm's name.
        label: what `found` is.
    """
    figure = Figure(figsize=(7, 0.9 + 0.27 * len(found)), layout="constrained")
    panel = figure.subplots()
    for row, seeds in enumerate(found.values()):
        panel.plot([mean(seeds).estimate] * 2, [row - 0.3, row + 0.3], color="C0")
        panel.plot(seeds, [row] * len(seeds), ".", color="C0", alpha=0.5)
    panel.set_yticks(range(len(found)), list(found), fontsize=8)
    panel.invert_yaxis()
    panel.set_xlim(right=102)
    panel.set_xlabel(label)
    panel.grid(axis="x", alpha=0.3)
    return figure
