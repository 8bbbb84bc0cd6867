"""Give every function of ``torchdl.plots`` something to draw that looks like what it draws in earnest."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

FONT = os.path.join(get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DIGITS = tuple("0123456789")


def images(text: str, seed: int = 0) -> Tensor:
    """Draw an image of each character, slightly moved and noisy: (N, 1, 28, 28) in [0, 1]."""
    noise, font, drawn = random(seed), ImageFont.truetype(FONT, 26), []
    for character in text:
        image = Image.new("L", (28, 28))
        ImageDraw.Draw(image).text(noise.normal((14, 14), 1), character, 255, font, anchor="mm")
        drawn.append(np.clip(np.asarray(image) / 255 + noise.normal(0, 0.05, (28, 28)), 0, 1))
    return torch.from_numpy(np.stack(drawn)).float()[:, None]


def random(seed: int = 0) -> np.random.Generator:
    """Return a generator of its own for each use: further cases change no others."""
    return np.random.default_rng(seed)


def falling(start: float, end: float, epochs: int) -> np.ndarray:
    """Return a noisy exponential fall."""
    return np.geomspace(start, end, epochs) * np.exp(random(int(1e6 * end)).normal(0, 0.05, epochs))


def history(epochs: int, end: float) -> list[dict[str, float]]:
    """Return a classifier's history whose loss ends at ``end``."""
    rows = {
        "epoch": np.arange(1, epochs + 1),
        "step": 100 * np.arange(1, epochs + 1),
        "train/loss": falling(2.2, end, epochs),
        "train/accuracy": 1 - falling(0.8, end / 3, epochs),
        "val/loss": falling(2.0, 2 * end, epochs),
        "val/accuracy": 1 - falling(0.7, end / 2, epochs),
        "val/accuracy_chance": np.full(epochs, 0.1),
        "val/accuracy_ceiling": np.full(epochs, 0.98),
    }
    return [dict(zip(rows, map(float, row), strict=True)) for row in zip(*rows.values(), strict=True)]


def gan_history() -> list[dict[str, float]]:
    """Return a GAN's history, with accuracies by step and by class for their looks."""
    return [
        {
            "epoch": epoch,
            "train/D(x)": 0.5 + 0.4 / epoch,
            "train/D(G(z))": 0.5 - 0.35 / epoch,
            "val/D(x)": 0.5 + 0.3 / epoch,
            "val/D(G(z))": 0.5 - 0.33 / epoch,
            "train/generator_loss": 0.7 + 1.1 / epoch,
            "train/discriminator_loss": 1.38 - 0.9 / epoch,
            "val/real_accuracy": 0.5 + 0.4 / epoch,
            "val/generated_accuracy": 0.55 + 0.38 / epoch,
            **{f"val/digit_accuracy_step_{k}": 0.9 - 0.1 * k - 0.4 / epoch for k in range(1, 5)},
            **{f"val/accuracy_class_{name}": 1 - (k % 5 + 1) / (8 + epoch) for k, name in enumerate(CLOTHES)},
        }
        for epoch in range(1, 5)
    ]


def walk(length: int, seed: int) -> Tensor:
    """Return a price of that many days."""
    return torch.from_numpy(np.exp(random(seed).normal(0.001, 0.02, length).cumsum()) * 40).float()


def counts(classes: int, seed: int) -> np.ndarray:
    """Return a confusion matrix of a good classifier."""
    means = random(seed).exponential(8, (classes, classes))
    return random(seed).poisson(means) + np.diag(random(seed).integers(850, 950, classes))


def roc(power: float) -> tuple[np.ndarray, np.ndarray]:
    """Return false and true positive rates."""
    rate = np.linspace(0, 1, 80)
    return rate, rate**power


def surfaces() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return a surface that was learnt, and the true one."""
    x, y = np.meshgrid(np.linspace(-3, 3, 30), np.linspace(-3, 3, 30))
    z = np.cos(2 * x) + np.cos(3 * y)
    return {"learnt, with the points": (x, y, 0.9 * z), "true": (x, y, z)}


def points_of_surface() -> np.ndarray:
    """Return points (200, 3) of the true surface."""
    x, y = random().uniform(-3, 3, (2, 200))
    return np.stack([x, y, np.cos(2 * x) + np.cos(3 * y)], 1)


def descents() -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return a valley, paths down to its lowest point, and their losses."""
    x, y = np.meshgrid(np.linspace(-2, 3, 60), np.linspace(-1, 3.5, 60))
    paths = {}
    rules = ("gradient descent", "momentum", "RMSprop", "Adam", "Muon")
    for number, name in enumerate(rules):
        shrink = 0.9 - 0.06 * number
        paths[name] = np.array([[1 - 2.5 * shrink**s, 1 + 2 * (shrink / 2) ** s * np.cos(s)] for s in range(60)])
    losses = {name: ((points - 1) ** 2 @ [1, 6]) + 1e-9 * (k + 1) for k, (name, points) in enumerate(paths.items())}
    return (x, y, (x - 1) ** 2 + 6 * (y - 1) ** 2), paths, losses


def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Return points (500, 2) around ten centres, and the numbers of the centres."""
    labels = np.arange(500) % 10
    angles = labels * 2 * np.pi / 10
    return 20 * np.stack([np.cos(angles), np.sin(angles)], 1) + random().normal(0, 2.5, (500, 2)), labels


def weights(seed: int) -> dict[str, float]:
    """Return the weights of a linear model."""
    names = ("mean radius", "mean texture", "worst perimeter", "worst concave points", "area error", "smoothness")
    return dict(zip(names, random(seed).normal(0, 0.8, len(names)).tolist(), strict=True))


POINTS, LABELS = clouds()
X = np.linspace(-4, 4, 60)
RECALL = np.linspace(1, 0, 60)
DAYS = np.datetime64("2021-11-01") + np.arange(60)
MEASURES = {
    f"{distance} distance": {
        name: {terms: [90 - k * terms / 2 - 5 * number + s for s in (-3, 0, 2)] for terms in (10, 20, 40, 60)}
        for number, name in enumerate(("simple RNN", "GRU", "LSTM", "LSTM, maximum over time"))
    }
    for k, distance in enumerate(("short", "long"))
}
FOUND = {
    "generated": 0.09 + 0.03 * np.abs(random(1).normal(size=500)),
    "test images": 0.1 + 0.04 * random().random(500),
}
ERRORS = {"RMSE": {"the mean": 1.04, "user and item means": 0.91, "this model": 0.865}}
ERRORS |= {"MAE": {"the mean": 0.83, "user and item means": 0.71, "this model": 0.662}}
# Function -> arguments; after a dash, a further case of the function
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "plot_bars": (ERRORS, "error on 10,084 test ratings"),
    "plot_bars-weights": ({"$malignant$": weights(0)}, "weight of the input with standard deviation 1"),
    "plot_comparison": ({name: history(12, end) for name, end in (("CNN", 0.02), ("MLP", 0.1), ("$lenet$", 0.05))},),
    "plot_confusion": (counts(10, 0), CLOTHES),
    "plot_confusion-shares": (counts(10, 0), DIGITS, True),
    "plot_confusion-two": (np.array([[953, 12], [21, 129]]), ("not spam", "$spam$")),
    "plot_confusion-many": (counts(40, 0), [f"class {k}" for k in range(40)]),
    "plot_embeddings": (POINTS, LABELS, DIGITS, "embeddings of test digits, t-SNE"),
    "plot_forecast": (walk(300, 0), 240, walk(300, 0)[239:-1], torch.linspace(44, 49, 60), "close"),
    "plot_forecast-dates": (walk(60, 0), 45, walk(60, 0)[44:-1], torch.linspace(44, 49, 15), "$close$", DAYS),
    "plot_forecasts": (
        walk(60, 0),
        {name: (walk(60, 0) + k, torch.linspace(40, 50, 60) + k) for k, name in ((-1, "LSTM"), (1, "$linear$"))},
        "$close$",
        DAYS,
    ),
    "plot_functions": (
        {
            "tanh": (X, np.tanh(X), 1 - np.tanh(X) ** 2),
            "relu": (X, np.maximum(X, 0), (X > 0) * 1.0),
            "sigmoid": (X, 1 / (1 + np.exp(-X)), np.exp(-X) / (1 + np.exp(-X)) ** 2),
            "softplus": (X, np.log1p(np.exp(X)), 1 / (1 + np.exp(-X))),
        },
    ),
    "plot_histograms": (
        {
            "radius": random().gamma(9, 1.5, 500),
            "$kind$": np.array(["benign", "malignant", "unknown, not reported"])[random().integers(0, 3, 500)],
            "area": random().lognormal(6, 0.5, 500),
        },
    ),
    "plot_history": (history(12, 0.01),),
    "plot_history-gan": (gan_history(),),
    "plot_image_rows": ({name: images("5041929", k) for k, name in enumerate(("original", "rotation", "zoom $x$"))},),
    "plot_images": ({"photograph": images("A")[0], "vertical edges": images("B")[0], "$blurred$": images("C")[0]},),
    "plot_label_efficiency": (
        {"CPC": {10: [0.5, 0.6], 100: [0.88, 0.9], 1000: [0.95]}, "untrained": {10: [0.3], 100: [0.6], 1000: [0.86]}},
    ),
    "plot_learning_rates": (
        np.geomspace(1e-6, 1, 80),
        2.3 - 2 * np.exp(-((np.log10(np.geomspace(1e-6, 1, 80)) + 2) ** 2)),
        2e-3,
    ),
    "plot_line_fit": (
        torch.arange(1971.0, 2018),
        torch.arange(47) * 0.34 + 7.7 + torch.from_numpy(random().normal(0, 0.5, 47)),
        {"trained": torch.arange(47) * 0.35 + 7.6, "least squares": torch.arange(47) * 0.34 + 7.7},
        "year",
        "transistors",
    ),
    "plot_next_terms": (
        {"close": (walk(50, 0), {"forecast": walk(10, 3), "last value": torch.full((10,), 41.0)})},
        DAYS,
    ),
    "plot_lines": (
        {
            name: (range(1, 11), [scale * step**0.5 for step in range(1, 11)])
            for name, scale in (("this model", 1.0), ("last value", 1.1), ("mean of the training terms", 1.9))
        },
        "steps ahead",
        "root mean squared error of close",
    ),
    "plot_measured": (MEASURES, "terms", "test accuracy, %", {"chance": 50.0}),
    "plot_nearest": (
        {name: (images("31415926", 1), images("31415926", 2), torch.linspace(0.05, 0.09, 8)) for name in FOUND},
        {name: torch.from_numpy(values) for name, values in FOUND.items()},
        0.1,
    ),
    "plot_paths": descents(),
    "plot_precision_recall": (
        {"this model, 0.9714": (1 - RECALL**12, RECALL), "naive Bayes, 0.9012": (1 - RECALL**4, RECALL)},
        "$spam$",
        0.13,
    ),
    "plot_predicted_images": (
        images("3141592653"),
        list("3141592653"),
        list("8777870518"),
        "most confident of 37 mistakes on 10,000 test images",
    ),
    "plot_predicted_images-long": (images("3141592653"), [*CLOTHES], [*CLOTHES[::-1]], "most confident of 37 mistakes"),
    "plot_predictions": (
        np.linspace(5, 50, 120),
        np.linspace(5, 50, 120) + random().normal(0, 4, 120),
        "price of a house",
    ),
    "plot_roc": ({"this model, area 0.9871": roc(0.1), "logistic regression, area 0.9714": roc(0.2)}, "malignant"),
    "plot_scatter_matrix": (
        {name: random(k).gamma(4, 2 + k, 150) for k, name in enumerate(("radius", "$x$", "area"))},
    ),
    "plot_sequences": (
        images("123456").view(2, 3, 1, 28, 28),
        images("78903214", 4).view(2, 4, 1, 28, 28)[:, :2],
        torch.tensor([1, 0]),
        torch.tensor([[1, 2, 3, 4, 5], [4, 5, 6, 3, 2]]),
    ),
    "plot_surfaces": (surfaces(), points_of_surface()),
}
