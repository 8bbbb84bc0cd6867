from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.figures import is_drawn

from torchdl.plots import (
    plot_bars,
    plot_confusion,
    plot_histograms,
    plot_line_fit,
    plot_predictions,
    plot_roc,
    plot_scatter_matrix,
    plot_surfaces,
)

ODD = r"a $\b$ c"  # no formula, though it looks like one


def test_bars_have_their_names_and_one_scale(tmp_path, figures):
    panels = {ODD: {"x": 1.5, ODD: -2.0}, "b": {ODD: 0.5, "x": 0.25}}
    plot_bars(panels, "weight", path=tmp_path / "bars.png")
    assert is_drawn(tmp_path / "bars.png")
    first, second = figures[0].axes
    assert [bar.get_width() for bar in first.patches] == [1.5, -2.0]
    assert [bar.get_width() for bar in second.patches] == [0.25, 0.5]  # in the first panel's order
    assert [label.get_text() for label in first.get_yticklabels()] == ["x", ODD]
    assert [label.get_text() for label in second.get_yticklabels()] == ["", ""]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first on top
    assert first.get_xlim() == second.get_xlim()
    assert first.get_xlim()[0] < -2
    assert first.get_xlim()[1] > 1.5
    assert (first.get_title(), second.get_title()) == (ODD, "b")


def test_bars_have_their_numbers_and_the_own_model_stands_out():
    panels = {"RMSE": {"the mean": 1200.0, "this model": 0.5}, "MAE": {"the mean": 3.25, "this model": 0.4}}
    first, second = plot_bars(panels, "error").axes
    assert [text.get_text() for text in first.texts] == ["1,200.00", "0.50"]
    assert [text.get_text() for text in second.texts] == ["3.25", "0.40"]
    (others, own), (alike, *_) = ([bar.get_facecolor() for bar in axis.patches] for axis in (first, second))
    assert alike == others != own
    (axis,) = plot_bars({"weights": panels["RMSE"]}, "weight", own=()).axes
    assert {bar.get_facecolor() for bar in axis.patches} == {own}
    (axis,) = plot_bars({"weights": panels["RMSE"]}, "weight", own=["weights"]).axes
    assert {bar.get_facecolor() for bar in axis.patches} == {own}


def test_bars_of_nothing_but_zeros_are_drawn_too(tmp_path, figures):
    plot_bars({"a": {"x": 0.0}}, "weight", path=tmp_path / "bars.png")
    assert figures[0].axes[0].get_xlim() == (-1, 1)


def test_a_roc_curve_is_drawn_beside_chance(tmp_path, figures):
    plot_roc({"model": (np.array([0, 0, 1]), np.array([0, 0.8, 1]))}, ODD, tmp_path / "roc.png")
    (axis,) = figures[0].axes
    curve, chance = axis.lines
    assert curve.get_xydata().tolist() == [[0, 0], [0, 0.8], [1, 1]]
    assert chance.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert axis.get_title() == f"positive: {ODD}"
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["model", "chance"]
    assert is_drawn(tmp_path / "roc.png")


def test_classes_of_a_confusion_matrix_may_look_like_formulas(tmp_path, figures):
    plot_confusion(np.eye(2, dtype=int), [ODD, "$y$"], path=tmp_path / "confusion.png")
    assert is_drawn(tmp_path / "confusion.png")
    assert [label.get_text() for label in figures[0].axes[0].get_xticklabels()] == [ODD, "$y$"]


def test_predictions_are_drawn_over_the_truth_with_the_line_of_agreement(tmp_path, figures):
    true, predicted = np.array([1.0, 2.0, 4.0]), np.array([1.5, 0.5, 3.0])
    plot_predictions(true, predicted, ODD, tmp_path / "predictions.png")
    (axis,) = figures[0].axes
    assert axis.collections[0].get_offsets().tolist() == [[1, 1.5], [2, 0.5], [4, 3]]
    assert axis.lines[0].get_xydata().tolist() == [[0.5, 0.5], [4, 4]]
    assert (axis.get_xlabel(), axis.get_ylabel()) == (f"actual {ODD}", f"predicted {ODD}")
    assert is_drawn(tmp_path / "predictions.png")


def test_lines_through_logarithms_are_drawn_in_what_was_counted(tmp_path, figures):
    x, y = torch.tensor([2.0, 0.0, 1.0]), torch.tensor([10.0, 100.0, 1000.0]).log()
    plot_line_fit(x, y, {"trained": y, "least squares": y + 1}, "year", "transistors", tmp_path / "moore.png")
    before, axis = figures[0].axes
    assert (before.get_yscale(), axis.get_yscale()) == ("linear", "log")
    assert not before.lines
    np.testing.assert_allclose(before.collections[0].get_offsets(), [[2, 10], [0, 100], [1, 1000]], rtol=1e-5)
    np.testing.assert_allclose(axis.collections[0].get_offsets(), [[2, 10], [0, 100], [1, 1000]], rtol=1e-5)
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[0, 100], [1, 1000], [2, 10]], rtol=1e-5)
    np.testing.assert_allclose(axis.lines[1].get_ydata(), np.array([100, 1000, 10]) * np.e, rtol=1e-5)
    assert is_drawn(tmp_path / "moore.png")


def test_surfaces_have_one_scale_and_points_on_the_first(tmp_path, figures):
    x, y = np.meshgrid(np.arange(4.0), np.arange(4.0))
    points = np.array([[0.0, 0, 1], [1, 2, 3]])
    plot_surfaces({"learnt": (x, y, x + y), "true": (x, y, -x)}, points, tmp_path / "surface.png")
    first, second = figures[0].axes
    assert (first.get_title(), second.get_title()) == ("learnt", "true")
    assert first.get_zlim() == second.get_zlim() == (-3, 6)
    assert (len(first.collections), len(second.collections)) == (2, 1)
    np.testing.assert_allclose(np.array(first.collections[1]._offsets3d), points.T)
    assert is_drawn(tmp_path / "surface.png")


@pytest.mark.filterwarnings("error")
def test_histograms_are_of_numbers_and_of_the_most_frequent_kinds(tmp_path, figures):
    kinds = np.array([f"kind number {i}" for i in range(20) for _ in range(i + 1)] + [ODD] * 30, dtype=object)
    columns = {ODD: np.array([1.0, 2.0, np.nan]), "kinds": kinds, "truths": np.array([True, False, True])}
    plot_histograms({**columns, "none": np.array([])}, tmp_path / "histograms.png")
    numbers, texts, truths, none = figures[0].axes
    assert sum(bar.get_height() for bar in numbers.patches) == 2
    assert [bar.get_height() for bar in texts.patches] == [30, *range(20, 9, -1)]
    labels = [label.get_text() for label in texts.get_xticklabels()]
    assert labels[:2] == [ODD, "kind number…"]
    assert [bar.get_height() for bar in truths.patches] == [2, 1]
    assert [axis.get_title() for axis in (numbers, texts, none)] == [ODD, "kinds", "none"]
    assert is_drawn(tmp_path / "histograms.png")


@pytest.mark.filterwarnings("error")
def test_a_scatter_matrix_has_each_column_over_each_other(tmp_path, figures):
    columns = {"a": np.array([1.0, 2.0, 4.0]), ODD: np.array([3.0, 5.0, np.nan]), "c": np.array([0.0, 1.0, 2.0])}
    plot_scatter_matrix(columns, tmp_path / "matrix.png")
    axes = np.array(figures[0].axes).reshape(3, 3)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == list(columns) == [axis.get_xlabel() for axis in axes[2]]
    assert axes[2, 0].collections[0].get_offsets().tolist() == [[1, 0], [2, 1], [4, 2]]
    assert sum(bar.get_height() for bar in axes[0, 0].patches) == 3
    assert is_drawn(tmp_path / "matrix.png")
