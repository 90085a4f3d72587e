"""Accuracy and mean average precision, from scores as arrays."""

import numpy as np


def label_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count the classes that score higher than a sample's label, or the best of its labels.

    Among equal scores the lower class comes first, as in an argmax. Without a label the count is C.

    Args:
        scores: (N, C).
        labels: bool (N, C).

    Returns:
        int (N,).
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    found = np.take_along_axis(labels, order, axis=1)
    return np.where(found.any(axis=1), found.argmax(axis=1), scores.shape[1])


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return ``sum_n (R_n - R_{n-1}) P_n`` over all thresholds n, as scikit-learn does.

    Equal scores share a threshold, so their order does not matter.

    Args:
        scores: (N,).
        positive: bool (N,), with at least one True.
    """
    order = np.argsort(-scores, kind="stable")
    # The last of each run of equal scores.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.cumsum(positive[order])[last]
    precision = found / (last + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / found[-1])


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over the classes that have a sample.

    Args:
        scores: (N, classes).
        labels: bool (N, classes).
    """
    classes = np.flatnonzero(labels.any(axis=0))
    return float(np.mean([average_precision(scores[:, c], labels[:, c]) for c in classes]))
