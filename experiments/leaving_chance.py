"""Count the steps until CPC's original loss leaves chance, for each of its conventions, and stop there.

In a clone: ``python -m experiments.leaving_chance --jobs 2``. A training is that of ``train_cpc.py --head paired`` at
64x64 in colour. Results are kept in ``experiments/leaving_chance.json``; what is there is not measured again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.machine import machine
from experiments.run import end_with_parent
from torchdl import BatchLoader, CPCTask, ImageEncoder, SortedNumbers, Trainer, image_cpc, load_digits
from torchdl.cli.commit import commit
from torchdl.cli.main import run_script
from torchdl.errors import require
from torchdl.files import read_json, write_json
from torchdl.models.cpc import FirstNorm
from torchdl.models.gates import Gate
from torchdl.tasks import Update
from torchdl.training.device import seed_generators, setup_process

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "leaving_chance.json"


@dataclass(frozen=True)
class Variant:
    """The conventions of a training; the defaults are those of this project, without centring."""

    background: str = "both"
    separate_passes: bool = False
    batch_statistics: bool = False
    gate: Gate = "sigmoid"
    reset_after: bool = True
    center_images: bool = False
    batch_size: int = 32
    lr: float = 1e-3
    first_norm: FirstNorm = "batch"
    normed_codes: bool = False


OURS = Variant()
GIVEN = Variant("flower", separate_passes=True, batch_statistics=True, gate="hard_sigmoid", reset_after=False)
VARIANTS = {
    "as given": GIVEN,
    "as given, china": replace(GIVEN, background="china"),
    "as given, both photographs": replace(GIVEN, background="both"),
    "as given, one pass": replace(GIVEN, separate_passes=False),
    "as given, running statistics": replace(GIVEN, batch_statistics=False),
    "as given, sigmoid": replace(GIVEN, gate="sigmoid"),
    "as given, reset after": replace(GIVEN, reset_after=True),
    "as given, centred": replace(GIVEN, center_images=True),
    "ours": OURS,
    "ours, flower": replace(OURS, background="flower"),
    "ours, two passes": replace(OURS, separate_passes=True),
    "ours, hard sigmoid": replace(OURS, gate="hard_sigmoid"),
    "ours, reset before": replace(OURS, reset_after=False),
    "ours, centred": replace(OURS, center_images=True),
    "ours, instance norm": replace(OURS, first_norm="instance"),
    "ours, normed codes": replace(OURS, normed_codes=True),
    "ours, batches of 128": replace(OURS, batch_size=128),
    "ours, learning rate 3e-4": replace(OURS, lr=3e-4),
    "ours, learning rate 3e-3": replace(OURS, lr=3e-3),
}


@dataclass(frozen=True)
class Config:
    """Count the steps until CPC's original loss leaves chance."""

    only: tuple[str, ...] = ()
    """Names of variants; all if none."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds of each."""
    max_steps: int = 2000
    """Steps after which a training is given up."""
    jobs: int = 1
    """Trainings at a time, with one thread each."""
    table: bool = False
    """Measure nothing, and print the table of what is known."""
    data_root: Path | None = None
    """The folder of the data sets."""


class HasLeft(Exception):  # not an error: the training has answered the question
    """The loss has left chance."""


class UntilLeft(CPCTask):
    """A task that stops its training when the loss leaves chance."""

    def losses(self, batch: Sequence[Tensor]) -> Iterator[Update]:
        """Yield the update of the model."""
        yield from super().losses(batch)
        if int(self.steps_at_chance) >= 0:
            raise HasLeft


def measure(variant: Variant, seed: int, max_steps: int, root: Path | None) -> int | None:
    """Return the step at which the loss left chance, or None if it did not."""
    setup_process(1)
    size = variant.batch_size
    subsets = (load_digits(name, seed=seed, background=variant.background, root=root) for name in ("train", "valid"))
    train, validation = (BatchLoader(SortedNumbers(digits, 4, 4, size // 2, size), size) for digits in subsets)
    seed_generators(torch.device("cpu"), seed)
    model = image_cpc(
        center_images=variant.center_images,
        gate=variant.gate,
        reset_after=variant.reset_after,
        separate_passes=variant.separate_passes,
        batch_statistics=variant.batch_statistics,
        first_norm=variant.first_norm,
    )
    if variant.normed_codes:
        cast(ImageEncoder, model.encoder).layers.append(nn.BatchNorm1d(128, eps=1e-3, affine=False))
    task = UntilLeft(model, "paired", variant.lr)
    try:
        Trainer(max_steps=max_steps, seed=seed, device="cpu").fit(task, train, validation)
    except HasLeft:
        return int(task.steps_at_chance)
    return None


def table(kept: Sequence[dict[str, Any]]) -> str:
    """Return results as a table in Markdown, a row for each variant and a column for each seed."""
    found = {
        (row["variant"], row["seed"]): f"{row['left']:,}" if row["left"] else f"not in {row['max_steps']:,}"
        for row in kept
    }
    seeds = sorted({seed for _, seed in found})
    rows = [["conventions", *(f"seed {seed}" for seed in seeds)], ["---"] * (1 + len(seeds))]
    for name in VARIANTS:
        if any((name, seed) in found for seed in seeds):
            rows.append([name, *(str(found.get((name, seed), "")) for seed in seeds)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(config: Config) -> None:
    """Measure what is missing, and keep each result at once."""
    unknown = sorted(set(config.only) - set(VARIANTS))
    require(not unknown, f"unknown variants {', '.join(unknown)}: choose among {', '.join(VARIANTS)}")
    kept: list[dict[str, Any]] = read_json(RESULTS) if RESULTS.exists() else []
    if config.table:
        print(table(kept))
        return
    known = {(row["variant"], row["seed"]) for row in kept}
    here = {"max_steps": config.max_steps, "commit": commit(), "machine": machine()}
    with ProcessPoolExecutor(config.jobs, get_context("spawn"), end_with_parent) as pool:
        waiting = {
            pool.submit(measure, VARIANTS[name], seed, config.max_steps, config.data_root): (name, seed)
            for seed in config.seeds
            for name in config.only or VARIANTS
            if (name, seed) not in known
        }
        for done in as_completed(waiting):
            name, seed = waiting[done]
            kept.append({"variant": name, "seed": seed, "left": done.result(), **here})
            order = list(VARIANTS)
            write_json(RESULTS, sorted(kept, key=lambda row: (order.index(row["variant"]), row["seed"])))
            print(f"{name}, seed {seed}: {done.result() or f'not in {config.max_steps} steps'}", flush=True)


if __name__ == "__main__":
    run_script(main, Config)
