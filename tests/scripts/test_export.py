"""Export runs by the script, without their data."""

from __future__ import annotations

import pytest
import torch
from helpers.scripts import assert_mistake

import torchdl
from torchdl.predict import ImageClassifier, ImageInput

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the folders ``digits`` and ``encoder`` of runs."""
    folder = tmp_path_factory.mktemp("exported")
    settings = ImageClassifier.Settings(ImageInput(1, 28, 28, prepare="digit"), tuple("0123456789"))
    ImageClassifier(torchdl.LenetLike((1, 28, 28), 10, width=4, hidden=8), settings).save(folder / "digits")
    torchdl.save(torchdl.image_cpc(28, 1, code_size=8, context_size=8), folder / "cpc")
    return folder


def test_a_run_is_exported_with_its_preprocessing(folder, run):
    done = run("export.py digits --format torch-export", folder)
    assert (done.code, done.err) == (0, "")
    assert "largest difference from the network: 0.0e+00 (batch 1; batch 2; batch 5)" in done.out
    program = torch.export.load(folder / "digits" / "model.pt2").module()
    torch.testing.assert_close(program(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).sum(1), torch.ones(2))


def test_a_part_is_exported_to_onnx(folder, run):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    done = run("export.py cpc --part encoder --out encoder.onnx", folder)
    assert (done.code, done.err) == (0, "")
    session = onnxruntime.InferenceSession(folder / "encoder.onnx", providers=["CPUExecutionProvider"])
    images = torch.rand(2, 1, 28, 28)
    expected = torchdl.load(folder / "cpc").encoder(images).detach()
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), expected)


def test_a_model_that_comes_with_torchdl_is_exported_here(run, tmp_path):
    done = run("export.py pretrained:autoencoder-mnist --format torch-export", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "autoencoder-mnist.pt2").is_file()
    done = run("export.py pretrained:cpc-grey --format torch-export --part encoder --out part.pt2", tmp_path)
    assert (done.code, done.err) == (0, "")


MISTAKES = {
    "export.py pretrained:mnist": "cpc-grey",
    "export.py nowhere": "no folder nowhere",
    "export.py cpc": "resume the finished run",
    "export.py cpc --part head": "choose model or encoder or context or predictors",
    "export.py digits --out digits.pt2": "digits.pt2 must end in .onnx",
    "export.py digits --format torch-export --tolerance -1": "differs from the original",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence(command, folder, run):
    assert_mistake(run, command, folder, MISTAKES[command])
