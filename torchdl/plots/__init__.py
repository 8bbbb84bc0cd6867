"""Figures by kind: every function returns its ``matplotlib.figure.Figure``, and saves it as PNG if given a path."""

from torchdl.plots.curves import (
    plot_comparison,
    plot_forecast,
    plot_functions,
    plot_history,
    plot_label_efficiency,
    plot_learning_rates,
    plot_line_fit,
    plot_lines,
    plot_measured,
    plot_next_terms,
    plot_paths,
    plot_precision_recall,
    plot_roc,
    plot_surfaces,
)
from torchdl.plots.images import plot_image_rows, plot_images, plot_nearest, plot_predicted_images, plot_sequences
from torchdl.plots.statistics import (
    plot_bars,
    plot_confusion,
    plot_embeddings,
    plot_histograms,
    plot_predictions,
    plot_scatter_matrix,
)

__all__ = [
    "plot_bars",
    "plot_comparison",
    "plot_confusion",
    "plot_embeddings",
    "plot_forecast",
    "plot_functions",
    "plot_histograms",
    "plot_history",
    "plot_images",
    "plot_label_efficiency",
    "plot_learning_rates",
    "plot_line_fit",
    "plot_lines",
    "plot_measured",
    "plot_nearest",
    "plot_next_terms",
    "plot_paths",
    "plot_precision_recall",
    "plot_predicted_images",
    "plot_predictions",
    "plot_roc",
    "plot_scatter_matrix",
    "plot_sequences",
    "plot_surfaces",
]
