"""Metrics of clusters against labels."""

from __future__ import annotations

import torch
from torch import Tensor

from torchdl.errors import require


def clustering_accuracy(clusters: Tensor, labels: Tensor, number: int) -> float:
    """Return the accuracy of clusters under their best one-to-one matching with labels (Kuhn 1955).

    Args:
        clusters: (N,) int64, each example's cluster, below ``number``.
        labels: (N,) int64, each example's label, below ``number``.
        number: Number of clusters, and of labels.

    Raises:
        InputError: There is not one label per example.
    """
    from scipy.optimize import linear_sum_assignment  # imported late: it takes half a second

    require(clusters.shape == labels.shape, f"there must be {len(clusters)} labels, one per example, not {len(labels)}")
    counts = torch.bincount(clusters * number + labels, minlength=number**2).view(number, number).cpu().numpy()
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))
