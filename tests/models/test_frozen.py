from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import gaussian
from torch import nn
from torch.utils.data import TensorDataset

import torchdl
from torchdl import BatchLoader, InputError, Supervised, Trainer
from torchdl.models import FrozenFeatures, ImageEncoder


def backbone() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5))


def test_the_backbone_stays_in_evaluation_whatever_train_says():
    frozen = FrozenFeatures(backbone())
    whole = nn.Sequential(frozen, nn.Dropout())
    for mode in (True, False, True):
        assert frozen.train(mode) is frozen
        whole.train(mode)
        assert frozen.training == mode
        assert whole[1].training == mode
        assert not any(module.training for module in frozen.backbone.modules())
    x = gaussian(8, 4)
    assert torch.equal(frozen(x), frozen(x))
    assert torch.equal(frozen(x), frozen.backbone(x))


def test_no_gradients_reach_it():
    frozen = FrozenFeatures(backbone())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    x = gaussian(8, 4).requires_grad_()
    assert not frozen(x).requires_grad
    head = nn.Linear(6, 2)
    head(frozen(x)).sum().backward()
    assert x.grad is None
    assert head.weight.grad is not None


@pytest.mark.parametrize("freeze", [True, False])
def test_training_a_head_moves_a_free_backbone_and_not_a_frozen_one(freeze):
    torch.manual_seed(0)
    free = backbone()
    frozen = FrozenFeatures(free)
    before = frozen.fingerprint()
    if not freeze:
        free.requires_grad_(True)
    head = nn.Linear(6, 3)
    weight = head.weight.detach().clone()
    model = nn.Sequential(frozen if freeze else free, head)
    data = TensorDataset(3 + gaussian(60, 4), torch.arange(60) % 3)
    Trainer(epochs=1, device="cpu").fit(Supervised(model, F.cross_entropy), BatchLoader(data, 20))
    assert (frozen.fingerprint() == before) == freeze
    assert not torch.equal(head.weight, weight)


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "1.num_batches_tracked"])
def test_the_fingerprint_sees_the_least_change_of_any_tensor(name):
    frozen = FrozenFeatures(backbone())
    before = frozen.fingerprint()
    assert len(bytes.fromhex(before)) == 32
    assert copy.deepcopy(frozen).fingerprint() == before
    tensor = frozen.backbone.state_dict()[name]
    changed = tensor.view(-1)[:1]
    changed += 1 if tensor.dtype == torch.int64 else torch.nextafter(changed, torch.tensor(9.0)) - changed
    assert frozen.fingerprint() != before


def test_it_is_saved_and_loaded_and_still_frozen(tmp_path):
    frozen = FrozenFeatures(ImageEncoder(16, 1, 5))
    torchdl.save(frozen, tmp_path)
    loaded = torchdl.load(tmp_path)
    assert isinstance(loaded, FrozenFeatures)
    assert loaded.fingerprint() == frozen.fingerprint()
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.train().backbone.training


def test_a_backbone_must_be_a_module():
    with pytest.raises(InputError, match=r"FrozenFeatures.*backbone"):
        FrozenFeatures("resnet")
