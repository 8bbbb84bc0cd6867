"""Measure how far back networks remember, on sequences labelled by few terms (lecture 48) and on the adding problem.

Shapes: N sequences, T terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from torchdl import random
from torchdl.data import AddingProblem, ArrayDataset, BatchLoader, long_distance
from torchdl.errors import require
from torchdl.models.rnn import FIXED
from torchdl.plots import plot_measured
from torchdl.predict import SequencePredictor
from torchdl.recipes.learning import Learning, Training
from torchdl.recipes.report import Report
from torchdl.tasks import binary_accuracy
from torchdl.training.device import find_device
from torchdl.training.trainer import Trainer

CHANCE = 50.0  # accuracy in per cent: labels 0 and 1 are equally frequent


class Result(NamedTuple):
    """A network's accuracy on the sequences to ``train`` on and on the ``held_out`` ones, in per cent."""

    train: float
    held_out: float


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Return the absolute error (N,) of ``output`` (N, 1), given ``target`` (N, 1)."""
    return (output - target).abs().flatten()  # (N, 1) -> (N,)


def tell_apart(
    build: Callable[[], nn.Module], terms: int, distance: str, count: int, learning: Learning, trainer: Trainer
) -> tuple[Result, SequencePredictor]:
    """Train a network on the first half of :func:`torchdl.long_distance`'s sequences and test it on the second half.

    The network is returned, too, as a predictor of whether the number of negative deciding terms is even or odd.

    Args:
        build: Builds the network, which maps sequences (N, T, 1) to logits (N, 1); called after seeding the generators.
        terms: T.
        distance: One of :data:`torchdl.data.synthetic.DISTANCES`.
        count: Number of sequences in both halves together.
        learning: How the network learns.
        trainer: The trainer; its seed also determines the sequences.

    Raises:
        InputError: There are fewer than two sequences.
    """
    require(count >= 2, f"count must be at least 2, one sequence for each half, not {count}")
    sequences = long_distance(count, terms, distance, trainer.seed)
    half = count // 2
    train, test = (ArrayDataset(*sequences[part], sequences.origin) for part in (slice(half), slice(half, None)))
    with random.seeded(find_device(trainer.device), trainer.seed):
        network = build()
    task = learning.task(network, F.binary_cross_entropy_with_logits, {"accuracy": binary_accuracy})
    batches = BatchLoader(train, learning.batch_size, shuffle=True, seed=trainer.seed)
    history = trainer.fit(task, batches, BatchLoader(test, 500))
    length = terms if getattr(network, "kind", "") in FIXED else None
    settings = SequencePredictor.Settings(1, classes=("even", "odd"), length=length)
    accuracies = (100 * history[-1][f"{part}/accuracy"] for part in ("train", "val"))
    return Result(*accuracies), SequencePredictor(network, settings, trainer.device)


#: Results by distance, network and number of terms, one per seed.
Results = dict[str, dict[str, dict[int, list[Result]]]]


def table(results: Results) -> str:
    """Return a table for each distance in ``results``: test accuracies in per cent, the mean and range over the seeds.

    Rows are networks, and columns are numbers of terms.
    """
    lines = []
    for distance, networks in results.items():
        terms = next(iter(networks.values()))
        lines.append(f"{distance + ' distance':18}" + "".join(f"{f'T = {t}':>26}" for t in terms))
        for name, measured in networks.items():
            cells = []
            for seeds in measured.values():
                accuracies = [result.held_out for result in seeds]
                spread = f" ({min(accuracies):.2f} to {max(accuracies):.2f})" if len(accuracies) > 1 else ""
                cells.append(f"{f'{sum(accuracies) / len(accuracies):.2f}{spread}':>26}")
            lines.append(f"{name:18}" + "".join(cells))
    return "\n".join(lines)


def distance_report(results: Results, settings: Mapping[str, Any]) -> Report:
    """Report the results as numbers, as a table and as a figure that marks chance; ``settings`` are passed on."""
    written = {
        distance: {
            name: {
                str(terms): {part: [getattr(result, part) for result in seeds] for part in Result._fields}
                for terms, seeds in measured.items()
            }
            for name, measured in networks.items()
        }
        for distance, networks in results.items()
    }
    drawn = {
        f"{distance} distance": {
            name: {terms: [result.held_out for result in seeds] for terms, seeds in measured.items()}
            for name, measured in networks.items()
        }
        for distance, networks in results.items()
    }
    figure = plot_measured(drawn, "terms", "test accuracy, % (mean and range)", {"chance": CHANCE})
    summary = f"test accuracy, % (chance: {CHANCE:g})\n{table(results)}"
    return Report({"settings": dict(settings), "chance": CHANCE, "accuracy": written}, summary, {"accuracy": figure})


def adding_training(model: nn.Module, train: AddingProblem, test: AddingProblem, learning: Learning) -> Training:
    """Build the task and batches that train ``model`` to add.

    Args:
        model: Maps sequences (B, T, 2) to sums (B, 1).
        train, test: The sequences.
        learning: How the model learns.
    """
    task = learning.task(model, F.mse_loss, {"absolute_error": absolute_error})
    # no shuffling: the sequences are random
    return Training(task, BatchLoader(train, learning.batch_size), BatchLoader(test, 500))


def adding_predictor(model: nn.Module, device: str = "auto") -> SequencePredictor:
    """Return the predictor of a network, ``model``, that learns to add.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
    """
    return SequencePredictor(model, SequencePredictor.Settings(2, name="sum"), device)


def adding_report(predictor: SequencePredictor, test: AddingProblem, history: Sequence[Mapping[str, float]]) -> Report:
    """Report the test error on the adding problem, of the network as it is now and during training.

    Args:
        predictor: The network's.
        test: The test sequences.
        history: The training's rows.
    """
    curve = {int(row["step"]): row["val/loss"] for row in history if "val/loss" in row}
    sequences, sums = test[:]
    errors = predictor.outputs(sequences) - sums.cpu()  # (N, 1)
    results = {
        "mse": float(errors.square().double().mean()),
        "mse of always saying the mean": test.baseline,
        "mean absolute error": float(errors.abs().double().mean()),
        "range": [test.low, 1.0],
        "terms": test.terms,
        "sequences": len(test),
        "parameters": sum(p.numel() for p in predictor.model.parameters()),
        "mse by step": curve,
    }
    title = f"sums of two of {test.terms} numbers in [{test.low:g}, 1]"
    drawn = {title: {"test": {step: [error] for step, error in curve.items()}}}
    references = {"always predicting the mean": test.baseline}
    figure = plot_measured(drawn, "step", "mean squared error", references, log_y=True)
    summary = (
        f"test MSE {results['mse']:.5f} on {len(test):,} sums of numbers in [{test.low:g}, 1] "
        f"(always predicting the mean: {test.baseline:.3f})"
    )
    return Report(results, summary, {"mse": figure})
