"""CUDA graphs, as far as a CPU can show them: with a compiler whose runs overwrite their outputs, as a graph's do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchdl
from torchdl import BatchLoader, GANTask, InputError, Trainer
from torchdl.fast import graphs
from torchdl.training import fit, step

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def asked(monkeypatch):
    """Replace the compiler by one whose functions return the same memory each time; return the modes asked for."""
    modes = []

    def compile(function, mode=None):
        modes.append(mode)
        memory = {}

        def run(x):
            memory.setdefault(x.shape, torch.empty_like(function(x))).data.copy_(function(x))
            return memory[x.shape], {"again": memory[x.shape]}

        return run

    monkeypatch.setattr(torch, "compile", compile)
    return modes


def test_on_a_gpu_results_outlive_the_next_run(asked):
    results = {device: graphs.compiled(lambda x: 2 * x, device) for device in (CPU, GPU)}
    one, two = torch.ones(3), torch.zeros(3)
    for device, expected in ((CPU, 0.0), (GPU, 2.0)):
        first, others = results[device](one)
        results[device](two)
        assert first.tolist() == others["again"].tolist() == [expected] * 3
    assert asked == [None, "reduce-overhead"]


def test_what_is_compiled_for_a_gpu_is_not_compiled_again(asked):
    once = graphs.compiled(torch.sin, GPU)
    assert graphs.compiled(once, GPU) is once
    assert asked == ["reduce-overhead"]


def test_a_result_that_cannot_be_copied_is_an_input_error(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    assert graphs.compiled(lambda: (torch.ones(2), None, 3), GPU)()[1:] == (None, 3)
    with pytest.raises(InputError, match=r"compiled for a GPU must return tensors.*Normal"):
        graphs.compiled(lambda: torch.distributions.Normal(0.0, 1.0), GPU)()


@pytest.mark.parametrize("make", [lambda: nn.Linear(2, 2), torchdl.simple_gan], ids=["Linear", "GAN"])
def test_networks_are_compiled_for_the_device_where_they_are(monkeypatch, make):
    places = []
    monkeypatch.setattr("torchdl.tasks.base.compiled", lambda function, device: places.append(device) or function)
    monkeypatch.setattr("torchdl.tasks.gan.compiled", lambda function, device: places.append(device) or function)
    model = make()
    task = GANTask(model) if isinstance(model, torchdl.GAN) else torchdl.Supervised(model, nn.MSELoss())
    task.to("meta").compile_modules()
    assert [place.type for place in places] in (["meta", "cpu"], ["meta", "meta"])  # a loss has no place of its own


def test_every_step_of_compiled_networks_is_marked_before_its_first_pass(monkeypatch):
    said = []
    monkeypatch.setattr(fit, "why_not_compile", lambda device: "")
    monkeypatch.setattr(step, "begin_step", lambda device: said.append("step"))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: said.append("mark"))
    for compile in (False, True):
        task = GANTask(torchdl.simple_gan((1, 2, 2), z_dim=3), generator_every=2)
        monkeypatch.setattr(task, "compile_modules", lambda: None)
        task.generator.register_forward_hook(lambda *_: said.append("pass"))
        loader = BatchLoader(torch.zeros(8, 1, 2, 2), 4)
        Trainer(epochs=1, device="cpu", compile=compile).fit(task, loader)
        assert said == (["step", "pass"] * 2 if compile else ["pass"] * 2)
        said.clear()
    graphs.begin_step(GPU)
    graphs.begin_step(CPU)
    assert said == ["mark"]
