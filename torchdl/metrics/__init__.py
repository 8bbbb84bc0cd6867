"""Metrics other than losses."""

from torchdl.metrics.clusters import clustering_accuracy
from torchdl.metrics.forecasts import error_ratio, forecast_errors
from torchdl.metrics.samples import (
    Moments,
    Neighbours,
    SampleSet,
    class_shares,
    compare_sets,
    frechet_deviation,
    frechet_distance,
    inception_score,
    kernel_distance,
    neighbour_scores,
)
from torchdl.metrics.units import silent_units

__all__ = [
    "Moments",
    "Neighbours",
    "SampleSet",
    "class_shares",
    "clustering_accuracy",
    "compare_sets",
    "error_ratio",
    "forecast_errors",
    "frechet_deviation",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "neighbour_scores",
    "silent_units",
]
