"""Train an autoencoder and compare its latent codes with principal components and pixels.

Shapes: N images, B of a batch, C channels, H x W pixels, D numbers per code, Q queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from torchdl.data import Augmentation, AugmentedImages, BatchLoader, ImageDataset
from torchdl.data.duplicates import in_training
from torchdl.data.images import at_equal_distances
from torchdl.errors import require
from torchdl.field_docs import with_field_docs
from torchdl.models import Autoencoder
from torchdl.pictures import image_grid, side_by_side
from torchdl.plots import plot_embeddings
from torchdl.predict import ImageReconstructor
from torchdl.recipes.cpc_probe import map_embeddings
from torchdl.recipes.image_classification import ImageOptions
from torchdl.recipes.learning import Learning
from torchdl.recipes.report import Embedding, Report
from torchdl.tasks import AutoencoderTask, ScheduleName, StepInfo, find_schedule
from torchdl.training.device import find_device
from torchdl.training.evaluation import evaluate

if TYPE_CHECKING:
    from sklearn.decomposition import PCA

REFERENCE = 10_000  # training images whose codes are searched and clustered
QUERIES, NEIGHBOURS = 8, 8  # rows and columns of the retrieval figure
KNN = 10  # neighbours that vote on a label


@with_field_docs
@dataclass(frozen=True)
class Coding(Learning):
    """How an autoencoder learns, and how many reconstructions are shown."""

    batch_size: int = 64
    schedule: ScheduleName = "one_cycle"
    noise: float = 0.0
    """Standard deviation of the noise to remove (pixels are in [0, 1]); 0 for plain reconstruction."""
    visualization_size: int = 8
    """Square root of the number of test images shown beside their reconstructions."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How training images are changed at random; not at all by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.visualization_size
        require(1 <= size <= 32, f"visualization_size must be from 1 to 32, not {size}")


class AutoencoderTraining(NamedTuple):
    """An autoencoder's task and batches, ``train`` and ``validation``: the arguments of :meth:`torchdl.Trainer.fit`."""

    task: AutoencoderTask
    train: BatchLoader
    validation: BatchLoader


def autoencoder_training(
    model: Autoencoder, train: ImageDataset, test: ImageDataset, images: ImageOptions, coding: Coding, seed: int = 0
) -> AutoencoderTraining:
    """Build an autoencoder's task and batches.

    Args:
        model: The autoencoder.
        train, test: The images, in [0, 1].
        images: How they are loaded.
        coding: How the autoencoder learns.
        seed: The seed of the batches' order and of the augmentation.
    """
    pixels, test_pixels = train.without_labels(), test.without_labels()
    shown = test_pixels.spread(min(len(test), coding.visualization_size**2))
    schedule = find_schedule(coding.schedule)
    task = AutoencoderTask(model, coding.noise, coding.lr, schedule, shown, coding.optimizer, coding.weight_decay)
    # a checkpoint of a run without augmentation knows nothing of it
    data = AugmentedImages(pixels, coding.augmentation, seed) if coding.augmentation.chosen else pixels
    batches = images.loader(train, data, batch_size=coding.batch_size, shuffle=True, seed=seed)
    return AutoencoderTraining(task, batches, images.loader(test, test_pixels, batch_size=500))


def image_reconstructor(
    model: Autoencoder, train: ImageDataset, images: ImageOptions, device: str = "auto"
) -> ImageReconstructor:
    """Return the predictor of an autoencoder, ``model``, that learns from the training images ``train``.

    Args:
        images: How the images are loaded.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    settings = ImageReconstructor.Settings(images.input(train))
    return ImageReconstructor(model, settings, device, workers=images.workers)


def denoising_error(training: AutoencoderTraining, device: str = "auto", seed: int = 0) -> float:
    """Return the mean squared error of denoised test images; all processes must call this and share the work.

    Args:
        training: The task and its batches.
        device: auto, cpu, cuda, cuda:N or mps.
        seed: The seed of the noise.
    """
    return evaluate(training.task, training.validation, find_device(device), nullcontext, StepInfo(seed))["val/loss"]


class Coded(NamedTuple):
    """The ``images`` (N, C, H, W) in [0, 1], their labels (N,), codes (N, D) and mean squared errors (N,)."""

    images: Tensor
    labels: Tensor
    codes: Tensor
    errors: Tensor


def encode(reconstructor: ImageReconstructor, images: ImageDataset, count: int) -> Coded:
    """Encode and decode at most ``count`` evenly spaced images by a ``reconstructor``; the result is on the CPU."""
    chosen = images.subset(at_equal_distances(len(images), affordable(images, count)).to(images.device))
    parts = []
    with reconstructor.ready():
        for batch in reconstructor.batches(chosen):
            found = reconstructor.reconstruct(batch.images)
            parts.append((found.images.cpu(), found.codes.cpu(), found.errors.cpu()))
    pixels, codes, errors = (torch.cat(column) for column in zip(*parts, strict=True))
    return Coded(pixels, cast(Tensor, chosen.labels).cpu(), codes, errors)


def fit_pca(images: ImageDataset, components: int) -> PCA:
    """Fit principal components (Pearson 1901) to at most 60,000 images, or as many as :func:`affordable` allows."""
    from sklearn.decomposition import PCA  # imported late: it takes a second

    chosen = at_equal_distances(len(images), affordable(images, 60_000)).split(1000)
    parts = [images.__getitems__(indices.to(images.device))[0].flatten(1).cpu() for indices in chosen]
    x = torch.cat(parts)  # (N, C * H * W)
    mean = x.mean(0)
    x -= mean  # scikit-learn subtracts it after the squares are summed, which loses faint differences in float32
    n, d = x.shape
    solver = "covariance_eigh" if d <= min(n, 4096) else "full" if n <= 4096 else "randomized"  # the fastest
    pca = PCA(min(components, n, d), svd_solver=solver, random_state=0).fit(x.numpy())
    pca.mean_ = pca.mean_ + mean.numpy()
    return pca


def affordable(images: ImageDataset, count: int) -> int:
    """Return ``count``, limited to the number of images and to what fits in 1 GiB as float32; at least 1."""
    return max(1, min(count, len(images), 2**30 // (4 * math.prod(images.image_shape))))


def nearest(codes: Tensor, queries: Tensor, count: int) -> Tensor:
    """Return the indices (Q, count) of the codes (N, D) nearest to each of ``queries`` (Q, D) by Euclidean distance."""
    centre = codes.mean(0)  # a common mean much larger than the spread would cost the distances their digits
    return torch.cdist(queries - centre, codes - centre).topk(min(count, len(codes)), largest=False).indices


def usefulness(reference: Tensor, labels: Tensor, codes: Tensor, true: Tensor, classes: int) -> dict[str, float]:
    """Measure how well codes (N, D), learnt without labels, predict the labels.

    Args:
        reference: Codes (M, D) to search and to cluster.
        labels: Labels (M,) of the reference codes.
        codes: Codes (N, D) to classify.
        true: Labels (N,) of the codes to classify.
        classes: Number of classes, and of clusters.

    Returns:
        ``knn``, the accuracy of a vote among the ten nearest reference codes, and ``nmi``, the mutual information
        of the labels and k-means clusters, divided by the arithmetic mean of their entropies (Kvålseth 1987).
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.neighbors import KNeighborsClassifier

    centre = reference.mean(0)  # scikit-learn's distances lose digits to a large common mean
    x, y = (reference - centre).numpy(), (codes - centre).numpy()
    neighbours = KNeighborsClassifier(min(KNN, len(x)), algorithm="brute").fit(x, labels)
    clusters = KMeans(classes, n_init=4, random_state=0).fit(x).predict(y)
    return {"knn": float(neighbours.score(y, true)), "nmi": float(normalized_mutual_info_score(true, clusters))}


def evaluate_autoencoder(
    reconstructor: ImageReconstructor,
    task: AutoencoderTask,
    train: ImageDataset,
    test: ImageDataset,
    error: float | None = None,
) -> Report:
    """Compare latent codes with principal components and with pixels.

    The figures are reconstructions, retrieval (test images beside the training images with the nearest latent codes)
    and a map of the codes.

    Args:
        reconstructor: The trained autoencoder.
        task: The task that trained it.
        train: The training images, with labels.
        test: The test images, with labels.
        error: The result of :func:`denoising_error`, for a task with noise.
    """
    model = cast(Autoencoder, reconstructor.model)
    pca = fit_pca(train, model.code_size)
    reference, tested = encode(reconstructor, train, REFERENCE), encode(reconstructor, test, len(test))
    flat = tested.images.flatten(1).numpy()  # (N, C, H, W) -> (N, C * H * W)
    projected = pca.transform(flat)
    pca_errors = ((pca.inverse_transform(projected).clip(0, 1) - flat) ** 2).mean(1)
    pixels = reference.images.flatten(1)  # (N, C, H, W) -> (N, C * H * W)

    def useful(known: Tensor, codes: Tensor) -> dict[str, float]:
        return usefulness(known, reference.labels, codes, tested.labels, len(test.classes))

    results = {
        "images": len(tested.images),
        "numbers a code": tested.codes.shape[1],
        "numbers an image": flat.shape[1],
        "mse": float(tested.errors.double().mean()),
        "mse of pca": float(pca_errors.mean()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "autoencoder": useful(reference.codes, tested.codes),
        "pca": useful(torch.from_numpy(pca.transform(pixels.numpy())), torch.from_numpy(projected)),
        "pixels": useful(pixels, torch.from_numpy(flat)),
    }
    new = ~in_training(train.hashes(), test.hashes())
    if 0 < new.sum() < len(new):
        errors = {"mse": float(tested.errors[new].double().mean()), "mse of pca": float(pca_errors[new.numpy()].mean())}
        results["without duplicates"] = {"images": int(new.sum()), **errors}
    if error is not None:
        results |= {"noise": task.noise, "mse of noisy images": task.noise**2, "mse of denoised images": error}
    task.eval().to("cpu")
    with torch.no_grad():
        rows = {name: image_grid(picture) for name, picture in task.preview().items()}
    task.to(reconstructor.device)
    queries = at_equal_distances(len(tested.images), QUERIES)
    found = nearest(reference.codes, tested.codes[queries], NEIGHBOURS)  # (Q, n)
    # (Q, 1, C, H, W), (Q, n, C, H, W)
    columns = {"query": tested.images[queries, None], "nearest training images": reference.images[found]}
    mapped, shown = (at_equal_distances(len(flat), min(count, len(flat))) for count in (2000, 1000))
    points = map_embeddings(tested.codes[mapped])
    names = [test.classes[label] for label in tested.labels[shown].tolist()]
    labels, title = tested.labels[mapped].numpy(), "latent codes of test images, t-SNE"
    return Report(
        results,
        summarize(results),
        {
            "reconstructions": side_by_side(rows),
            "retrieval": side_by_side({name: image_grid(column) for name, column in columns.items()}),
            "codes": plot_embeddings(points, labels, test.classes, title),
        },
        embedding=Embedding(tested.codes[shown], names, tested.images[shown]),
    )


def summarize(results: Mapping[str, Any]) -> str:
    """Return the results of :func:`evaluate_autoencoder` as a table."""
    lines = [f"{'':12} {'mse':>9} {'10-nn accuracy':>15} {'NMI':>6}   ({results['numbers a code']} numbers per code)"]
    errors = {"autoencoder": results["mse"], "pca": results["mse of pca"], "pixels": 0.0}
    for name, error in errors.items():
        measured = results[name]
        lines.append(f"{name:12} {error:9.5f} {measured['knn']:15.1%} {measured['nmi']:6.3f}")
    if "noise" in results:
        lines.append(
            f"noise of {results['noise']:g}: mse {results['mse of noisy images']:.5f} before, "
            f"{results['mse of denoised images']:.5f} after"
        )
    return "\n".join(lines)
