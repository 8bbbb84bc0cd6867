"""Measure how far back networks remember: on sequences that few terms decide (lecture 48), and on the adding problem.

Shapes: N sequences, T terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from torchdl.data import AddingProblem, ArrayDataset, BatchLoader, long_distance
from torchdl.errors import require
from torchdl.plots import plot_measured
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Report
from torchdl.tasks import binary_accuracy
from torchdl.training.device import find_device, seed_generators
from torchdl.training.trainer import Trainer

CHANCE = 50.0  # per cent: labels 0 and 1 are equally frequent


class Result(NamedTuple):
    """A network's accuracy on the training and on the test sequences, in per cent."""

    train: float
    held_out: float


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Give each example's absolute error (N,), of outputs (N, 1)."""
    return (output - target).abs().flatten()  # (N, 1) -> (N,)


def tell_apart(
    build: Callable[[], nn.Module], terms: int, distance: str, count: int, learning: Learning, trainer: Trainer
) -> Result:
    """Train a network on the first half of :func:`torchdl.long_distance`'s sequences, and try it on the other half.

    Args:
        build: Builds the network, of sequences (N, T, 1) to logits (N, 1), once the generators are seeded.
        terms: T.
        distance: One of :data:`torchdl.data.synthetic.DISTANCES`.
        count: Sequences, of both halves.
        learning: How it learns.
        trainer: What trains it; its seed is the sequences', too.
    """
    require(count >= 2, f"there must be 2 sequences at least, one for each half, not {count}")
    sequences = long_distance(count, terms, distance, trainer.seed)
    half = count // 2
    parts = [ArrayDataset(*sequences[part], sequences.origin) for part in (slice(half), slice(half, None))]
    seed_generators(find_device(trainer.device), trainer.seed)  # for the initial weights
    task = learning.task(build(), F.binary_cross_entropy_with_logits, {"accuracy": binary_accuracy})
    train = BatchLoader(parts[0], learning.batch_size, shuffle=True, seed=trainer.seed)
    history = trainer.fit(task, train, BatchLoader(parts[1], 500))
    return Result(*(100 * history[-1][f"{part}/accuracy"] for part in ("train", "val")))


#: Results of each seed, by distance, network and number of terms.
Results = dict[str, dict[str, dict[int, list[Result]]]]


def table(found: Results) -> str:
    """Return the test accuracies, in per cent, as a table: the mean of the seeds, and the range.

    Networks are rows and numbers of terms columns, for each distance.
    """
    lines = []
    for distance, networks in found.items():
        terms = next(iter(networks.values()))
        lines.append(f"{distance + ' distance':18}" + "".join(f"{f'T = {t}':>26}" for t in terms))
        for name, measured in networks.items():
            cells = []
            for results in measured.values():
                shares = [result.held_out for result in results]
                spread = f" ({min(shares):.2f} to {max(shares):.2f})" if len(shares) > 1 else ""
                cells.append(f"{f'{sum(shares) / len(shares):.2f}{spread}':>26}")
            lines.append(f"{name:18}" + "".join(cells))
    return "\n".join(lines)


def distance_report(found: Results, settings: Mapping[str, Any]) -> Report:
    """Lay the results out as numbers, as a table and as a figure with chance marked."""
    written = {
        distance: {
            name: {
                str(terms): {part: [getattr(result, part) for result in results] for part in Result._fields}
                for terms, results in measured.items()
            }
            for name, measured in networks.items()
        }
        for distance, networks in found.items()
    }
    drawn = {
        f"{distance} distance": {
            name: {terms: [result.held_out for result in results] for terms, results in measured.items()}
            for name, measured in networks.items()
        }
        for distance, networks in found.items()
    }
    figure = plot_measured(drawn, "terms", "test accuracy, %", {"chance": CHANCE})
    results = {"settings": dict(settings), "chance": CHANCE, "accuracy": written}
    return Report(results, f"test accuracy, % (chance: {CHANCE:g})\n{table(found)}", {"accuracy": figure})


def adding_training(model: nn.Module, train: AddingProblem, test: AddingProblem, learning: Learning) -> Training:
    """Build the task and the batches that train a network to add."""
    task = learning.task(model, F.mse_loss, {"absolute_error": absolute_error})
    # no order is needed: the sequences are random
    return Training(task, BatchLoader(train, learning.batch_size), BatchLoader(test, 500))


def adding_report(model: nn.Module, test: AddingProblem, history: Sequence[Mapping[str, float]]) -> Report:
    """Return the error of a network that adds, and its course over the training."""
    curve = {int(row["step"]): row["val/loss"] for row in history if "val/loss" in row}
    results = {
        "mse": history[-1]["val/loss"],
        "mse of always saying the mean": test.baseline,
        "mean absolute error": history[-1]["val/absolute_error"],
        "range": [test.low, 1.0],
        "terms": test.terms,
        "sequences": len(test),
        "parameters": sum(p.numel() for p in model.parameters()),
        "mse by step": curve,
    }
    title = f"sums of two of {test.terms} numbers in [{test.low:g}, 1]"
    figure = plot_measured(
        {title: {"test": {step: [error] for step, error in curve.items()}}},
        "step",
        "mean squared error",
        {"always the mean": test.baseline},
        log_y=True,
    )
    summary = (
        f"test MSE {results['mse']:.5f} on {len(test):,} sums of numbers in [{test.low:g}, 1] "
        f"(always predicting the mean: {test.baseline:.3f})"
    )
    return Report(results, summary, {"mse": figure})
