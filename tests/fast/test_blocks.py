"""oneDNN's blocks: the same numbers as without them, and no blocks where other code would meet them."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from torch import nn

from torchdl import ArrayDataset, BatchLoader, LenetLike, Supervised, Trainer
from torchdl.fast.blocks import suits_blocks
from torchdl.fast.products import Region
from torchdl.tasks import Update

pytestmark = pytest.mark.usefixtures("quick")
HAS_BLOCKS = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")
with_blocks = pytest.mark.skipif(not HAS_BLOCKS, reason="blocks are for CPUs with AVX and PyTorch with oneDNN")


def network(in_shape=(3, 12, 17), **options) -> LenetLike:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LenetLike(in_shape, 5, **{"width": 4, "hidden": 24, **options})


def trained(model: nn.Module, images: torch.Tensor, region) -> list[torch.Tensor]:
    """Return the logits, and every parameter's gradient."""
    model.zero_grad()
    with region:
        logits = model(images)
    F.cross_entropy(logits, torch.arange(len(images)) % 5).backward()
    assert not logits.is_mkldnn
    return [logits.detach(), *(p.grad.clone() for p in model.parameters())]


@with_blocks
@pytest.mark.parametrize(
    ("in_shape", "options"),
    [
        ((3, 12, 17), {}),
        ((1, 28, 28), {}),
        ((3, 32, 32), {"width": 32}),
        ((2, 13, 29), {"depth": 3}),
        ((5, 7, 9), {"width": 1, "depth": 1}),
        ((3, 4, 4), {"depth": 0}),
    ],
)
def test_logits_and_gradients_are_the_same_in_blocks(in_shape, options):
    model, images = network(in_shape, **options), gaussian(7, *in_shape)
    assert not suits_blocks(images, model)
    with Region():
        assert suits_blocks(images, model)
    for inside, outside in zip(trained(model, images, Region()), trained(model, images, nullcontext()), strict=True):
        assert outside.abs().max() > 0
        torch.testing.assert_close(inside, outside, rtol=1e-4, atol=1e-5)


@with_blocks
def test_evaluation_in_blocks_gives_the_same_logits():
    model, images = network().eval(), gaussian(7, 3, 12, 17)
    with torch.no_grad(), Region():
        inside = model(images)
    torch.testing.assert_close(inside, model(images), rtol=1e-4, atol=1e-5)


@with_blocks
def test_a_region_ends_with_the_one_around_it_or_with_an_error():
    model, images = network(), gaussian(2, 3, 12, 17)
    with Region():
        with pytest.raises(ZeroDivisionError), Region():
            raise ZeroDivisionError
        assert suits_blocks(images, model)
    assert not suits_blocks(images, model)


def hooked(register: str) -> LenetLike:
    model = network()
    getattr(model.features[0], register)(lambda *_: None)
    return model


@pytest.mark.parametrize(
    ("model", "images", "region"),
    [
        (network(), gaussian(2, 3, 12, 17).double(), nullcontext()),
        (network(), gaussian(2, 3, 12, 17).requires_grad_(), nullcontext()),
        (network(), gaussian(2, 3, 12, 17).to("meta"), nullcontext()),
        (network(), gaussian(2, 3, 12, 17), torch.autocast("cpu", torch.bfloat16)),
        (hooked("register_forward_hook"), gaussian(2, 3, 12, 17), nullcontext()),
        (hooked("register_forward_pre_hook"), gaussian(2, 3, 12, 17), nullcontext()),
        (hooked("register_full_backward_hook"), gaussian(2, 3, 12, 17), nullcontext()),
        (hooked("register_full_backward_pre_hook"), gaussian(2, 3, 12, 17), nullcontext()),
    ],
    ids=["double", "derivative", "meta", "autocast", "hook", "pre-hook", "backward hook", "backward pre-hook"],
)
def test_blocks_are_not_used_where_they_would_be_seen(model, images, region):
    with Region(), region:
        assert not suits_blocks(images, model)


OTHERS = [
    nn.LeakyReLU(),
    nn.SiLU(),
    nn.ReLU(inplace=True),
    nn.Dropout(0.5),
    nn.Dropout2d(0.5),
    nn.BatchNorm2d(4),
    nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    nn.MaxPool2d(2, stride=1, dilation=2, padding=1),
    nn.LPPool2d(2, 1),
]


@pytest.mark.parametrize("layer", OTHERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("where", ["in place of one", "nested", "head"])
def test_other_layers_get_ordinary_tensors(layer, where):
    model, images = network((3, 8, 8)), gaussian(7, 3, 8, 8)
    if where == "head":
        layer = nn.Sequential(nn.Unflatten(1, (4, 2, 3)), layer, nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten())
        model.classifier[3] = layer
    else:
        size = nn.AdaptiveAvgPool2d(4)
        model.features[2] = nn.Sequential(layer, size) if where == "nested" else layer
        model.features.append(size)
        model.features[3] = nn.Conv2d(4, 8, 3, padding=1)
    model.classifier[2] = nn.Linear(8 * 4, 24) if where == "head" else nn.LazyLinear(24)
    model(images)
    torch.manual_seed(1)
    inside = trained(model, images, Region())
    torch.manual_seed(1)
    for one, other in zip(inside, trained(model, images, nullcontext()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_layer_whose_forward_is_replaced_gets_ordinary_tensors():
    model, seen = network(), []
    relu = model.features[2]
    relu.forward = lambda x: seen.append(x.std()) or x.relu()
    with Region():
        model(gaussian(7, 3, 12, 17))
    assert len(seen) == 1


def test_a_global_hook_sees_ordinary_tensors():
    seen = []
    hook = nn.modules.module.register_module_forward_hook(lambda _module, _inputs, output: seen.append(output.std()))
    try:
        with Region():
            network()(gaussian(7, 3, 12, 17))
    finally:
        hook.remove()
    assert len(seen) > 5


@with_blocks
def test_blocks_can_be_forbidden(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with Region():
        assert not suits_blocks(gaussian(2, 3, 12, 17), network())


class Recorder(Supervised):
    """Record for every batch whether blocks suit it."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.in_training: list[bool] = []
        self.in_evaluation: list[bool] = []

    def losses(self, batch):
        self.in_training.append(suits_blocks(batch[0], self.model))
        yield from super().losses(batch)

    def evaluate(self, batch):
        self.in_evaluation.append(suits_blocks(batch[0], self.model))
        return super().evaluate(batch)


def batches() -> BatchLoader:
    return BatchLoader(ArrayDataset(gaussian(8, 3, 12, 17), torch.arange(8) % 5), 4)


@with_blocks
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trainer_has_networks_compute_in_blocks_in_fp32(precision):
    task = Recorder(network(), F.cross_entropy)
    Trainer(epochs=1, device="cpu", precision=precision).fit(task, batches(), batches())
    assert set(task.in_training) == set(task.in_evaluation) == {precision == "fp32"}


def test_a_hook_sees_ordinary_tensors_in_the_trainer():
    model, means = network(), []
    model.features.register_forward_hook(lambda _module, _inputs, output: means.append(output.detach().std().item()))
    Trainer(epochs=1, device="cpu").fit(Supervised(model, F.cross_entropy), batches())
    assert len(means) == 2


class Smooth(Supervised):
    """Penalise the loss's gradient with respect to the images, which takes second derivatives."""

    def losses(self, batch):
        images, target = batch
        images = images.clone().requires_grad_()
        loss = self.loss(self.model(images), target)
        (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
        yield Update("model", loss + gradient.square().sum())


def test_a_task_may_take_second_derivatives_in_the_trainer():
    row = Trainer(epochs=1, device="cpu").fit(Smooth(network(), F.cross_entropy), batches())[-1]
    assert row["train/grad_norm"] > 0
