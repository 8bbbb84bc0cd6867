"""What is measured besides losses."""

from __future__ import annotations

import torch
from torch import Tensor

from torchdl.errors import require


def name_clusters(clusters: Tensor, labels: Tensor, number: int) -> Tensor:
    """Give every cluster the label that the best one-to-one matching gives it (Kuhn 1955).

    Args:
        clusters: (N,) int64, each example's cluster, below ``number``.
        labels: (N,) int64, its label, below ``number``.
        number: How many clusters and labels there are.

    Returns:
        (number,) int64, the label of each cluster.
    """
    from scipy.optimize import linear_sum_assignment  # imported late: it takes half a second

    require(clusters.shape == labels.shape, "there must be one label for each example's cluster")
    counts = torch.bincount(clusters * number + labels, minlength=number**2).view(number, number)
    return torch.from_numpy(linear_sum_assignment(counts.cpu().numpy(), maximize=True)[1])


def clustering_accuracy(clusters: Tensor, labels: Tensor, number: int) -> float:
    """Return the share of examples (N,) whose cluster has their label, under the best one-to-one matching."""
    return float((name_clusters(clusters, labels, number).to(clusters.device)[clusters] == labels).float().mean())
