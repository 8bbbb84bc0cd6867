from __future__ import annotations

import pytest
import torch

import torchdl
from torchdl import InputError
from torchdl.latent import linear_interpolation, spherical_interpolation
from torchdl.predict import ImageGenerator


def generator() -> ImageGenerator:
    torch.manual_seed(0)
    return ImageGenerator.of(torchdl.conv_gan((1, 8, 8), z_dim=4, width=2), "cpu")


def shown(images: torch.Tensor) -> torch.Tensor:
    return ((images + 1) / 2 * 255).round().to(torch.uint8)


def test_images_are_those_that_the_model_generates(tmp_path):
    own = generator()
    own.save(tmp_path)
    loaded = torchdl.load_predictor(tmp_path, "cpu")
    images = loaded.predict(5, seed=3)
    assert torch.equal(images, shown(own.model.generate_samples(5, 3)))
    assert (images.shape, images.dtype) == ((5, 1, 8, 8), torch.uint8)
    assert not torch.equal(images, loaded.predict(5, seed=4))
    assert torch.equal(loaded.predict(), own.predict(64, 0))
    in_parts = torchdl.load_predictor(tmp_path, "cpu", batch_size=2).predict(5, seed=3)
    assert (in_parts.int() - images.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("path", "interpolation"), [("linear", linear_interpolation), ("spherical", spherical_interpolation)]
)
def test_rows_lead_from_one_image_to_another(path, interpolation):
    own = generator()
    images = own.interpolate(11, 2, path)
    ends = own.model.noise(4, 2)
    with torch.no_grad():
        expected = own.model.eval()(interpolation(ends[::2], ends[1::2], 8)[:11])
    assert torch.equal(images, shown(expected))


def test_a_model_that_generates_nothing_and_wrong_numbers_are_refused():
    own = generator()
    for call in (lambda: own.predict(0), lambda: own.interpolate(0)):
        with pytest.raises(InputError, match="1 or more, not 0"):
            call()
    with pytest.raises(InputError, match="spherical"):
        own.interpolate(path="crooked")
    for model, settings, said in (
        (torchdl.Generator(), (1, 28, 28), "Generator"),
        (own.model, (1, 8, 9), "another shape"),
        (own.model, (1, 8, 8, 0.5), "black"),
    ):
        with pytest.raises(InputError, match=said):
            ImageGenerator(model, ImageGenerator.Settings(*settings))
