"""The memory layout that convolutions get: channels last, on a GPU in every network of the library."""

from __future__ import annotations

import pytest
import torch
from helpers import fill_, gaussian
from torch import nn

import torchdl

IMAGES = gaussian(3, 3, 32, 32).abs().clamp(max=1)
NETWORKS = {
    "lenet": (lambda: torchdl.LenetLike((3, 32, 32), 4, width=4, hidden=8), IMAGES),
    "cnn": (lambda: torchdl.StridedCNN((3, 32, 32), 4, hidden=8), IMAGES),
    "vgg": (lambda: torchdl.VGGLike((3, 32, 32), 4, width=4, hidden=8), IMAGES),
    "airbench": (lambda: torchdl.AirbenchLike((3, 32, 32), 4, widths=(4, 8, 8)), IMAGES),
    "generator": (lambda: torchdl.ConvGenerator(8, (3, 32, 32), width=4), IMAGES[:, 0, 0, :8]),
    "discriminator": (lambda: torchdl.ConvDiscriminator((3, 32, 32), width=4), IMAGES),
    "autoencoder": (lambda: torchdl.Autoencoder((3, 32, 32), width=4, code_size=8), IMAGES),
    "encoder": (lambda: torchdl.ImageEncoder(32, code_size=8, filters=4, hidden=8), IMAGES),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_all_convolutions_get_channels_last_on_a_gpu_and_results_are_equal(monkeypatch, name):
    build, x = NETWORKS[name]
    network, given = fill_(build()).eval(), []
    expected = network(x)
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.register_forward_pre_hook(lambda layer, args: given.append(args[0]))
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "is_cuda", property(lambda tensor: True))
        found = network(x)
    assert len(given) >= 2
    assert all(maps.is_contiguous(memory_format=torch.channels_last) for maps in given)
    torch.testing.assert_close(found, expected)
