from __future__ import annotations

import json
import re

import pytest
import torch
from helpers import fill_
from helpers.scripts import assert_mistake, files

import torchdl

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("keras")]


def write(model, path):
    torchdl.keras.to_keras(fill_(model).eval(), path)
    return model


def test_an_encoder_becomes_a_run_that_is_probed_and_goes_back(run, tmp_path):
    encoder = write(torchdl.ImageEncoder(16, 3, 4, depth=2, filters=3, hidden=5), tmp_path / "encoder.h5")
    done = run("convert_keras.py encoder.h5 --out runs/imported --dataset mnist_5k --no-color", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "(N, 3, 16, 16)" in done.out
    assert float(done.out.split("random inputs: ")[1].split(",")[0]) < 1e-5
    folder = tmp_path / "runs" / "imported"
    images = torch.rand(2, 3, 16, 16)
    assert torchdl.load(folder)(images).equal(encoder(images))
    digits = torch.randint(256, (4, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    predictor = torchdl.load_predictor(folder, "cpu")
    seen = torchdl.Digits(digits, torch.zeros(4, dtype=torch.int64), image_size=16, color=False)
    assert predictor.embed(seen).equal(encoder(seen[:][0]))
    assert predictor.settings.images.prepare == "digit"
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["image_size"] == 16
    assert config["data"]["origin"] == "encoder.h5"

    done = run("probe_cpc.py runs/imported --device abacus", tmp_path)  # the run and its digits are taken
    assert done.code == 2
    assert re.fullmatch(r"probe_cpc\.py: .*abacus.*\n", done.err)

    done = run("convert_keras.py runs/imported --out back.keras", tmp_path)
    assert (done.code, done.err, done.out) == (0, "", "images: (N, 16, 16, 3), channels last\nback.keras\n")
    assert torchdl.keras.from_keras(tmp_path / "back.keras")(images).equal(encoder(images))


@pytest.mark.parametrize(
    ("shape", "options", "prepare", "classes"),
    [
        ((1, 28, 28), "--dataset mnist_5k", "digit", tuple("0123456789")),
        ((3, 32, 32), "--dataset cifar10 --classes " + " ".join("abcdefghij"), "crop", tuple("abcdefghij")),
    ],
    ids=["MNIST", "names"],
)
def test_a_classifier_answers_on_pictures(shape, options, prepare, classes, run, tmp_path):
    lenet = write(torchdl.LenetLike(shape, 10, width=2, hidden=3), tmp_path / "lenet.keras")
    done = run(f"convert_keras.py lenet.keras --out imported {options}", tmp_path)
    assert (done.code, done.err) == (0, "")
    predictor = torchdl.load_predictor(tmp_path / "imported", "cpu")
    assert (predictor.settings.images.prepare, predictor.settings.classes) == (prepare, classes)
    pixels = torch.randint(256, (2, *shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    expected = lenet(pixels / 255).softmax(1).double()
    torch.testing.assert_close(predictor.predict(pixels).probabilities, expected, atol=1e-6, rtol=1e-5)


def test_names_that_are_not_the_networks_outputs_are_refused(run, tmp_path):
    write(torchdl.LenetLike((3, 8, 8), 3, width=2, hidden=3), tmp_path / "lenet.keras")
    write(torchdl.Generator(8, 64, hidden=(9,)), tmp_path / "generator.keras")
    assert_mistake(run, "convert_keras.py lenet.keras --out new --classes cat dog", tmp_path, "name one for each")
    assert_mistake(run, "convert_keras.py generator.keras --out new --classes cat dog", tmp_path, "not for a Generator")
    assert not (tmp_path / "new").exists()


def test_two_files_become_a_gan_that_generates(run, tmp_path):
    write(torchdl.Generator(8, 64, hidden=(9,)), tmp_path / "generator.keras")
    write(torchdl.Discriminator(64, hidden=(9,)), tmp_path / "discriminator.keras")
    command = "convert_keras.py generator.keras --discriminator discriminator.keras --out runs/gan/imported"
    done = run(command, tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.count("largest difference") == 2
    done = run("generate.py runs/gan/imported --n 4 --out digits.png", tmp_path)
    assert (done.code, done.err) == (0, "")
    picture = (tmp_path / "digits.png").read_bytes()
    done = run("predict.py runs/gan/imported --n 4 --out digits.png", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "digits.png").read_bytes() == picture
    done = run("convert_keras.py generator.keras --out runs/alone", tmp_path)
    assert done.code == 0
    done = run("generate.py runs/alone", tmp_path)
    assert done.code == 2
    assert "--discriminator" in done.err


def test_an_autoencoder_becomes_a_run_that_reconstructs(run, tmp_path):
    model = write(torchdl.Autoencoder((3, 8, 8), 2, 1, 3), tmp_path / "model.keras")
    assert run("convert_keras.py model.keras --out imported --dataset cifar10", tmp_path).code == 0
    pictures = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert torchdl.load_predictor(tmp_path / "imported", "cpu").embed(pictures).equal(model.encode(pictures / 255))


def test_a_mistake_is_one_sentence_and_writes_nothing(run, tmp_path):
    write(torchdl.MLP(4, 3, hidden=(5,)), tmp_path / "mlp.keras")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    (tmp_path / "text.h5").write_text("no weights")
    (tmp_path / "taken.json").write_text("")
    torchdl.save(torchdl.MLP(4, 3, hidden=(5,)), tmp_path / "run")
    before = files(tmp_path)
    for options, word in {
        "nowhere.h5 --out new": "nowhere.h5",
        "text.h5 --out new": "text.h5",
        "mlp.keras --out taken": "taken exists already: .*--out",
        "mlp.keras --out new --network CPC": "does not hold CPC: its layers are Dense",
        "mlp.keras --out new --dataset foo": "data set 'foo'.*mnist",
        "mlp.keras --out new --background nowhere.png": "no picture nowhere.png",
        "mlp.keras --out new --network Mlp": "unknown network .*MLP",
        "mlp.keras --out new --discriminator mlp.keras": "Discriminator",
        "taken --out model.keras": "taken",
        "run --out taken.weights.h5": r"taken\.json exists already",
        "run --out model.keras --network MLP": "--network",
        "run --out model.keras --dataset cifar10": "--dataset",
    }.items():
        done = run(f"convert_keras.py {options}", tmp_path)
        assert done.code == 2, (options, done.out, done.err)
        assert len(done.err.splitlines()) == 1
        assert re.search(word, done.err), (options, done.err)
    assert files(tmp_path) == before
