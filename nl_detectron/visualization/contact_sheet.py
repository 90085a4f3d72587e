"""Videos as rows of frames, with their predicted classes."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure

RIGHT, WRONG = "#1b7f3b", "#b3261e"


def draw_contact_sheet(
    videos: Iterable[tuple[np.ndarray, np.ndarray, Sequence[int]]],
    classes: Sequence[str],
    *,
    top: int = 3,
) -> Figure:
    """Draw a row for each video: some of its frames, and the `top` classes with their scores.

    Args:
        videos: frames, RGB uint8 ``(T, H, W, 3)``, scores ``(C,)``, and the true classes.
        classes: C names.
    """
    rows = list(videos)
    figure = Figure(figsize=(13, 1.45 * len(rows)))
    axes = np.atleast_1d(figure.subplots(len(rows), 1))
    for axis, (frames, scores, labels) in zip(axes, rows, strict=True):
        gap = np.full((frames.shape[1], 3, 3), 255, np.uint8)
        strip = [part for frame in frames for part in (frame, gap)]
        axis.imshow(np.concatenate(strip, axis=1))
        axis.axis("off")
        truth = ", ".join(classes[label] for label in labels)
        for line, c in enumerate(np.argsort(-scores, kind="stable")[:top]):
            axis.text(
                1.01,
                0.78 - 0.24 * line,
                f"{100 * scores[c]:.0f} % {classes[c]}",
                color=RIGHT if c in labels else WRONG,
                weight="bold" if line == 0 else "normal",
                transform=axis.transAxes,
            )
        axis.set_title(truth, fontsize=9, loc="left", pad=2)
    figure.subplots_adjust(left=0.01, right=0.8, top=0.98, bottom=0.01, hspace=0.25)
    return figure
