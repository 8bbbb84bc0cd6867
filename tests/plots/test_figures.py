"""What holds of every function that draws: it returns its figure, and saves it only where a path is given."""

from __future__ import annotations

import inspect
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import gaussian
from matplotlib.figure import Figure
from PIL import Image

from torchdl import plots

X, Y = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5))
SURFACE = (X, Y, X**2 + Y**2 + 1)
RATES = (np.array([0, 0.2, 1]), np.array([0, 0.8, 1]))
IMAGES = gaussian(4, 1, 8, 8).sigmoid()
ARGUMENTS = {
    "plot_bars": ({"a": {"x": 1.0, "y": -2.0}}, "weight"),
    "plot_comparison": ({"a": [{"epoch": 1, "train/loss": 1.0}], "$b": [{"epoch": 1, "val/top1_chance": 0.1}]},),
    "plot_confusion": (np.eye(3, dtype=int), ("a", "b", "c")),
    "plot_embeddings": (gaussian(6, 2).numpy(), np.arange(6) % 2, ("a", "b"), "embeddings"),
    "plot_forecast": (gaussian(20), 15, gaussian(5), gaussian(5), "price"),
    "plot_forecasts": (gaussian(5), {"$linear": (gaussian(5), gaussian(5))}, "price"),
    "plot_functions": ({"tanh": ([0.0, 1.0], [0.0, 0.76], [1.0, 0.42])},),
    "plot_histograms": ({"a": np.arange(5.0), "b": np.array(["x", "y", "x"])},),
    "plot_history": ([{"epoch": 1, "train/loss": 1.0, "val/loss": 2.0}],),
    "plot_image_rows": ({"a": IMAGES, "$b": IMAGES},),
    "plot_images": ({"a": IMAGES[0]},),
    "plot_label_efficiency": ({"cpc": {10: [0.5], 100: [0.7, 0.8]}},),
    "plot_learning_rates": ([1e-3, 1e-2, 1e-1], [2.0, 1.0, 5.0], 1e-2),
    "plot_line_fit": (torch.arange(3.0), torch.arange(3.0), {"line": torch.arange(3.0)}, "year", "transistors"),
    "plot_next_terms": ({"close": (gaussian(20), {"forecast": gaussian(5), "last value": gaussian(5)})},),
    "plot_lines": ({"a": ([1.0, 2.0], [3.0, 4.0])}, "x", "y"),
    "plot_measured": ({"a": {"lstm": {10: [1.0, 2.0], 20: [3.0]}}}, "terms", "accuracy, %", {"chance": 1.0}),
    "plot_nearest": ({"generated": (IMAGES, IMAGES, torch.arange(4.0))}, {"generated": torch.arange(9.0)}, 0.5),
    "plot_paths": (SURFACE, {"Adam": gaussian(4, 2).numpy()}, {"Adam": np.array([3.0, 2.0, 1.0, 0.5])}),
    "plot_precision_recall": ({"model": (RATES[1], RATES[0])}, "spam", 0.1),
    "plot_predicted_images": (IMAGES, list("abcd"), list("bcda")),
    "plot_predictions": (np.arange(3.0), np.arange(3.0), "price"),
    "plot_roc": ({"model": RATES}, "spam"),
    "plot_scatter_matrix": ({"a": np.arange(5.0), "b": np.arange(5.0) ** 2},),
    "plot_sequences": (gaussian(2, 3, 1, 8, 8), gaussian(2, 2, 1, 8, 8), torch.tensor([1, 0])),
    "plot_surfaces": ({"true": SURFACE},),
}


def test_every_function_that_draws_is_tested_here_and_takes_its_path_last():
    functions = {name: getattr(plots, name) for name in dir(plots) if name.startswith("plot_")}
    assert functions.keys() == ARGUMENTS.keys()
    for function in functions.values():
        *_, last = inspect.signature(function).parameters.values()
        assert (last.name, last.default) == ("path", None)


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_figure_is_returned_and_saved_where_it_is_asked_for(tmp_path, name, kind):
    path = tmp_path / "new" / "figure.png"
    assert isinstance(getattr(plots, name)(*ARGUMENTS[name], path=kind(path)), Figure)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert np.asarray(image.convert("L")).std() > 1
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
    assert [p.name for p in path.parent.iterdir()] == ["figure.png"]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_without_a_path_no_file_is_written(tmp_path, monkeypatch, figures, name):
    monkeypatch.chdir(tmp_path)
    assert isinstance(getattr(plots, name)(*ARGUMENTS[name]), Figure)
    assert figures == []
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_a_figure():
    figure = plots.plot_history([{"epoch": 1, "train/loss": 1.0}])
    with Image.open(io.BytesIO(figure._repr_png_())) as image:  # what IPython asks for
        assert np.asarray(image.convert("L")).std() > 1
