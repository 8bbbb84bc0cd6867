"""Train an autoencoder in a run, and say what its codes are good for.

Shapes: N images, C channels, H x W pixels, D numbers a code.
"""

from __future__ import annotations

import math
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchdl import plots
from torchdl.data import ImageDataset
from torchdl.data.images import at_equal_distances
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.plots import image_grid, save_png, side_by_side
from torchdl.tasks import AutoencoderTask, Clock, ScheduleName, find_schedule
from torchdl.training import process
from torchdl.training.classification import ImageOptions
from torchdl.training.command import Run, say
from torchdl.training.evaluation import evaluate
from torchdl.training.learning import Learning
from torchdl.training.probing import map_codes

REFERENCE = 10_000  # training images whose codes are searched and clustered
QUERIES, NEIGHBOURS, KNN = 8, 8, 10


@dataclass(frozen=True)
class Coding(Learning):
    """How an autoencoder learns, and what is shown of it."""

    batch_size: int = 64
    schedule: ScheduleName = "one_cycle"
    noise: float = 0.0
    """Standard deviation of noise to be removed (pixels are from 0 to 1); 0 for plain reconstruction."""
    visualization_size: int = 8
    """Square root of the number of test images that are shown beside their reconstructions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.visualization_size
        require(1 <= size <= 32, f"visualization_size must be from 1 to 32, not {size}")


def fit_autoencoder(
    run: Run, model: Any, train: ImageDataset, test: ImageDataset, images: ImageOptions, coding: Coding
) -> list[dict[str, float]]:
    """Train an autoencoder in ``run``, leave in its folder what :func:`report` writes, and return the history.

    ``model`` has the methods and the ``code_size`` of :class:`torchdl.models.Autoencoder`.
    """
    seed = run.trainer.seed
    pixels, held_out = train.without_labels(), test.without_labels()
    shown = held_out.spread(min(len(test), coding.visualization_size**2))
    rule = (coding.optimizer, coding.weight_decay)
    task = AutoencoderTask(model, coding.noise, coding.lr, find_schedule(coding.schedule), shown, *rule)
    batches = images.loader(train, pixels, batch_size=coding.batch_size, shuffle=True, seed=seed)
    test_batches = images.loader(test, held_out, batch_size=500)
    history = run.fit(task, model, batches, test_batches)
    error = 0.0
    if coding.noise:  # by all processes together
        device = process.find_device(run.trainer.device)
        error = evaluate(task, test_batches, device, nullcontext, Clock(seed))["val/loss"]
    if run.is_main:
        report(run, task, train, test, error)
    return history


def print_shapes(model: Any, batch_size: int) -> None:
    """Print a table of the tensors' shapes through the network."""
    from torchinfo import summary  # imported late: few want it

    say(str(summary(model, (batch_size, *model.in_shape), verbose=0, device="cpu")))


class Coded(NamedTuple):
    """Images (N, C, H, W) in [0, 1] with their labels (N,), codes (N, D) and squared errors (N,)."""

    images: Tensor
    labels: Tensor
    codes: Tensor
    errors: Tensor


@torch.no_grad()
def encode(model: Any, images: ImageDataset, count: int, device: torch.device) -> Coded:
    """Encode and decode ``count`` images at equal distances; everything is on the CPU."""
    model.eval().to(device)
    chosen = at_equal_distances(len(images), affordable(images, count))
    parts = []
    for indices in chosen.split(500):
        batch, labels = images.__getitems__(indices.to(images.device))
        codes = model.encode(batch.to(device))
        errors = (model.decode(codes) - batch.to(device)).square().flatten(1).mean(1)  # (B, C, H, W) -> (B,)
        parts.append(Coded(batch.cpu(), labels.cpu(), codes.cpu(), errors.cpu()))
    return Coded(*(torch.cat(column) for column in zip(*parts, strict=True)))


def fit_pca(images: ImageDataset, components: int) -> Any:
    """Fit principal components (Pearson 1901) to at most 60,000 images, or as many as there are or are affordable."""
    from sklearn.decomposition import PCA  # imported late: it takes a second

    chosen = at_equal_distances(len(images), affordable(images, 60_000)).split(1000)
    parts = [images.__getitems__(indices.to(images.device))[0].flatten(1).cpu() for indices in chosen]
    x = torch.cat(parts).numpy()  # (N, C * H * W)
    n, d = x.shape
    solver = "covariance_eigh" if d <= min(n, 4096) else "full" if n <= 4096 else "randomized"  # what is quick and fits
    return PCA(min(components, n, d), svd_solver=solver, random_state=0).fit(x)


def affordable(images: ImageDataset, count: int) -> int:
    """Return ``count``, or fewer where there are fewer images or they would take more than 1 GiB in float32."""
    return max(1, min(count, len(images), 2**30 // (4 * math.prod(images.image_shape))))


def nearest(codes: Tensor, queries: Tensor, count: int) -> Tensor:
    """Find the ``count`` codes (N, D) nearest to each query (Q, D), by Euclidean distance: their numbers (Q, count)."""
    return torch.cdist(queries, codes).topk(min(count, len(codes)), largest=False).indices


def usefulness(reference: Tensor, labels: Tensor, codes: Tensor, true: Tensor, classes: int) -> dict[str, float]:
    """Measure how codes (N, D) go with labels that they were not told.

    Returns:
        The ``knn`` accuracy of the ten nearest of the reference codes, and the normalised mutual information ``nmi``
        (Strehl and Ghosh 2002) of labels and the clusters that k-means finds, as many as classes.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import normalized_mutual_info_score
    from sklearn.neighbors import KNeighborsClassifier

    x, y = reference.numpy(), codes.numpy()
    neighbours = KNeighborsClassifier(min(KNN, len(x)), algorithm="brute").fit(x, labels)
    clusters = KMeans(classes, n_init=4, random_state=0).fit(x).predict(y)
    return {"knn": float(neighbours.score(y, true)), "nmi": float(normalized_mutual_info_score(true, clusters))}


def report(run: Run, task: AutoencoderTask, train: ImageDataset, test: ImageDataset, error: float) -> dict[str, Any]:
    """Compare codes with principal components and with pixels, in ``results.json``, pictures and TensorBoard.

    Pictures in ``plots/``: reconstructions, retrieval (queries and their nearest neighbours by code) and a map.
    """
    model: Any = task.model
    device = process.find_device(run.trainer.device)
    pca = fit_pca(train, model.code_size)
    reference, held_out = encode(model, train, REFERENCE, device), encode(model, test, len(test), device)
    flat = held_out.images.flatten(1).numpy()  # (N, C, H, W) -> (N, C * H * W)
    projected = pca.transform(flat)
    pca_errors = ((pca.inverse_transform(projected).clip(0, 1) - flat) ** 2).mean(1)
    of_pixels = reference.images.flatten(1)
    spaces = {
        "autoencoder": (reference.codes, held_out.codes),
        "pca": (torch.from_numpy(pca.transform(of_pixels.numpy())), torch.from_numpy(projected)),
        "pixels": (of_pixels, torch.from_numpy(flat)),
    }
    classes = len(test.classes)
    results = {
        "images": len(held_out.images),
        "numbers a code": held_out.codes.shape[1],
        "numbers an image": flat.shape[1],
        "mse": float(held_out.errors.double().mean()),
        "mse of pca": float(pca_errors.mean()),
        "parameters": sum(p.numel() for p in model.parameters()),
        **{
            name: usefulness(known, reference.labels, codes, held_out.labels, classes)
            for name, (known, codes) in spaces.items()
        },
    }
    if task.noise:
        results |= {"noise": task.noise, "mse of noisy images": task.noise**2, "mse of denoised images": error}
    write_json(run.folder / "results.json", results)
    folder = run.folder / "plots"
    task.eval().to("cpu")
    with torch.no_grad():
        rows = [image_grid(picture) for picture in task.preview().values()]
    save_png(side_by_side(rows), folder / "reconstructions.png")
    queries = at_equal_distances(len(held_out.images), QUERIES)
    found = nearest(reference.codes, held_out.codes[queries], NEIGHBOURS)  # (Q, n)
    columns = [held_out.images[queries, None], reference.images[found]]  # (Q, 1, C, H, W), (Q, n, C, H, W)
    save_png(side_by_side([image_grid(column) for column in columns]), folder / "retrieval.png")
    title = "codes of test images, t-SNE"
    mapped, shown = (at_equal_distances(len(flat), min(count, len(flat))) for count in (2000, 1000))
    points, labels = map_codes(held_out.codes[mapped]), held_out.labels
    plots.plot_map(points, labels[mapped].numpy(), test.classes, title, folder / "codes.png")
    with closing(run.logger()) as logger:
        logger.show(*(folder / f"{name}.png" for name in ("reconstructions", "retrieval", "codes")))
        names = [test.classes[label] for label in labels[shown].tolist()]
        logger.embedding(held_out.codes[shown], names, held_out.images[shown])
    task.to(device)
    say(describe(results))
    say(f"pictures: {folder}")
    return results


def describe(results: dict[str, Any]) -> str:
    """Say the results as a table."""
    lines = [f"{'':12} {'mse':>9} {'10-nn accuracy':>15} {'NMI':>6}   ({results['numbers a code']} numbers a code)"]
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
