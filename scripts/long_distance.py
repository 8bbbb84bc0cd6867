"""Measure which networks still see three deciding terms when many others come after them (lecture 48)."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import _clone  # noqa: F401

from torchdl import SequenceModel, Trainer
from torchdl.cli.script import run_script
from torchdl.data.synthetic import deciding_terms
from torchdl.errors import require
from torchdl.recipes.learning import Learning
from torchdl.recipes.sequence_memory import Results, distance_report, tell_apart
from torchdl.training.device import setup_process

Network = Literal["linear", "rnn", "gru", "lstm", "rnn_max", "gru_max", "lstm_max"]
NETWORKS: tuple[Network, ...] = ("linear", "rnn", "gru", "lstm", "rnn_max", "gru_max", "lstm_max")


@dataclass(frozen=True)
class Config:
    """Train networks on random sequences, half of 5,000, labelled by the signs of three terms, and compare them.

    The lecture's settings: --hidden 5 --lr 0.01 --schedule constant --batch-size 32 --epochs 200 --clip-norm 0
    """

    terms: tuple[int, ...] = (10, 20, 30)
    """Lengths of the sequences; 40 and 50 are worth a try."""
    distances: tuple[Literal["short", "long", "spread"], ...] = ("short", "long")
    """Whether the last three terms decide, the first three, or the first, the middle and the last one."""
    networks: tuple[Network, ...] = NETWORKS
    """What reads the sequences; _max is pooling: the greatest value of each state in place of the last one."""
    seeds: tuple[int, ...] = (0,)
    """What sequences, initial weights and order derive from, for one training of each network each."""
    hidden: int = 16
    """Units of each network that has any; with 5, as in the lecture, less is learnt by heart at short distance."""
    sequences: int = 5000
    """Sequences, of which half are held out."""
    epochs: int = 100
    """Passes over the other half."""
    clip_norm: float = 1.0
    """Scale gradients down to this norm; 0 for never."""
    learning: Learning = field(default_factory=lambda: Learning(128, 0.05, "one_cycle"))
    quick: bool = False
    """See in a minute or two how it works: T = 10 and 20, long distance, without the slow gru and gru_max."""
    out: Path = Path("runs/long_distance")
    """The folder of the table and of its picture."""
    threads: int = 1
    """CPU threads; 0 for PyTorch's choice. Such small networks have no use for several."""


def main(config: Config) -> None:
    """Train every network at every distance, number of terms and seed."""
    if config.quick:
        fast = tuple(name for name in config.networks if "gru" not in name)
        config = replace(config, terms=(10, 20), distances=("long",), networks=fast, seeds=config.seeds[:1])
    for name in ("terms", "distances", "networks", "seeds"):
        values = getattr(config, name)
        require(len(set(values)) == len(values) > 0, f"--{name} must be one or more, each once, not {list(values)}")
    for distance, terms in product(config.distances, config.terms):
        deciding_terms(distance, terms)  # what cannot be made is said before anything is trained
    setup_process(config.threads)
    found: Results = {}
    for distance, name, terms, seed in product(config.distances, config.networks, config.terms, config.seeds):
        reading: Any = {"kind": name.removesuffix("_max"), "pooling": "max" if name.endswith("_max") else "last"}
        build = partial(SequenceModel, length=terms, hidden=config.hidden, **reading)
        trainer = Trainer(config.epochs, seed=seed, device="cpu", clip_norm=config.clip_norm, evaluate_every=10**6)
        since = time.perf_counter()
        result = tell_apart(build, terms, distance, config.sequences, config.learning, trainer)
        found.setdefault(distance, {}).setdefault(name, {}).setdefault(terms, []).append(result)
        print(
            f"{distance} distance, T = {terms}, seed {seed}, {name}: {result.held_out:.2f} % right "
            f"(training {result.train:.2f} %), {time.perf_counter() - since:.0f} s",
            flush=True,
        )
    report = distance_report(found, asdict(config))
    report.save(config.out, "accuracy.json", plots="")
    print(f"\n{report.summary}\nresults and figure: {config.out}")


if __name__ == "__main__":
    run_script(main, Config)
