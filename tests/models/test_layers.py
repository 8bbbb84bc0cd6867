from __future__ import annotations

import pytest
import torch
from helpers import gaussian
from torch import nn

import torchdl
from torchdl import layer_table


def columns(table: str) -> dict[str, list[str]]:
    """Return the cells after each layer's name."""
    lines = table.splitlines()
    starts = [lines[0].index(name) for name in ("layer", "kind", "output shape", "parameters")]
    ends = [*starts[1:], None]
    rows = [[line[a:b].strip() for a, b in zip(starts, ends, strict=True)] for line in lines[1:-1]]
    return {name: cells for name, *cells in rows}


def test_layers_have_their_names_kinds_shapes_and_parameters():
    model = torchdl.MLP(4, 3, hidden=(5,), dropout=0.5).train()
    model.layers[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    table = layer_table(model, gaussian(7, 4))
    assert torch.equal(torch.rand(1), expected)  # the model and the generators are as before
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    rows = columns(table)
    assert rows["layers.0"] == ["Linear", "(7, 5)", "25"]
    assert rows["layers.1"] == ["ReLU", "(7, 5)", ""]
    assert [cells[1:] for cells in rows.values()][-1] == ["(7, 3)", "18"]
    assert table.splitlines()[-1] == "43 parameters, of which 20 are frozen"


class Odd(nn.Module):
    """A module with a parameter of its own, a layer that is not called, and a normed one that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.unused = nn.Parameter(torch.ones(3)), nn.GRU(2, 2)
        self.normed = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.normed(self.normed(x)[:1] * self.scale)


def test_parameters_outside_layers_and_layers_that_are_not_called_have_rows():
    table = layer_table(Odd(), gaussian(2, 3))
    rows = columns(table)
    assert rows == {
        "Odd": ["Odd", "(1, 3)", "3"],
        "normed": ["ParametrizedLinear", "(2, 3)", "12"],
        "unused": ["GRU", "-", "36"],
    }
    assert list(rows) == ["Odd", "normed", "unused"]
    assert table.splitlines()[-1] == "51 parameters, none frozen"


def first_example(task: torchdl.Task, *batch: torch.Tensor) -> dict[str, list[str]]:
    rows = columns(table := layer_table(task, batch, call=task.evaluate))
    total = sum(p.numel() for p in task.parameters())
    assert table.splitlines()[-1].startswith(f"{total:,} parameters")
    assert sum(int(cells[2].replace(",", "") or 0) for cells in rows.values()) == total
    return rows


def supervised(model: nn.Module) -> torchdl.Task:
    return torchdl.Supervised(model, nn.functional.mse_loss)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_both_networks_of_a_gan_are_shown(average):
    rows = first_example(torchdl.GANTask(torchdl.simple_gan(), average=average), torch.zeros(1, 1, 28, 28))
    assert [cells[1] for name, cells in rows.items() if name.startswith("generator.")][-1] == "(1, 784)"
    assert [cells[1] for name, cells in rows.items() if name.startswith("discriminator.")][-1] == "(2, 1)"  # and real
    assert ("averaged" in rows) == bool(average)


def test_recurrent_text_recommender_and_cpc_models_are_shown():
    rows = first_example(
        supervised(torchdl.SequenceModel("rnn", 3, activation="none")), gaussian(1, 9, 3), gaussian(1, 1)
    )
    assert rows["model.core"] == ["LinearRNN", "(1, 9, 10)", "150"]
    text = supervised(torchdl.TextLSTM(20, embedding_dim=4))
    assert first_example(text, torch.ones(1, 6, dtype=torch.int64), gaussian(1, 1))["model.embedding"][1] == "(1, 6, 4)"
    rows = first_example(
        supervised(torchdl.RatingModel(5, 6, factors=2)), torch.ones(1, 2, dtype=torch.int64), gaussian(1)
    )
    assert rows["model.factorization.item_vectors"] == ["Embedding", "(1, 2)", "14"]
    task = torchdl.CPCTask(torchdl.image_cpc(28, predict_terms=2))
    images = gaussian(1, 6, 3, 28, 28)
    rows = first_example(task, images[:, :4], images[:, 4:], torch.ones(1, dtype=torch.int64))
    assert rows["model.encoder.layers.0"][1][:4] == "(6, "  # the images of a sequence
    assert rows["model.context.core"][0] == "GRU"


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (torchdl.TextLSTM(20), ["embedding", "drop_words", "lstm", "drop", "head"]),
        (torchdl.TextCNN(20, widths=(4,)), ["embedding", "drop_words", "convolutions.0", "drop", "head"]),
    ],
)
def test_layers_are_in_the_order_of_their_calls(model, names):
    assert list(columns(layer_table(model, torch.ones(1, 6, dtype=torch.int64)))) == names


def test_the_shape_of_a_batch_is_no_batch():
    for shape in ((1, 28, 28), [1, 28, 28], torch.Size([1, 28, 28])):
        with pytest.raises(torchdl.InputError, match=r"torch.zeros\(.*1, 28, 28.*\)"):
            layer_table(torchdl.MLP(), shape)
