"""What clusters are worth against labels."""

from __future__ import annotations

import torch
from torch import Tensor

from torchdl.errors import require


def clustering_accuracy(clusters: Tensor, labels: Tensor, number: int) -> float:
    """Return the share of examples whose cluster has their label, under the best one-to-one matching (Kuhn 1955).

    Args:
        clusters: (N,) int64, each example's cluster, below ``number``.
        labels: (N,) int64, its label, below ``number``.
        number: How many clusters and labels there are.
    """
    from scipy.optimize import linear_sum_assignment  # imported late: it takes half a second

    require(clusters.shape == labels.shape, "there must be one label for each example's cluster")
    counts = torch.bincount(clusters * number + labels, minlength=number**2).view(number, number).cpu().numpy()
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels))
