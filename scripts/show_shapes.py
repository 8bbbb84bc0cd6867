"""Show the shape of every weight of a recurrent network, and compute its output from them by hand (lecture 44)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

import numpy as np
import torch

from torchdl import SequenceModel
from torchdl.cli.main import run_script
from torchdl.errors import require


@dataclass(frozen=True)
class Config:
    """Print every weight of a simple recurrent network with its shape, and its output beside the one by hand."""

    terms: int = 10
    """T, the length of the sequence."""
    features: int = 3
    """D, numbers per term of the sequence."""
    hidden: int = 5
    """M, number of hidden units."""
    outputs: int = 2
    """K, number of outputs."""
    seed: int = 0
    """The seed of the weights and of the sequence."""


def by_hand(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Compute the output (K,) for one sequence (T, D), term by term; the weights have the names of :func:`main`."""
    h = np.zeros_like(weights["bh"])  # (M,), the state before the first term
    for term in x:
        h = np.tanh(weights["Wx"] @ term + weights["Wh"] @ h + weights["bx"] + weights["bh"])  # (M,)
    output: np.ndarray = weights["Wo"] @ h + weights["bo"]  # only the last state counts
    return output


def main(config: Config) -> None:
    """Build the network, print its weights, compute its output twice."""
    for each in fields(config):
        value = getattr(config, each.name)
        require(value >= 1 or each.name == "seed", f"--{each.name} must be 1 or more, not {value}")
    torch.manual_seed(config.seed)
    model = SequenceModel("rnn", config.features, config.outputs, hidden=config.hidden).double()
    x = torch.randn(1, config.terms, config.features, dtype=torch.float64)  # (N, T, D)
    names = {
        "core.weight_ih_l0": ("Wx", "input to hidden", "(M, D)"),
        "core.weight_hh_l0": ("Wh", "hidden to hidden", "(M, M)"),
        "core.bias_ih_l0": ("bx", "PyTorch adds two biases", "(M,)"),
        "core.bias_hh_l0": ("bh", "the other one", "(M,)"),
        "head.weight": ("Wo", "hidden to output", "(K, M)"),
        "head.bias": ("bo", "bias of the output", "(K,)"),
    }
    print(f"x: (N, T, D) = {tuple(x.shape)}, M = {config.hidden}, K = {config.outputs}")
    weights = {}
    for name, values in model.named_parameters():
        letter, meaning, letters = names[name]
        if values.dim() == 1:
            torch.nn.init.normal_(values)  # instead of 0, so that a forgotten bias shows
        weights[letter] = values.detach().numpy()
        print(f"\n{letter} = {name}, {meaning}: {letters} = {tuple(values.shape)}\n{weights[letter].round(3)}")
    with torch.no_grad():
        output = model(x)[0].numpy()  # (1, K) -> (K,)
    found = by_hand(weights, x[0].numpy())
    print(f"\nthe network's output (K,):  {output.round(6)}\ncomputed by hand:           {found.round(6)}")
    print(f"largest difference: {np.abs(output - found).max():.1g}")


if __name__ == "__main__":
    run_script(main, Config)
