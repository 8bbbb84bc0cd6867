from __future__ import annotations

import math

import pytest
import torch
from helpers import gaussian
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

import torchdl
from torchdl import BionodalRootUnit, InputError
from torchdl.metrics import silent_units
from torchdl.models import ACTIVATIONS, Sine

RS = [1, 1.5, 2, 3.0, 10, 100, 1000.0]


def bru(z: float, r: float) -> float:
    return (r**2 * z + 1) ** (1 / r) - 1 / r if z >= 0 else math.exp(r * z) - 1 / r


def slope(z: float, r: float) -> float:
    return r * (r**2 * z + 1) ** (1 / r - 1) if z >= 0 else r * math.exp(r * z)


def with_gradient(module: nn.Module, z: Tensor) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    value = module(z)
    return value.detach(), torch.autograd.grad(value.sum(), z)[0]


REFERENCES = {
    "sigmoid": lambda z: 1 / (1 + math.exp(-z)),
    "tanh": math.tanh,
    "relu": lambda z: max(z, 0),
    "leaky_relu": lambda z: max(z, 0.1 * z),
    "elu": lambda z: z if z > 0 else math.exp(z) - 1,
    "softplus": lambda z: math.log1p(math.exp(z)),
    "bru": lambda z: bru(z, 2),
    "gelu": lambda z: z * (1 + math.erf(z / 2**0.5)) / 2,
    "silu": lambda z: z / (1 + math.exp(-z)),
    "sine": math.sin,
}


def test_every_name_has_a_reference_here():
    assert REFERENCES.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_the_function_of_its_name(name):
    module = ACTIVATIONS[name]()
    assert isinstance(module, nn.Module)
    assert module is not ACTIVATIONS[name]()
    z = torch.linspace(-6, 6, 49, dtype=torch.float64)
    before = z.clone()
    expected = torch.tensor([REFERENCES[name](x) for x in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(module(z), expected, rtol=1e-10, atol=1e-12)
    assert torch.equal(z, before)


@pytest.mark.parametrize("r", RS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
def test_the_bionodal_root_unit_and_its_derivative_are_their_closed_forms(r, dtype, tolerance):
    points = [-300.0, -7.5, -1.0, -0.25, -1e-3, 0.0, 1e-3, 0.5, 1.0, 3.25, 40.0, 1e4]
    value, gradient = with_gradient(BionodalRootUnit(r), torch.tensor(points, dtype=dtype))
    assert value.dtype == dtype
    z = torch.tensor(points, dtype=dtype).tolist()  # as they are after rounding
    expected = torch.tensor([[bru(x, r), slope(x, r)] for x in z], dtype=torch.float64)
    torch.testing.assert_close(value.double(), expected[:, 0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradient.double(), expected[:, 1], rtol=tolerance, atol=tolerance)


def test_by_default_it_grows_like_a_square_root():
    assert BionodalRootUnit().r == 2
    value = BionodalRootUnit()(torch.tensor([0.0, 2.0, 6.0, 20.0, 1e8], dtype=torch.float64))
    expected = torch.tensor([0.5, 2.5, 4.5, 8.5, (4e8 + 1) ** 0.5 - 0.5], dtype=torch.float64)
    torch.testing.assert_close(value, expected)


def test_with_r_of_one_it_is_elu():
    z = torch.cat([4 * gaussian(200, dtype=torch.float64), torch.tensor([0.0, -0.0, -50.0, 1e6], dtype=torch.float64)])
    value, gradient = with_gradient(BionodalRootUnit(1), z)
    expected, expected_gradient = with_gradient(nn.ELU(), z)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("r", RS)
def test_value_and_derivative_are_continuous_at_zero(r):
    tiny = 1e-12
    z = torch.tensor([-tiny, -0.0, 0.0, tiny], dtype=torch.float64)
    value, gradient = with_gradient(BionodalRootUnit(r), z)
    torch.testing.assert_close(value, torch.full_like(z, 1 - 1 / r), rtol=0, atol=2 * r * tiny)
    torch.testing.assert_close(gradient, torch.full_like(z, r), rtol=0, atol=2 * r**3 * tiny)
    assert gradient[2].item() == pytest.approx(r, rel=1e-15)


@pytest.mark.parametrize("r", [1, 1.5, 2, 3, 10])
def test_autograd_agrees_with_finite_differences_at_zero_and_away_from_it(r):
    unit = BionodalRootUnit(r)
    away = torch.tensor([[-2.0, -0.5, -0.1], [0.1, 0.7, 12.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, away)
    assert torch.autograd.gradgradcheck(unit, away)
    at_zero = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    # one-sided second derivatives of the order of r^3 differ there
    assert torch.autograd.gradcheck(unit, at_zero, eps=1e-7, atol=1e-3)


@pytest.mark.parametrize("r", [*RS, 1e4])
@pytest.mark.parametrize("size", [1e9, 1e30])
def test_enormous_inputs_have_finite_values_and_gradients(r, size):
    z = torch.tensor([-size, size])
    value, gradient = with_gradient(BionodalRootUnit(r), z)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    expected = torch.tensor([bru(-size, r), bru(size, r)])
    torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)
    assert value[0].item() == pytest.approx(-1 / r)
    assert gradient[0] == 0
    torch.testing.assert_close(gradient[1], torch.tensor(slope(size, r)), rtol=1e-2, atol=1e-30)


def test_one_enormous_input_does_not_spoil_the_gradient_of_what_is_shared():
    weight = torch.tensor(1.0, requires_grad=True)
    inputs = torch.tensor([-1e30, -1e9, -200.0, 0.0, 3.0, 1e9])
    BionodalRootUnit(3)(weight * inputs).sum().backward()
    expected = sum(x * slope(x, 3) for x in inputs.tolist())
    assert weight.grad.item() == pytest.approx(expected, rel=1e-4)


def test_not_a_number_stays_not_a_number():
    assert BionodalRootUnit()(torch.tensor([math.nan, 1.0])).isnan().tolist() == [True, False]


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(1, 50))
@settings(max_examples=100, deadline=None)
def test_it_never_falls_and_never_leaves_its_bound(a, b, r):
    low, high = BionodalRootUnit(r)(torch.tensor(sorted([a, b]), dtype=torch.float64)).tolist()
    assert -1 / r <= low <= high + 1e-9 * abs(high)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4, 5)])
def test_the_shape_is_kept(shape):
    z = gaussian(*shape) if shape else torch.tensor(0.5)
    assert BionodalRootUnit()(z).shape == shape


@pytest.mark.parametrize("r", [0.99, 0, -2, math.nan])
def test_an_r_below_one_is_refused(r):
    with pytest.raises(InputError, match=f"r .*1.*{r}"):
        BionodalRootUnit(r)


@pytest.mark.slow
def test_an_mlp_of_bionodal_root_units_learns(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchdl.MLP(2, 1, hidden=(16,), dropout=0, activation="bru")
    x = gaussian(64, 2)
    target = x.prod(1, keepdim=True)
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(150):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1 * target.var()
    torchdl.save(model, tmp_path)
    assert torch.equal(torchdl.load(tmp_path)(x), model(x))


# sines


def test_the_derivative_of_a_sine_is_the_cosine_and_its_period_a_turn():
    z = 5 * gaussian(50, dtype=torch.float64)
    value, gradient = with_gradient(Sine(), z)
    torch.testing.assert_close(gradient, z.cos())
    torch.testing.assert_close(Sine()(z + 2 * math.pi), value)
    assert torch.autograd.gradcheck(Sine(), z.requires_grad_())
    assert torch.autograd.gradgradcheck(Sine(), z)


def test_a_network_of_sines_is_saved_and_loaded(tmp_path):
    model = torchdl.MLP(2, 1, hidden=(5,), dropout=0, activation="sine")
    torchdl.save(model, tmp_path)
    x = gaussian(7, 2)
    assert torch.equal(torchdl.load(tmp_path)(x), model(x))


# silent units


def rows(weight: list[list[float]], bias: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(bias))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return layer


INPUTS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])


def test_a_unit_is_silent_if_no_input_at_all_makes_it_positive():
    # always, by the second input alone, never, exactly zero at the most
    first = rows([[1, 1], [-9, 1], [-1, -1], [0, -1]], [0.5, 0, 0, 0])
    assert silent_units(nn.Sequential(first, nn.ReLU()), INPUTS, (nn.ReLU,)) == 0.5
    assert silent_units(nn.Sequential(first, nn.ReLU()), INPUTS[:1], (nn.ReLU,)) == 0.75


def test_all_layers_units_count_the_same():
    first = rows([[1, 1], [-1, -1], [-1, -1], [-1, -1]], [0, 0, 0, 0])
    model = nn.Sequential(first, nn.ReLU(), rows([[1, 0, 0, 0], [1, 0, 0, 0]], [0, 0]), nn.ReLU())
    assert silent_units(model, INPUTS, (nn.ReLU,)) == pytest.approx(3 / 6)


def test_only_the_activations_asked_for_are_looked_at():
    silent, heard = rows([[-1, -1], [-1, -1]], [0, 0]), rows([[0, 0]], [1])
    model = nn.Sequential(silent, nn.LeakyReLU(), heard, nn.ReLU())
    assert silent_units(model, INPUTS, (nn.ReLU,)) == 0
    assert silent_units(model, INPUTS, (nn.LeakyReLU,)) == 1
    assert silent_units(model, INPUTS, (nn.ReLU, nn.LeakyReLU)) == pytest.approx(2 / 3)
    with pytest.raises(InputError, match="Tanh"):
        silent_units(model, INPUTS, (nn.Tanh,))


def test_activations_that_work_in_place_are_judged_by_what_they_were_given():
    model = nn.Sequential(rows([[1, 1], [-1, -1]], [0, 0]), nn.ELU(inplace=True), nn.ReLU(inplace=True))
    assert silent_units(model, INPUTS, (nn.ELU, nn.ReLU)) == 0.5


def test_every_place_of_a_map_is_a_unit():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        model[0].bias.zero_()
    images = torch.zeros(2, 1, 2, 2)
    images[0, 0, 0, 0] = images[1, 0, 1, 1] = 1  # 2 of the first map's 4 places are heard, none of the second's
    assert silent_units(model, images, (nn.ReLU,)) == pytest.approx(6 / 8)


def test_an_activation_that_is_used_twice_counts_with_both_layers():
    relu = nn.ReLU()
    model = nn.Sequential(rows([[-1, -1]] * 3, [0, 0, 0]), relu, rows([[0, 0, 0]], [1]), relu)
    assert silent_units(model, INPUTS, (nn.ReLU,)) == pytest.approx(3 / 4)


def test_silent_relus_are_those_that_learn_nothing():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = torchdl.MLP(4, 3, hidden=(40,), dropout=0)
    with torch.no_grad():
        model.layers[0].bias.copy_(2 * gaussian(40) - 1)
    x = gaussian(20, 4)
    model(x).square().sum().backward()
    dead = (model.layers[0].weight.grad == 0).all(1).float().mean().item()
    assert 0.1 < dead < 0.9
    assert silent_units(model, x, (nn.ReLU,)) == pytest.approx(dead)


def test_the_network_is_left_as_it_was():
    model = torchdl.MLP(2, 3, hidden=(4,))
    model.layers[0].register_forward_pre_hook(lambda module, inputs: None)
    hooks = [len(m._forward_pre_hooks) for m in model.modules()]
    silent_units(model, INPUTS, (nn.ReLU,))
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    with pytest.raises(InputError):
        silent_units(model, torch.zeros(3, 5), (nn.ReLU,))
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
