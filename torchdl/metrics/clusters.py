"""Metrics of clusters against labels."""

from __future__ import annotations

import torch

from torchdl.errors import require
from torchdl.metrics.inputs import ArrayLike, as_labels


def clustering_accuracy(clusters: ArrayLike, labels: ArrayLike, number: int) -> float:
    """Return the accuracy of clusters under their best one-to-one matching with labels (Kuhn 1955).

    Args:
        clusters: (N,) whole numbers, each example's cluster, below ``number``.
        labels: (N,) whole numbers, each example's label, below ``number``.
        number: Number of clusters, and of labels.

    Raises:
        InputError: There is not one label per example, or a number is outside its range.
    """
    from scipy.optimize import linear_sum_assignment  # imported late: it takes half a second

    clusters, labels = as_labels(clusters, number, "clusters"), as_labels(labels, number, "labels")
    require(clusters.shape == labels.shape, f"there must be {len(clusters)} labels, one per example, not {len(labels)}")
    counts = torch.bincount(clusters * number + labels, minlength=number**2).view(number, number).cpu().numpy()
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))
