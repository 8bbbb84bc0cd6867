"""Measure which networks remember three decisive terms when many other terms follow (lecture 48)."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import SequenceModel, Trainer
from torchdl.cli.main import run_script
from torchdl.data.synthetic import deciding_terms
from torchdl.errors import require
from torchdl.recipes.learning import Learning
from torchdl.recipes.sequence_memory import Results, distance_report, tell_apart
from torchdl.training.device import setup_process

Network = Literal["linear", "rnn", "gru", "lstm", "rnn_max", "gru_max", "lstm_max"]
NETWORKS: tuple[Network, ...] = ("linear", "rnn", "gru", "lstm", "rnn_max", "gru_max", "lstm_max")


@dataclass(frozen=True)
class Config:
    """Train networks on random sequences that are labelled by the signs of three terms, and compare them.

    The lecture's settings: --hidden 5 --lr 0.01 --schedule constant --batch-size 32 --epochs 200 --clip-norm 0
    """

    terms: tuple[int, ...] = (10, 20, 30)
    """Lengths of the sequences; try 40 and 50, too."""
    distances: tuple[Literal["short", "long", "spread"], ...] = ("short", "long")
    """Which terms decide: the last three, the first three, or the first, the middle and the last one."""
    networks: tuple[Network, ...] = NETWORKS
    """The networks to compare; _max stands for pooling: the maximum of each unit instead of the last state."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of sequences, initial weights and order; each network is trained once per seed."""
    hidden: int = 16
    """Hidden units of each network; 5, as in the lecture, overfit less at short distance."""
    sequences: int = 5000
    """Number of sequences: one half for training, the other for testing."""
    epochs: int = 100
    """Number of epochs."""
    clip_norm: float = 1.0
    """Maximum norm of the gradients, which are scaled down to it; 0 for no maximum."""
    learning: Learning = field(default_factory=lambda: Learning(128, 0.05, "one_cycle"))
    quick: bool = False
    """Run a part that takes a minute or two: 10 and 20 terms, long distance, no gru and gru_max."""
    out: Path = Path("runs/long_distance")
    """The folder of the results, the figure and the networks."""
    threads: int = 1
    """CPU threads; 0 lets PyTorch choose. Several do not make such small networks faster."""


def main(config: Config) -> None:
    """Train every network for every distance, number of terms and seed."""
    if config.quick:
        fast = tuple(name for name in config.networks if "gru" not in name)
        config = replace(config, terms=(10, 20), distances=("long",), networks=fast, seeds=config.seeds[:1])
    for name in ("terms", "distances", "networks", "seeds"):
        values = getattr(config, name)
        require(len(set(values)) == len(values) > 0, f"--{name} must be one or more, all different, not {list(values)}")
    for distance, terms in product(config.distances, config.terms):
        deciding_terms(distance, terms)  # raises an error before any training if there are too few terms
    setup_process(config.threads)
    found: Results = {}
    for distance, name, terms, seed in product(config.distances, config.networks, config.terms, config.seeds):
        reading: Any = {"kind": name.removesuffix("_max"), "pooling": "max" if name.endswith("_max") else "last"}
        build = partial(SequenceModel, length=terms, hidden=config.hidden, **reading)
        trainer = Trainer(config.epochs, seed=seed, device="cpu", clip_norm=config.clip_norm, evaluate_every=10**6)
        since = time.perf_counter()
        result, predictor = tell_apart(build, terms, distance, config.sequences, config.learning, trainer)
        predictor.save(config.out / "networks" / f"{distance}-{name}-{terms}-{seed}")
        found.setdefault(distance, {}).setdefault(name, {}).setdefault(terms, []).append(result)
        print(
            f"{distance} distance, T = {terms}, seed {seed}, {name}: test accuracy {result.held_out:.2f} % "
            f"(train {result.train:.2f} %), {time.perf_counter() - since:.0f} s",
            flush=True,
        )
    report = distance_report(found, asdict(config))
    report.save(config.out, "accuracy.json", plots="")
    print(f"\n{report.summary}\nresults and figure: {config.out}")


if __name__ == "__main__":
    run_script(main, Config)
