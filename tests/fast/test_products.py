"""Products by oneDNN: PyTorch's results to rounding, wherever they are used, and only where they are faster."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from helpers.resuming import TASKS, PowerCut, assert_as_if_uninterrupted, cut_power, fit, interrupt, scalars
from torch import nn
from torch.utils.checkpoint import checkpoint as recompute

from torchdl import ArrayDataset, BatchLoader, InputError, Supervised, Trainer
from torchdl.fast import products
from torchdl.fast.products import NEVER, Region, choose, is_available, is_faster, linear
from torchdl.files import CHECKPOINT
from torchdl.training import checkpoint

pytestmark = pytest.mark.usefixtures("quick", "event_files_in_order")
with_onednn = pytest.mark.skipif(not is_available(), reason="this PyTorch computes no products by oneDNN")


@pytest.fixture
def calls(monkeypatch) -> list[tuple[int, ...]]:
    """Return the shapes of the results that oneDNN computes from now on."""
    shapes, compute = [], products._onednn

    def recorded(*arguments):
        result = compute(*arguments)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(products, "_onednn", recorded)
    return shapes


SHAPES = {
    "matrix": lambda x: x,
    "sequences": lambda x: x.view(3, 4, 8),
    "transposed": lambda x: x.view(8, 12).T,
    "transposed sequences": lambda x: x.view(4, 3, 8).transpose(0, 1),
    "part": lambda x: torch.cat([x, x], 1)[:, 4:12],
    "expanded": lambda x: x[:1].expand(12, 8),
    "four axes": lambda x: x.view(1, 2, 6, 8),
    "thin": lambda x: x.view(24, 4),
    "thin sequences": lambda x: x.view(4, 6, 4),
}


@with_onednn
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_gradients_and_second_derivatives_are_pytorchs(shape, biased, calls):
    found, turn = [], SHAPES[shape]
    outputs, inputs = 64 if "thin" in shape else 5, turn(gaussian(12, 8)).shape[-1]
    for product in (linear, F.linear):
        x, weight, bias = gaussian(12, 8), gaussian(outputs, inputs, seed=1), gaussian(outputs, seed=2)
        leaves = [t.requires_grad_() for t in ((x, weight, bias) if biased else (x, weight))]
        with Region(least=0):
            y, again, summed = (product(turn(x), weight, bias if biased else None) for _ in range(3))
        once = torch.autograd.grad(again.sin().sum(), leaves)
        expanded = torch.autograd.grad(summed.sum(), leaves)
        first = torch.autograd.grad(y.sin().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), leaves)
        found.append([y, *once, *expanded, *first, *second])
    assert len(calls) == 3 + 3 * 2  # three passes forwards, and three backwards that are not differentiated
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)


@with_onednn
def test_only_the_wanted_gradients_are_computed(calls):
    x, layer = gaussian(12, 8).requires_grad_(), nn.Linear(8, 5)
    weight, bias = layer.weight, layer.bias
    for inputs, expected in (([weight], [(5, 8)]), ([x], [(12, 8)]), ([bias], []), (None, [(12, 8), (5, 8)])):
        with Region(layer, 0):
            y = layer(x)
        calls.clear()
        y.square().sum().backward(inputs=inputs)
        assert calls == expected
    with torch.no_grad(), Region(layer, 0):
        assert not layer(x).requires_grad


def narrow(x, layer):
    return layer(x[:2])


def empty(x, layer):
    return layer(x[:0])


def autocast(x, layer):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x)


def mapped(x, layer):
    return torch.func.vmap(layer)(x.view(3, 4, 8)).flatten(0, 1)


def transformed(x, layer):
    return torch.func.grad(lambda given: layer(given).square().sum())(x)


def forward_mode(x, layer):
    return torch.func.jvp(layer, (x,), (x,))[1]


def dual(x, layer):
    with torch.autograd.forward_ad.dual_level():
        return layer(torch.autograd.forward_ad.make_dual(x, x)).detach()


def traced(x, layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # use torch.export
        return torch.jit.trace(layer, x, check_trace=False)(x)


def switched_off(x, layer):
    torch.backends.mkldnn.enabled = False
    try:
        return layer(x)
    finally:
        torch.backends.mkldnn.enabled = True


def double(x, layer):
    return layer.double()(x.double())


def meta(x, layer):
    return torch.zeros(layer.to("meta")(x.to("meta")).shape)


def nested(x, layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors are a prototype
        return torch.cat(layer(torch.nested.nested_tensor([x[:5], x[5:]])).unbind())


def sparse(x, layer):
    layer.bias = None
    return layer(x.to_sparse())


class Subclass(torch.Tensor):
    pass


def subclass(x, layer):
    return layer(x.as_subclass(Subclass)).as_subclass(torch.Tensor)


def recomputed(x, layer):
    return torch.autograd.grad(recompute(layer, x.requires_grad_(), use_reentrant=False).square().sum(), x)[0]


def replaced(x, layer):
    layer.forward = lambda x: F.linear(x, layer.weight, layer.bias)
    with Region(layer, 0):
        return layer(x)


OTHERS = [
    *(narrow, empty, autocast, mapped, transformed, forward_mode, dual, traced, switched_off, double, meta, nested),
    *(sparse, subclass, recomputed, replaced),
]


@pytest.mark.parametrize("use", OTHERS, ids=lambda use: use.__name__)
def test_other_products_are_pytorchs(use, calls):
    layer = nn.Linear(8, 5)
    expected = use(gaussian(12, 8), copy.deepcopy(layer))
    with Region(layer, 0):
        found = use(gaussian(12, 8), layer)
    assert not calls
    torch.testing.assert_close(found, expected)


def test_errors_are_pytorchs():
    with Region(least=0), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(gaussian(12, 8), gaussian(5, 7))
    with Region(least=0), pytest.raises(TypeError, match="must be Tensor"):
        linear([1.0] * 8, gaussian(5, 8))


@with_onednn
def test_compiled_and_exported_layers_are_pytorchs(calls):
    layer, x = nn.Linear(8, 5), gaussian(12, 8)
    expected = layer(x)
    with Region(layer, 0):
        compiled = torch.compile(layer, backend="eager", fullgraph=True)(x)
        exported = torch.export.export(layer, (x,)).module()(x)
    assert not calls
    assert torch.equal(compiled, expected)
    assert torch.equal(exported, expected)


class Louder(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@with_onednn
@with_onednn
def test_no_more_is_kept_for_the_gradients_than_pytorch_keeps(calls):
    data, weight = gaussian(12, 8), nn.Parameter(gaussian(5, 8))
    with Region(least=0):
        y = linear(data, weight)
    with torch.no_grad():
        weight.add_(1)  # as an optimizer does: the gradient by the weight does not depend on it
    y.sum().backward()
    torch.testing.assert_close(weight.grad, data.sum(0).expand(5, 8))
    hidden, frozen = gaussian(12, 8).requires_grad_(), gaussian(5, 8)
    x = hidden * 1
    with Region(least=0):
        y = linear(x, frozen)
    x.data.zero_()
    with torch.no_grad():
        x.add_(1)
    y.sum().backward()
    torch.testing.assert_close(hidden.grad, frozen.sum(0).expand(12, 8))


@with_onednn
def test_many_gradients_are_computed_at_once(calls):
    x, weight = gaussian(6, 8).requires_grad_(), nn.Parameter(gaussian(5, 8))
    with Region(least=0):
        y = linear(x, weight).sum(0)
    (rows,) = torch.autograd.grad(y, x, torch.eye(5), is_grads_batched=True)
    torch.testing.assert_close(rows, weight.detach()[:, None].expand(5, 6, 8))


def test_a_region_can_be_opened_again_inside(calls):
    layer, x = nn.Linear(8, 5), gaussian(12, 8)
    region = Region(layer, least=0)
    with region:
        with region:
            layer(x)
        layer(x)
    assert "forward" not in vars(layer)
    assert len(calls) == 2 * is_available()


def test_a_region_leaves_layers_as_they_were(calls):
    seen, model = [], nn.Sequential(nn.Linear(8, 5), nn.ReLU(), Louder(5, 5))
    before, names, x = dict(vars(model[0])), list(model.state_dict()), gaussian(12, 8)
    region, expected = Region(model, 0), model(x)
    with region, region:
        copied = copy.deepcopy(model)
        torch.save(model, io.BytesIO())
        assert list(model.state_dict()) == names
    assert vars(model[0]) == before
    model[0].register_forward_hook(lambda layer, inputs, output: seen.append(output) or 1 / 0)
    with pytest.raises(ZeroDivisionError), region:
        model(x)
    assert calls == [tuple(seen[0].shape)] == [(12, 5)]
    assert "forward" not in vars(model[0])
    assert torch.equal(copied(x), expected)  # outside a region, a copy made inside one computes as PyTorch does
    assert len(calls) == 1


# the choice


@pytest.mark.parametrize(("ratio", "faster"), [(0.7, False), (1.0, False), (1.2, False), (1.4, True), (2.0, True)])
def test_onednn_is_chosen_where_it_is_faster_whatever_else_runs(ratio, faster):
    turns = iter(range(1000))  # every turn but one is slowed down by other programs

    def seconds(least):
        noise = 10 * (next(turns) // 2 % products.TURNS != 3)
        return noise + 1 / (ratio if least == 0 else 1)

    assert is_faster(seconds) is faster


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Count measurements, which find oneDNN faster, with an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(products, "is_faster", lambda: times.append(0) or True)
    products._kept.cache_clear()
    times: list[int] = []
    yield times
    products._kept.cache_clear()


@with_onednn
def test_what_was_measured_is_kept_for_this_machine(measured, monkeypatch):
    for _ in range(2):
        products._kept.cache_clear()  # as in another process
        assert choose() == products.PER_THREAD * torch.get_num_threads()
    assert len(measured) == 1
    monkeypatch.setattr(products, "_cpu", lambda: "another")
    assert choose() == products.PER_THREAD * torch.get_num_threads()
    assert len(measured) == 2
    monkeypatch.setattr(products, "is_faster", lambda: False)
    monkeypatch.setattr(products, "_cpu", lambda: "a third")
    for _ in range(2):
        products._kept.cache_clear()
        assert choose() == NEVER
    monkeypatch.setattr(products, "_cpu", lambda: "another")
    assert choose() == products.PER_THREAD * torch.get_num_threads()


@with_onednn
@pytest.mark.parametrize("damage", ["text", "kind", "folder", "unwritable"])
def test_a_cache_that_cannot_be_used_is_no_error(damage, measured, tmp_path):
    folder = tmp_path / "torchdl"
    if damage == "unwritable":
        folder.write_text("a file")
    elif damage == "folder":
        (folder / products.CACHE).mkdir(parents=True)
    else:
        folder.mkdir()
        (folder / products.CACHE).write_text({"text": "{", "kind": '{"a": "b"}'}[damage])
    assert choose() == products.PER_THREAD * torch.get_num_threads()


def test_the_choice_can_be_made_by_hand(monkeypatch):
    assert choose("mkl") == NEVER
    monkeypatch.setattr(products, "is_available", lambda: False)
    assert choose("auto") == NEVER
    with pytest.raises(InputError, match="choose products auto or mkl"):
        choose("onednn")


# the trainer


def training(**options) -> tuple[Trainer, Supervised, BatchLoader]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    data = ArrayDataset(gaussian(24, 8), gaussian(24, 8, seed=1))
    return Trainer(epochs=2, device="cpu", **options), Supervised(model, F.mse_loss), BatchLoader(data, 8, shuffle=True)


@with_onednn
@pytest.mark.parametrize(
    ("options", "used"), [({"products": "onednn"}, True), ({"products": "mkl"}, False), ({"precision": "bf16"}, False)]
)
def test_the_trainer_computes_by_the_chosen_library(options, used, calls):
    trainer, task, data = training(**options)
    trainer.fit(task, data, data)
    assert bool(calls) is used
    assert all("forward" not in vars(module) for module in task.modules())


def test_the_trainer_refuses_an_unknown_library():
    with pytest.raises(InputError, match="products must be auto, mkl, onednn, not 'blas'"):
        Trainer(products="blas")


@with_onednn
@pytest.mark.parametrize("kind", ["classifier", "deep", "infonce"])
def test_a_resumed_run_is_as_if_uninterrupted_even_if_the_choice_would_be_another(kind, tmp_path, monkeypatch, calls):
    def choosing(least):
        monkeypatch.setattr("torchdl.training.trainer.choose", lambda products: least)

    choosing(0)
    task = TASKS[kind]()
    history = fit(task, tmp_path / "whole")
    saved = checkpoint.read(tmp_path / "whole" / CHECKPOINT)
    with pytest.raises(PowerCut):
        fit(interrupt(TASKS[kind](), 16, cut_power), tmp_path / "cut")
    choosing(NEVER)
    calls.clear()
    resumed = TASKS[kind]()
    rows = fit(resumed, tmp_path / "cut", resume=True)
    assert calls
    expected = task.state_dict(), history, saved, scalars(tmp_path / "whole")
    assert_as_if_uninterrupted(expected, resumed, rows, tmp_path / "cut")
