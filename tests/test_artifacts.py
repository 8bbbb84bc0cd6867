from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import torchdl
from torchdl import GAN, Discriminator, Generator, InputError, artifacts

ARCHITECTURE, WEIGHTS = "architecture.json", "weights.safetensors"


def small_gan() -> GAN:
    generator = Generator(3, 12, hidden=(4, 5), slope=0.2, batch_norm=0.8)
    return GAN(generator, Discriminator(12, hidden=(4,), slope=0.3), (3, 2, 2))


@pytest.fixture
def folder(tmp_path) -> Path:
    artifacts.save(small_gan(), tmp_path / "model")
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        artifacts.load(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(folder) in sentence
    return sentence


def rewrite(folder: Path, change) -> None:
    description = json.loads((folder / ARCHITECTURE).read_text())
    change(description)
    (folder / ARCHITECTURE).write_text(json.dumps(description))


def test_a_nested_model_comes_back_with_its_arguments_weights_and_statistics(tmp_path):
    gan = small_gan().train()
    gan(gan.noise(8))  # moves the running statistics
    torchdl.save(gan, tmp_path / "deep" / "folder")
    back = torchdl.load(tmp_path / "deep" / "folder")
    assert type(back) is GAN
    assert not any(m.training for m in back.modules())
    assert back.image_shape == (3, 2, 2)
    assert (back.generator.z_dim, back.generator.hidden, back.generator.batch_norm) == (3, (4, 5), 0.8)
    assert back.discriminator.slope == 0.3
    state = gan.state_dict()
    assert back.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in back.state_dict().items())
    assert torch.equal(back.generate_samples(4), gan.generate_samples(4))


@pytest.mark.parametrize(
    "model",
    [
        Generator(3, 4, ()),
        Discriminator(4),
        torchdl.simple_gan(),
        torchdl.deep_gan(),
        torchdl.models.Sine(),
        torchdl.LenetLike((1, 8, 8), 3),
        torchdl.TextLSTM(9),
    ],
)
def test_every_model_class_can_be_saved_and_described_again(tmp_path, model):
    artifacts.save(model, tmp_path)
    back = artifacts.load(tmp_path)
    assert artifacts.describe(back) == artifacts.describe(model)
    assert sorted(p.name for p in tmp_path.iterdir()) == [ARCHITECTURE, WEIGHTS]


def test_saving_again_replaces_both_files(folder):
    other = Discriminator(5)
    artifacts.save(other, folder)
    assert torch.equal(artifacts.load(folder).disc[0].weight, other.disc[0].weight)


def test_the_architecture_is_plain_json_of_names_and_numbers(folder):
    assert json.loads((folder / ARCHITECTURE).read_text()) == {
        "class": "GAN",
        "arguments": {
            "generator": {
                "class": "Generator",
                "arguments": {"z_dim": 3, "img_dim": 12, "hidden": [4, 5], "slope": 0.2, "batch_norm": 0.8},
            },
            "discriminator": {
                "class": "Discriminator",
                "arguments": {"in_features": 12, "hidden": [4], "slope": 0.3, "spectral_norm": False},
            },
            "image_shape": [3, 2, 2],
        },
    }


class Discriminated(Discriminator):
    pass


@pytest.mark.parametrize("model", [nn.Linear(2, 2), Discriminated(4), GAN(nn.Linear(2, 4), Discriminator(4))])
def test_a_model_of_another_class_cannot_be_saved(tmp_path, model):
    with pytest.raises(InputError, match="not one of torchdl's model classes"):
        artifacts.save(model, tmp_path / "model")
    assert not list((tmp_path / "model").iterdir())


def test_a_class_that_borrows_a_models_name_cannot_be_saved(tmp_path):
    impostor = type("Discriminator", (nn.Linear,), {})
    with pytest.raises(InputError, match="not one of torchdl's model classes"):
        artifacts.save(impostor(2, 2), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["os.system", "Module", "nn.Linear", "keras_init_", "simple_gan", "gan", "__class__", "__loader__", "", None, 5],
)
@pytest.mark.parametrize("nested", [False, True])
def test_foreign_names_are_refused(folder, name, nested):
    rewrite(folder, lambda d: (d["arguments"]["generator"] if nested else d).update({"class": name}))
    assert "not one of torchdl's model classes" in refusal(folder)


@pytest.mark.parametrize("content", ["[]", "null", "3", "{}", '{"class": "GAN"}', '{"class": "GAN", "arguments": []}'])
def test_json_that_is_no_architecture_is_refused(folder, content):
    (folder / ARCHITECTURE).write_text(content)
    assert "an architecture must be" in refusal(folder)


@pytest.mark.parametrize("name", [ARCHITECTURE, WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert f"holds no {name}" in refusal(folder)


def test_a_missing_folder_is_named(tmp_path):
    refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [ARCHITECTURE, WEIGHTS])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(folder, name, share):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(share * len(data))])
    refusal(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00garbage", b"[" * 100_000, b"nonsense\nof two lines"])
def test_garbage_for_an_architecture_is_refused(folder, content):
    (folder / ARCHITECTURE).write_bytes(content)
    refusal(folder)


def test_weights_of_another_shape_are_refused(folder):
    rewrite(folder, lambda d: d["arguments"]["generator"]["arguments"].update(hidden=[4, 6]))
    assert "does not fit" in refusal(folder)


@pytest.mark.parametrize("change", ["missing", "extra"])
def test_weights_missing_or_too_many_are_refused(folder, change):
    state = safetensors.torch.load_file(folder / WEIGHTS)
    if change == "missing":
        del state["discriminator.disc.0.bias"]
    else:
        state["discriminator.disc.9.bias"] = torch.ones(1)
    safetensors.torch.save_file(state, folder / WEIGHTS)
    assert f"disc.{0 if change == 'missing' else 9}.bias" in refusal(folder)


@pytest.mark.parametrize(
    "arguments",
    [
        {"colour": "blue"},
        {"self": 1},
        {"hidden": 5},
        {"hidden": "ab"},
        {"hidden": [4.5]},
        {"hidden": [-4]},
        {"hidden": [10**30]},
        {"z_dim": [3]},
        {"z_dim": None},
        {"batch_norm": "often"},
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_refused(folder, arguments):
    rewrite(folder, lambda d: d["arguments"]["generator"]["arguments"].update(arguments))
    refusal(folder)


def test_numbers_beyond_all_bounds_are_refused(folder):
    rewrite(folder, lambda d: d.update({"class": "ImageEncoder", "arguments": {"image_size": 1e300}}))
    assert "ImageEncoder cannot be built" in refusal(folder)


def test_missing_arguments_are_refused(folder):
    rewrite(folder, lambda d: d["arguments"].pop("discriminator"))
    assert "GAN cannot be built" in refusal(folder)


def test_a_width_too_large_for_any_memory_is_refused(folder):
    rewrite(folder, lambda d: d["arguments"]["generator"]["arguments"].update(hidden=[10**15]))
    refusal(folder)


def test_a_slope_that_is_no_number_is_refused(folder):
    rewrite(folder, lambda d: d["arguments"]["generator"]["arguments"].update(slope="steep"))
    refusal(folder)


@pytest.mark.parametrize("value", [None, 5, "Generator"])
def test_a_network_that_is_no_model_is_refused_as_such(folder, value):
    rewrite(folder, lambda d: d["arguments"].update(discriminator=value))
    state = safetensors.torch.load_file(folder / WEIGHTS)
    kept = {name: tensor for name, tensor in state.items() if name.startswith("generator.")}
    safetensors.torch.save_file(kept, folder / WEIGHTS)
    refusal(folder)


def test_loading_and_building_do_not_run_what_a_file_names(folder, tmp_path):
    marker = tmp_path / "ran"
    rewrite(folder, lambda d: d.update({"class": f"__import__('pathlib').Path({str(marker)!r}).touch()"}))
    refusal(folder)
    assert not marker.exists()


def test_a_flipped_bit_anywhere_in_the_weights_is_refused_or_changes_nothing(folder):
    data, model = (folder / WEIGHTS).read_bytes(), artifacts.load(folder).state_dict()
    header = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for place in {*range(0, header, 5), *range(header, len(data), 3)}:
        flipped = data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]
        (folder / WEIGHTS).write_bytes(flipped)
        try:
            state = artifacts.load(folder).state_dict()
        except InputError:
            refused += 1
        else:  # the checksum's name was hit
            assert place < header
            assert all(torch.equal(value, state[name]) for name, value in model.items())
    assert refused > 100


def test_weights_from_before_without_a_checksum_are_loaded(folder):
    state = safetensors.torch.load_file(folder / WEIGHTS)
    safetensors.torch.save_file(state, folder / WEIGHTS)
    assert artifacts.load(folder).state_dict().keys() == state.keys()


def test_arguments_of_numpys_types_come_back_as_pythons_own(tmp_path):
    model = Discriminator(np.int64(4), hidden=(np.int32(3),), slope=np.float32(0.5))
    artifacts.save(model, tmp_path)
    back = artifacts.load(tmp_path)
    assert (back.in_features, back.hidden, back.slope) == (4, (3,), 0.5)
    assert {type(back.in_features), type(back.hidden[0]), type(back.slope)} == {int, float}
