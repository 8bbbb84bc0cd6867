"""Measure how far back networks remember: on sequences of which few terms decide (lecture 48), and on sums of two.

Shapes: N sequences, T terms.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from torchdl import plots
from torchdl.data import AddingProblem, ArrayDataset, BatchLoader, long_distance
from torchdl.errors import require
from torchdl.files import write_json
from torchdl.tasks import binary_accuracy
from torchdl.training import process
from torchdl.training.command import Run, say
from torchdl.training.learning import Learning
from torchdl.training.trainer import Trainer

CHANCE = 50.0  # per cent: labels 0 and 1 are equally frequent


class Result(NamedTuple):
    """What a network has got right, in per cent of the training and of the held-out sequences."""

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
    process.seed_generators(process.find_device(trainer.device), trainer.seed)  # for the initial weights
    task = learning.task(build(), F.binary_cross_entropy_with_logits, {"accuracy": binary_accuracy})
    train = BatchLoader(parts[0], learning.batch_size, shuffle=True, seed=trainer.seed)
    with redirect_stdout(io.StringIO()):  # a line an epoch of each of many trainings
        history = trainer.fit(task, train, BatchLoader(parts[1], 500))
    return Result(*(100 * history[-1][f"{part}/accuracy"] for part in ("train", "val")))


#: Results of each seed, by distance, network and number of terms.
Results = dict[str, dict[str, dict[int, list[Result]]]]


def table(found: Results) -> str:
    """Say the share of held-out sequences that is right, in per cent, as a table: the mean of the seeds, and the range.

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


def report_distances(found: Results, settings: Mapping[str, Any], folder: Path) -> None:
    """Write the results as ``accuracy.json`` and draw them as ``accuracy.png``, chance marked."""
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
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "accuracy.json", {"settings": settings, "chance": CHANCE, "accuracy": written}, default=str)
    drawn = {
        f"{distance} distance": {
            name: {terms: [result.held_out for result in results] for terms, results in measured.items()}
            for name, measured in networks.items()
        }
        for distance, networks in found.items()
    }
    path = folder / "accuracy.png"
    plots.plot_measured(drawn, path, "terms", "held-out sequences right, %", {"chance": CHANCE})


def fit_adding(run: Run, model: nn.Module, train: AddingProblem, held_out: AddingProblem, learning: Learning) -> None:
    """Train a network to add in ``run``; leave ``results.json`` and the error's course, ``plots/mse.png``, there."""
    task = learning.task(model, F.mse_loss, {"absolute_error": absolute_error})
    batches = BatchLoader(train, learning.batch_size)  # no order is needed: the sequences are random
    history = run.fit(task, model, batches, BatchLoader(held_out, 500))
    if not run.is_main:
        return
    curve = {int(row["step"]): row["val/loss"] for row in history if "val/loss" in row}
    results = {
        "mse": history[-1]["val/loss"],
        "mse of always saying the mean": held_out.baseline,
        "mean absolute error": history[-1]["val/absolute_error"],
        "range": [held_out.low, 1.0],
        "terms": held_out.terms,
        "sequences": len(held_out),
        "parameters": sum(p.numel() for p in model.parameters()),
        "mse by step": curve,
    }
    write_json(run.folder / "results.json", results)
    title = f"sums of two of {held_out.terms} numbers in [{held_out.low:g}, 1]"
    plots.plot_measured(
        {title: {"held out": {step: [error] for step, error in curve.items()}}},
        run.folder / "plots" / "mse.png",
        "step",
        "mean squared error",
        {"always the mean": held_out.baseline},
        log_y=True,
    )
    say(
        f"mse {results['mse']:.5f} of {len(held_out):,} held-out sums of numbers in [{held_out.low:g}, 1] "
        f"(always saying the mean: {held_out.baseline:.3f}); its course: {run.folder / 'plots'}"
    )
