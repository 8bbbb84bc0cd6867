from __future__ import annotations

import pytest
import torch

import torchdl
from torchdl import InputError
from torchdl.predict import ImageInput, ImageReconstructor

PICTURES = torch.randint(256, (7, 1, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def reconstructor(**settings) -> ImageReconstructor:
    torch.manual_seed(0)
    model = torchdl.Autoencoder((1, 12, 12), width=4, code_size=5)
    images = ImageInput(1, 12, 12, prepare="squash")
    return ImageReconstructor(model, ImageReconstructor.Settings(images), "cpu", **settings)


def test_pictures_are_encoded_and_decoded_as_by_the_model_itself(tmp_path):
    own = reconstructor(batch_size=3)
    own.save(tmp_path)
    loaded = torchdl.load_predictor(tmp_path, "cpu", batch_size=3)
    answers = loaded.predict(PICTURES)
    with torch.no_grad():
        decoded = torch.cat([own.model(part / 255) for part in PICTURES.split(3)])
        codes = torch.cat([own.model.encode(part / 255) for part in PICTURES.split(3)])
    assert torch.equal(answers.originals, PICTURES)
    assert torch.equal(answers.images, (255 * decoded).round().to(torch.uint8))
    torch.testing.assert_close(answers.errors, (decoded - PICTURES / 255).square().mean((1, 2, 3)))
    assert torch.equal(loaded.embed(PICTURES), codes)
    table = answers.to_frame()
    assert table["input"].tolist() == list("0123456")
    assert table["mean squared error"].tolist() == answers.errors.tolist()
    assert own.model.training  # as before


@pytest.mark.parametrize(
    ("model", "images", "said"),
    [
        (torchdl.Autoencoder((1, 12, 16)), ImageInput(1, 12, 12), "another shape"),
        (torchdl.LenetLike((1, 12, 12), 2), ImageInput(1, 12, 12), "LenetLike"),
        (torchdl.Autoencoder((1, 12, 12)), ImageInput(1, 12, 12, low=-1), r"\[0, 1\]"),
        (torchdl.Autoencoder((1, 12, 12)), ImageInput(1, 12, 12, low=0.5), "black"),
    ],
)
def test_settings_of_another_model_are_refused(model, images, said):
    with pytest.raises(InputError, match=said):
        ImageReconstructor(model, ImageReconstructor.Settings(images))
