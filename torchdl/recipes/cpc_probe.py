"""Probe what a frozen encoder has learnt: with a network, a linear model, neighbours, clusters and few labels.

Shapes: V views of N examples, D numbers per embedding, K classes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from torchdl.data import BatchLoader, ImageDataset
from torchdl.errors import require
from torchdl.features import CPCFeatures
from torchdl.metrics import clustering_accuracy
from torchdl.plots import plot_confusion, plot_embeddings, plot_label_efficiency
from torchdl.recipes.report import Report
from torchdl.tasks import Supervised, accuracy, plateau
from torchdl.training.trainer import Trainer

SHARES = (0.01, 0.1)  # shares of the labels that logistic regression learns from
DRAWS = 50  # random choices of one labelled example per class


class Embeddings(Dataset):
    """Embeddings, ``codes`` (V, N, D), and their labels (N,); each epoch uses the next view of every example."""

    def __init__(self, codes: Tensor, labels: Tensor) -> None:
        self.codes, self.labels, self.view = codes, labels, 0

    def set_epoch(self, epoch: int) -> None:
        """Select the view of an epoch."""
        self.view = epoch % len(self.codes)

    @property
    def device(self) -> torch.device:
        """The device of the embeddings."""
        return self.codes.device

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.codes[self.view, indices], self.labels[indices]


def encode(encoder: nn.Module, data: ImageDataset, views: int = 1, device: str = "auto") -> Embeddings:
    """Encode labelled images; the result is on the CPU.

    Args:
        encoder: Maps images (B, C, H, W) to embeddings (B, D).
        data: The images.
        views: V, the number of first epochs whose images are encoded.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        InputError: The images have no labels.
    """
    require(data.labels is not None, "a probe needs labelled images")
    features = CPCFeatures(encoder, device=device)
    codes = torch.stack([features.encode(data, epoch=view) for view in range(views)])  # (V, N, D)
    return Embeddings(codes, cast(Tensor, data.labels).cpu())


def fit_head(head: nn.Module, train: Embeddings, validation: Embeddings, epochs: int, seed: int, device: str) -> None:
    """Train a network on embeddings with the settings of the original probe, and leave it on the CPU.

    Args:
        head: Maps embeddings (B, D) to logits (B, K).
        train, validation: The embeddings.
        epochs: Epochs of training.
        seed: The seed of the batches' order.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    task = Supervised(head, F.cross_entropy, {"accuracy": accuracy}, schedule=lambda adam, _: plateau(adam))
    trainer = Trainer(epochs=epochs, seed=seed, device=device)
    trainer.fit(task, BatchLoader(train, 64, shuffle=True, seed=seed), BatchLoader(validation, 1000))
    head.eval().cpu()


def linear_score(
    codes: np.ndarray, labels: np.ndarray, test_codes: np.ndarray, test_labels: np.ndarray, max_iter: int = 500
) -> float:
    """Return the test accuracy of scikit-learn's logistic regression on standardised embeddings.

    Args:
        codes, labels: The training part's embeddings (N, D) and labels (N,).
        test_codes, test_labels: The test part's.
        max_iter: The maximum number of iterations.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=max_iter)).fit(codes, labels)
    return float(probe.score(test_codes, test_labels))


def few_labels(codes: Tensor, labels: Tensor, centres: Tensor, test: Embeddings, seed: int) -> dict[str, list[float]]:
    """Classify test embeddings from one labelled example per class, drawn ``DRAWS`` times.

    Args:
        codes: Embeddings (N, D) to draw the labelled examples from.
        labels: Labels (N,) of these embeddings; the classifiers see those of the drawn examples only.
        centres: Centres (K, D) of the clusters that k-means found without labels.
        test: Embeddings to classify.
        seed: Seed of the draws.

    Returns:
        The accuracies by method: ``nearest`` predicts the label of the drawn example with the highest cosine
        similarity; ``cluster`` predicts the label of the cluster, where a one-to-one matching labels the clusters.
    """
    from scipy.optimize import linear_sum_assignment

    classes, generator = len(centres), torch.Generator().manual_seed(seed)
    members = [(labels == label).nonzero()[:, 0] for label in range(classes)]
    origin = centres.mean(0)  # a common mean much larger than the spread would cost the distances their digits
    clusters = torch.cdist(test.codes[0] - origin, centres - origin).argmin(1)  # (N,)
    directions, test_directions = F.normalize(codes, dim=1), F.normalize(test.codes[0], dim=1)
    accuracies: dict[str, list[float]] = {"nearest": [], "cluster": []}
    for _ in range(DRAWS):
        chosen = torch.stack([m[torch.randint(len(m), (), generator=generator)] for m in members])  # (K,)
        nearest = (test_directions @ directions[chosen].T).argmax(1)
        names = torch.from_numpy(
            linear_sum_assignment(torch.cdist(centres - origin, codes[chosen] - origin).numpy())[1]
        )
        for method, predictions in (("nearest", nearest), ("cluster", names[clusters])):
            accuracies[method].append(accuracy_of(predictions, test.labels))
    return accuracies


def accuracy_of(predictions: Tensor, labels: Tensor) -> float:
    """Return the share of ``predictions`` (N,) that equal ``labels`` (N,)."""
    return float((predictions == labels).float().mean())


class Probes(NamedTuple):
    """Test accuracies of an encoder's probes.

    Attributes:
        accuracy: Accuracies by the probe's name, one per draw of labels.
        by_labels: Accuracies by number of labels. One label per class names k-means clusters; more labels train a
            logistic regression.
        predictions: The network's predictions (N,).
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
    """Run all probes on an encoder's embeddings.

    Args:
        head: The network to train; maps embeddings (B, D) to logits (B, K), such as :func:`torchdl.models.probe_head`.
        train: Embeddings that the probes learn from.
        validation: Embeddings whose loss decides when the network's learning rate falls.
        test: Embeddings to classify.
        epochs: Epochs of the network's training.
        seed: Seed of all random draws.
        device: Where to train the network.

    Returns:
        The accuracies of the probes

        - ``mlp``, the network; ``linear``, logistic regression on all views; ``knn``, ten neighbours by cosine.
        - ``k-means``, clusters of the training embeddings, named by the best matching with the test labels.
        - ``1 label a class, nearest`` and ``1 label a class, cluster``; see :func:`few_labels`.
        - ``1% of the labels`` and ``10% of the labels``, logistic regression.
    """
    from sklearn.cluster import KMeans
    from sklearn.neighbors import KNeighborsClassifier

    fit_head(head, train, validation, epochs, seed, device)
    with torch.no_grad():
        logits = head(test.codes[0])
    classes, predictions = logits.shape[1], logits.argmax(1)
    accuracies = {"mlp": [accuracy_of(predictions, test.labels)]}
    views, labels = train.codes.numpy(), train.labels.numpy()
    x, y = test.codes[0].numpy(), test.labels.numpy()

    def linear(chosen: np.ndarray) -> float:
        all_views = views[:, chosen].reshape(-1, views.shape[2])  # (V, n, D) -> (V * n, D)
        return linear_score(all_views, np.tile(labels[chosen], len(views)), x, y)

    accuracies["linear"] = [linear(np.arange(len(labels)))]
    neighbours = KNeighborsClassifier(10, metric="cosine", algorithm="brute").fit(views[0], labels)
    accuracies["knn"] = [float(neighbours.score(x, y))]
    centre = views[0].mean(0)  # scikit-learn's distances lose digits to a large common mean
    clusters = KMeans(classes, n_init=10, random_state=seed).fit(views[0] - centre)
    assigned = torch.from_numpy(clusters.predict(x - centre)).long()
    accuracies["k-means"] = [clustering_accuracy(assigned, test.labels, classes)]
    centres = torch.from_numpy(clusters.cluster_centers_ + centre).float()
    for method, values in few_labels(train.codes[0], train.labels, centres, test, seed).items():
        accuracies[f"1 label a class, {method}"] = values
    by_labels = {classes: accuracies["1 label a class, cluster"], len(labels): accuracies["linear"]}
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == label) for label in range(classes)]
    for share in SHARES:
        draws = [
            np.concatenate([generator.permutation(m)[: max(1, round(share * len(m)))] for m in members])
            for _ in range(5)
        ]
        accuracies[f"{share:.0%} of the labels"] = [linear(chosen) for chosen in draws]
        by_labels.setdefault(len(draws[0]), accuracies[f"{share:.0%} of the labels"])
    return Probes(accuracies, dict(sorted(by_labels.items())), predictions)


def map_embeddings(embeddings: Tensor, seed: int = 0) -> np.ndarray:
    """Map embeddings (N, D) to points (N, 2) by t-SNE (van der Maaten and Hinton 2008), drawn by ``seed``."""
    from sklearn.manifold import TSNE

    # with PCA initialisation t-SNE divides by the spread, and crashes Python if all embeddings are equal
    init = "pca" if embeddings.shape[1] > 1 and bool(embeddings.double().var(0).sum() > 1e-12) else "random"
    tsne = TSNE(2, init=init, perplexity=min(30, len(embeddings) / 4), random_state=seed)
    return tsne.fit_transform(embeddings.numpy())


def probe_report(
    probes: Mapping[str, Probes], test: Embeddings, classes: Sequence[str], seed: int, more: Mapping[str, Any]
) -> Report:
    """Report the probes of several encoders; the confusion matrix and the map are the first encoder's.

    Args:
        probes: Probes by the encoder's name.
        test: The first encoder's test embeddings.
        classes: The names of the classes.
        seed: Seed of the map.
        more: Further results to include.
    """
    from sklearn.metrics import confusion_matrix

    first = next(iter(probes.values()))
    matrix = confusion_matrix(test.labels, first.predictions, labels=range(len(classes)))
    points, labels = map_embeddings(test.codes[0, :2000], seed), test.labels[:2000].numpy()
    curves = {name: results.by_labels for name, results in probes.items()}
    xlabel = "number of labels\n(one per class names the clusters of k-means, more train a logistic regression)"
    return Report(
        {**more, "accuracy": {name: results.accuracy for name, results in probes.items()}},
        "\n".join(f"{name} encoder\n{describe(results)}" for name, results in probes.items()),
        {
            "confusion": plot_confusion(matrix, classes),
            "codes": plot_embeddings(points, labels, classes, "embeddings of test digits, t-SNE"),
            "label_efficiency": plot_label_efficiency(curves, xlabel),
        },
    )


def describe(probes: Probes) -> str:
    """Return the accuracies of an encoder's probes as text, one line per probe."""
    lines = []
    for key, values in probes.accuracy.items():
        spread = f" ± {100 * statistics.stdev(values):.2f} over {len(values)} draws" if len(values) > 1 else ""
        lines.append(f"  {key:28} {100 * np.mean(values):6.2f} %{spread}")
    return "\n".join(lines)
