from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from torch import nn

from torchdl import MLP, GANTask, InputError, Supervised, Trainer, simple_gan
from torchdl.data import ArrayDataset, BatchLoader
from torchdl.tasks import OPTIMIZERS, make_optimizer
from torchdl.training import optimizer_state
from torchdl.training.optimizer_state import check_moments

SHAPES = [(3, 2), (2,)]
LR = 0.05


def by_hand(name: str, steps: int, decay: float) -> list[np.ndarray]:
    """Apply a rule's formula in float64 to the parameters and gradients of :func:`by_torch`."""
    weights = [gaussian(*shape, seed=i).double().numpy() for i, shape in enumerate(SHAPES)]
    first, second = ([np.zeros(shape) for shape in SHAPES] for _ in range(2))
    for step in range(1, steps + 1):
        for i, w in enumerate(weights):
            g = gaussian(*SHAPES[i], seed=100 * step + i).double().numpy()
            kernel_decay = decay if w.ndim > 1 else 0.0
            if name == "adamw":
                w -= LR * kernel_decay * w
            else:
                g = g + kernel_decay * w
            v, s = first[i], second[i]
            if name == "sgd":
                w -= LR * g
            elif name in ("momentum", "nesterov"):
                v[...] = 0.9 * v + g  # v = gamma v + gradient; theta -= alpha v
                w -= LR * (g + 0.9 * v if name == "nesterov" else v)
            elif name == "adagrad":
                s += g**2
                w -= LR * g / (np.sqrt(s) + 1e-10)
            elif name == "adadelta":
                s[...] = 0.9 * s + 0.1 * g**2
                change = np.sqrt(v + 1e-6) / np.sqrt(s + 1e-6) * g
                v[...] = 0.9 * v + 0.1 * change**2
                w -= LR * change
            elif name == "rmsprop":
                s[...] = 0.99 * s + 0.01 * g**2
                w -= LR * g / (np.sqrt(s) + 1e-8)
            else:
                v[...] = 0.9 * v + 0.1 * g
                s[...] = 0.999 * s + 0.001 * g**2
                w -= LR * (v / (1 - 0.9**step)) / (np.sqrt(s / (1 - 0.999**step)) + 1e-8)
    return weights


def by_torch(name: str, steps: int, decay: float) -> list[torch.Tensor]:
    parameters = [nn.Parameter(gaussian(*shape, seed=i).double()) for i, shape in enumerate(SHAPES)]
    optimizer = make_optimizer(name, parameters, LR, decay)
    for step in range(1, steps + 1):
        for i, parameter in enumerate(parameters):
            parameter.grad = gaussian(*SHAPES[i], seed=100 * step + i).double()
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_rule_is_its_formula_written_by_hand(name, decay):
    for found, wanted in zip(by_torch(name, 7, decay), by_hand(name, 7, decay), strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9, atol=1e-12)


def test_no_two_rules_are_the_same():
    found = {name: by_hand(name, 3, 0.1)[0] for name in OPTIMIZERS}
    names = list(found)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not np.allclose(found[one], found[other]), (one, other)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_wait_until_they_need_a_gradient_and_fused_kernels_are_taken_where_there_are_any(name):
    linear = nn.Linear(3, 2)
    linear.bias.requires_grad_(False)
    optimizer = make_optimizer(name, linear.parameters(), LR, weight_decay=0.1)
    assert all(bool(group.get("fused")) == OPTIMIZERS[name].fused for group in optimizer.param_groups)
    before = [p.clone() for p in linear.parameters()]
    for frozen in (True, False):
        linear.bias.requires_grad_(not frozen)
        optimizer.zero_grad()
        linear(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        moved = [not torch.equal(p, was) for p, was in zip(linear.parameters(), before, strict=True)]
        assert moved == [True, not frozen]


def test_an_unknown_rule_is_one_sentence_that_names_those_there_are():
    with pytest.raises(InputError, match=r"'sdg'.*sgd, momentum, nesterov, adagrad"):
        make_optimizer("sdg", nn.Linear(1, 1).parameters(), LR)


def regression(name: str) -> Supervised:
    torch.manual_seed(0)
    optimizer = partial(make_optimizer, name, lr=0.5 if name == "adadelta" else 0.02)
    return Supervised(MLP(3, 1, (8,), dropout=0.0), F.mse_loss, optimizer=optimizer)


def batches() -> BatchLoader:
    x = gaussian(60, 3, seed=5)
    return BatchLoader(ArrayDataset(x, x.sum(1, keepdim=True)), 10, shuffle=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_rule_learns_and_a_stopped_run_goes_on_to_the_bit(name, tmp_path, quick):
    whole, part, rest = (regression(name) for _ in range(3))
    history = Trainer(max_steps=120, device="cpu").fit(whole, batches())
    assert history[-1]["train/loss"] < 0.3 * history[0]["train/loss"]
    Trainer(max_steps=47, device="cpu").fit(part, batches(), folder=tmp_path)
    Trainer(max_steps=120, device="cpu").fit(rest, batches(), folder=tmp_path, resume=True)
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("before", "after"), [("adam", "rmsprop"), ("momentum", "nesterov"), ("sgd", "momentum")])
def test_a_resume_with_another_rule_is_refused(before, after, tmp_path, quick):
    Trainer(max_steps=3, device="cpu").fit(regression(before), batches(), folder=tmp_path)
    with pytest.raises(InputError, match=r"rule of 'model' \w+\(.*\) instead of \w+\(.*\)"):
        Trainer(max_steps=6, device="cpu").fit(regression(after), batches(), folder=tmp_path, resume=True)


@pytest.mark.parametrize("changed", [{"weight_decay": 0.1}, {"betas": (0.5, 0.999)}])
def test_a_resume_with_another_setting_of_the_rule_is_refused(changed, tmp_path, quick):
    Trainer(max_steps=3, device="cpu").fit(regression("adamw"), batches(), folder=tmp_path)
    task = regression("adamw")
    task.optimizer = partial(make_optimizer, "adamw", lr=0.02, **changed)
    (key,) = changed
    with pytest.raises(InputError, match=rf"rule of 'model' AdamW\(.*{key}.*\) instead of AdamW"):
        Trainer(max_steps=6, device="cpu").fit(task, batches(), folder=tmp_path, resume=True)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "momentum"])
def test_a_gans_betas_go_to_adam_and_its_kin_alone(name):
    gan = simple_gan()
    task = GANTask(gan, beta1=0.4, optimizer=name)
    for optimizer in task.configure_optimizers().values():
        assert optimizer.defaults.get("betas") == ((0.4, 0.999) if "adam" in name else None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "train_gan.py --dataset mnist_5k --feature-extractor none",
        "train_lenet.py --dataset mnist_5k --width 4",
        "train_autoencoder.py --dataset mnist_5k --width 4",
        "train_cpc.py --dataset mnist_5k --image-size 28 --no-color",
        "train_tabular.py",
        "forecast.py",
    ],
)
def test_every_script_takes_a_rule_by_name_and_writes_it_down(run, command, tmp_path):
    done = run(f"{command} --optimizer momentum --max-steps 2 --name x --out kept --threads 1", tmp_path)
    assert done.code == 0, done.err
    (record,) = tmp_path.glob("kept/*/x/config.json")
    assert '"optimizer": "momentum"' in json.dumps(json.loads(record.read_text()))


@pytest.mark.slow
def test_the_demonstration_descends_with_every_rule(run, tmp_path):
    done = run("show_optimizers.py --steps 60 --out .", tmp_path)
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "optimizers.json").read_text())["rules"]
    assert len(found) == 9
    assert all(row["loss above the least"] < 0.05 for row in found.values()), found
    assert (tmp_path / "optimizers.png").stat().st_size > 50_000


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_that_an_optimizer_keeps_is_accepted(name):
    parameter = nn.Parameter(torch.ones(3))
    optimizer = make_optimizer(name, [parameter], 0.1)
    parameter.grad = torch.ones(3)
    optimizer.step()
    check_moments(optimizer, name)
    for value in optimizer.state[parameter].values():
        if isinstance(value, torch.Tensor) and value.dim():
            value.resize_(2)
            with pytest.raises(InputError, match=name):
                check_moments(optimizer, name)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_without_a_setting_is_refused(name):
    optimizer = make_optimizer(name, [nn.Parameter(torch.ones(3))], 0.1)
    state = optimizer.state_dict()
    del state["param_groups"][0]["lr"]
    with pytest.raises(InputError, match=f"{name}.* lacks lr"):
        optimizer_state.load(optimizer, state, name)
