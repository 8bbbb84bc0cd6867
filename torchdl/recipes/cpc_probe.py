"""Probe what a frozen encoder has learnt: by a network, a linear map, neighbours, clusters and few labels.

Shapes: V views of N examples, D numbers an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from torchdl.data import BatchLoader
from torchdl.metrics import clustering_accuracy
from torchdl.plots import plot_confusion, plot_embeddings, plot_label_efficiency
from torchdl.recipes.report import Report
from torchdl.tasks import Supervised, accuracy, plateau
from torchdl.training.device import find_device
from torchdl.training.trainer import Trainer

SHARES = (0.01, 0.1)  # of the labels
DRAWS = 50  # of one label a class


class Embeddings(Dataset):
    """Embeddings (V, N, D) with their labels (N,): each epoch sees the next view of every example."""

    def __init__(self, codes: Tensor, labels: Tensor) -> None:
        self.codes, self.labels, self.view = codes, labels, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's view."""
        self.view = epoch % len(self.codes)

    @property
    def device(self) -> torch.device:
        """The device that the codes are on."""
        return self.codes.device

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.codes[self.view, indices], self.labels[indices]


@torch.no_grad()
def encode(encoder: nn.Module, data: Dataset, views: int = 1, device: str = "auto") -> Embeddings:
    """Encode labelled images, in ``views`` epochs' versions of each, in evaluation mode; the codes are on the CPU."""
    on = find_device(device)
    encoder.eval().to(on)
    loader = BatchLoader(data, 500)
    loader.to(on)
    codes, labels = [], []
    for view in range(views):
        for (images, label), _ in loader.batches(view):
            codes.append(encoder(images).cpu())
            labels.append(label.cpu())
    one_view = torch.cat(labels[: len(loader)])  # (N,)
    return Embeddings(torch.cat(codes).unflatten(0, (views, -1)), one_view)  # (V * N, D) -> (V, N, D)


def fit_head(head: nn.Module, train: Embeddings, validation: Embeddings, epochs: int, seed: int, device: str) -> None:
    """Train a network on codes as the original trains its probe, through the trainer; it is left on the CPU."""
    task = Supervised(head, F.cross_entropy, {"accuracy": accuracy}, schedule=lambda adam, _: plateau(adam))
    trainer = Trainer(epochs=epochs, seed=seed, device=device)
    trainer.fit(task, BatchLoader(train, 64, shuffle=True, seed=seed), BatchLoader(validation, 1000))
    head.eval().cpu()


def linear_score(codes: np.ndarray, labels: np.ndarray, test_codes: np.ndarray, test_labels: np.ndarray) -> float:
    """Return the test accuracy of scikit-learn's logistic regression on standardised codes (n, D)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)).fit(codes, labels)
    return float(probe.score(test_codes, test_labels))


def few_labels(codes: Tensor, labels: Tensor, centres: Tensor, test: Embeddings, seed: int) -> dict[str, list[float]]:
    """Label one example of each class, ``DRAWS`` times, and classify the test codes from those alone.

    Args:
        codes: (N, D) to draw the labelled examples from.
        labels: (N,) of which only the drawn ones are used.
        centres: (classes, D) of the clusters that k-means has found in codes without labels.
        test: What to classify.
        seed: Of the draws.

    Returns:
        The accuracies by method: ``nearest`` takes the label of the labelled code of the nearest direction;
        ``cluster`` that of the cluster, each named by the labelled code that a one-to-one matching gives it.
    """
    from scipy.optimize import linear_sum_assignment

    classes, generator = len(centres), torch.Generator().manual_seed(seed)
    members = [(labels == label).nonzero()[:, 0] for label in range(classes)]
    clusters = torch.cdist(test.codes[0], centres).argmin(1)  # (N,)
    directions, test_directions = F.normalize(codes, dim=1), F.normalize(test.codes[0], dim=1)
    found: dict[str, list[float]] = {"nearest": [], "cluster": []}
    for _ in range(DRAWS):
        chosen = torch.stack([m[torch.randint(len(m), (), generator=generator)] for m in members])  # (classes,)
        nearest = (test_directions @ directions[chosen].T).argmax(1)
        names = torch.from_numpy(linear_sum_assignment(torch.cdist(centres, codes[chosen]).numpy())[1])
        for method, answer in (("nearest", nearest), ("cluster", names[clusters])):
            found[method].append(accuracy_of(answer, test.labels))
    return found


def accuracy_of(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of predictions (N,) that are correct."""
    return float((predictions == labels).float().mean())


class Probes(NamedTuple):
    """What probes have found on the test codes.

    Attributes:
        accuracy: By the probe's name, several values where it was drawn anew.
        by_labels: By how many labels there were: for one a class the clusters named by them, else logistic regression.
        predictions: (N,) the network's.
    """

    accuracy: dict[str, list[float]]
    by_labels: dict[int, list[float]]
    predictions: Tensor


def probe(
    head: nn.Module,
    train: Embeddings,
    validation: Embeddings,
    test: Embeddings,
    epochs: int = 15,
    seed: int = 0,
    device: str = "auto",
) -> Probes:
    """Probe codes in every way there is here.

    Args:
        head: The network to train, codes (B, D) to logits (B, classes), such as :func:`torchdl.models.probe_head`.
        train: What the probes learn from.
        validation: What the network's learning rate follows.
        test: What is classified.
        epochs: Of the network.
        seed: Of all that is drawn.
        device: Where the network is trained.

    Returns:
        The report, with the probes

        - ``mlp``, the network; ``linear``, logistic regression on all views; ``knn``, ten neighbours by cosine.
        - ``k-means``, the clusters found in the training codes, named by the best matching on the test images.
        - ``1 label a class, nearest`` and ``..., cluster``, see :func:`few_labels`.
        - ``1% of the labels`` and ``10% of the labels``, logistic regression again.
    """
    from sklearn.cluster import KMeans
    from sklearn.neighbors import KNeighborsClassifier

    fit_head(head, train, validation, epochs, seed, device)
    with torch.no_grad():
        logits = head(test.codes[0])
    classes, predictions = logits.shape[1], logits.argmax(1)
    found = {"mlp": [accuracy_of(predictions, test.labels)]}
    views, labels = train.codes.numpy(), train.labels.numpy()
    x, y = test.codes[0].numpy(), test.labels.numpy()

    def linear(chosen: np.ndarray) -> float:
        of_all_views = views[:, chosen].reshape(-1, views.shape[2])  # (V, n, D) -> (V * n, D)
        return linear_score(of_all_views, np.tile(labels[chosen], len(views)), x, y)

    found["linear"] = [linear(np.arange(len(labels)))]
    neighbours = KNeighborsClassifier(10, metric="cosine", algorithm="brute").fit(views[0], labels)
    found["knn"] = [float(neighbours.score(x, y))]
    clusters = KMeans(classes, n_init=10, random_state=seed).fit(views[0])
    found["k-means"] = [clustering_accuracy(torch.from_numpy(clusters.predict(x)).long(), test.labels, classes)]
    centres = torch.from_numpy(clusters.cluster_centers_).float()
    for method, values in few_labels(train.codes[0], train.labels, centres, test, seed).items():
        found[f"1 label a class, {method}"] = values
    by_labels = {classes: found["1 label a class, cluster"], len(labels): found["linear"]}
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in range(classes)]
    for share in SHARES:
        draws = [
            np.concatenate([generator.permutation(m)[: max(1, round(share * len(m)))] for m in members])
            for _ in range(5)
        ]
        found[f"{share:.0%} of the labels"] = [linear(chosen) for chosen in draws]
        by_labels.setdefault(len(draws[0]), found[f"{share:.0%} of the labels"])
    return Probes(found, dict(sorted(by_labels.items())), predictions)


def map_embeddings(embeddings: Tensor, seed: int = 0) -> np.ndarray:
    """Lay embeddings (N, D) out in two dimensions, (N, 2), by t-SNE (van der Maaten and Hinton 2008)."""
    from sklearn.manifold import TSNE

    # t-SNE divides the principal components by their spread, and crashes Python where collapsed embeddings have none
    init = "pca" if embeddings.shape[1] > 1 and bool(embeddings.double().var(0).sum() > 1e-12) else "random"
    return TSNE(2, init=init, perplexity=min(30, len(embeddings) / 4), random_state=seed).fit_transform(
        embeddings.numpy()
    )


def probe_report(
    probes: Mapping[str, Probes], test: Embeddings, classes: Sequence[str], seed: int, more: Mapping[str, Any]
) -> Report:
    """Lay out what probes of several encoders found; the figures of single predictions are of the first encoder.

    Args:
        probes: By the encoder's name.
        test: The first encoder's test embeddings.
        classes: The classes' names.
        seed: Of the map.
        more: Results to add.
    """
    from sklearn.metrics import confusion_matrix

    first = next(iter(probes.values()))
    matrix = confusion_matrix(test.labels, first.predictions, labels=range(len(classes)))
    points, labels = map_embeddings(test.codes[0, :2000], seed), test.labels[:2000].numpy()
    curves = {name: found.by_labels for name, found in probes.items()}
    xlabel = "labels (one a class: k-means clusters named by them; more: logistic regression)"
    return Report(
        {**more, "accuracy": {name: found.accuracy for name, found in probes.items()}},
        "\n".join(f"{name} encoder\n{describe(found)}" for name, found in probes.items()),
        {
            "confusion": plot_confusion(matrix, classes),
            "codes": plot_embeddings(points, labels, classes, "embeddings of test digits, t-SNE"),
            "label_efficiency": plot_label_efficiency(curves, xlabel),
        },
    )


def describe(probes: Probes) -> str:
    """Return the accuracies of an encoder's probes as lines."""
    lines = []
    for key, values in probes.accuracy.items():
        spread = f" ± {100 * np.std(values):.2f} over {len(values)} draws" if len(values) > 1 else ""
        lines.append(f"  {key:28} {100 * np.mean(values):6.2f} %{spread}")
    return "\n".join(lines)
