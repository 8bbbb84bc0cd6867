from __future__ import annotations

import json
import os
import re
import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import gaussian
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import torchdl
from torchdl import GAN, Discriminator, Generator, InputError, artifacts
from torchdl.models.backbones import LITE, backbone_names
from torchdl.training.distributed import synchronize_batch_norm

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
        "torchdl": torchdl.__version__,
    }


class Discriminated(Discriminator):
    pass


@pytest.mark.parametrize("model", [nn.Linear(2, 2), Discriminated(4), GAN(nn.Linear(2, 4), Discriminator(4))])
def test_a_model_of_another_class_cannot_be_saved(tmp_path, model):
    with pytest.raises(InputError, match="not one of torchdl's model classes"):
        artifacts.save(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torchdl.MLP(2, 2).state_dict(), "x"), "takes a model, not an OrderedDict: .*torch.save"),
        (("x", torchdl.MLP(2, 2)), r"takes a model, not a str: save\(model, folder\)"),
        ((torchdl.MLP(2, 2).half(), "x"), r"layers.0.weight has numbers of 16 bits.*model.float\(\).*half=True"),
        ((nn.Linear(2, 2), "x"), r"save its state_dict\(\) by torch.save"),
    ],
)
def test_what_cannot_be_saved_leaves_no_folder(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        artifacts.save(*arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_compiled_model_is_saved_as_the_model_itself(tmp_path):
    model = torchdl.MLP(2, 2, hidden=(3,))
    artifacts.save(torch.compile(model), tmp_path)
    assert torch.equal(artifacts.load(tmp_path, kind=torchdl.MLP).layers[0].weight, model.layers[0].weight)


def test_a_model_of_another_version_says_so_if_it_cannot_be_loaded(folder):
    rewrite(folder, lambda description: description.update(torchdl="9.3.0"))
    artifacts.load(folder)
    rewrite(folder, lambda description: description.update({"class": "Lenet9"}))
    assert f"torchdl 9.3.0 wrote it, and this is {torchdl.__version__}" in refusal(folder)
    rewrite(folder, lambda description: description.pop("torchdl"))
    assert "wrote it" not in refusal(folder)


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


N = np.int64


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: Discriminator(N(4), hidden=(np.int32(3),), slope=np.float32(0.5)), Discriminator(4, (3,), 0.5)),
        (lambda: torchdl.MLP(N(2), N(1), np.array([3, 4])), torchdl.MLP(2, 1, (3, 4))),
        (lambda: torchdl.LenetLike(np.array([1, 8, 8]), N(3), N(2)), torchdl.LenetLike((1, 8, 8), 3, 2)),
        (lambda: torchdl.SequenceModel(np.str_("gru"), N(2), hidden=N(3)), torchdl.SequenceModel("gru", 2, hidden=3)),
        (lambda: torchdl.image_cpc(*map(N, (15, 3, 6, 8, 2))), torchdl.image_cpc(15, 3, 6, 8, 2)),
        (lambda: torchdl.TextLSTM(N(9), N(2), dropout=np.float64(0.5)), torchdl.TextLSTM(9, 2, dropout=0.5)),
    ],
)
def test_arguments_of_numpys_types_come_back_as_pythons_own(tmp_path, build, expected):
    artifacts.save(build(), tmp_path)
    assert json.dumps(artifacts.describe(artifacts.load(tmp_path))) == json.dumps(artifacts.describe(expected))


# models that were changed after they were built


def with_an_activation_replaced() -> nn.Module:
    model = torchdl.MLP(4, 2, hidden=(3, 3))
    model.layers[1] = nn.Tanh()
    return model


def with_an_activation_of_another_slope() -> nn.Module:
    model = Discriminator(4)
    model.disc[1] = nn.LeakyReLU(0.5)
    return model


def with_another_bionodal_root() -> nn.Module:
    model = torchdl.MLP(4, 2, activation="bru")
    model.layers[1].r = 3.0
    return model


def with_a_head_of_more_classes() -> nn.Module:
    model = torchdl.LenetLike((1, 8, 8), 3)
    model.classifier[-1] = nn.Linear(model.hidden, 5)
    return model


def with_a_deeper_head() -> nn.Module:
    model = torchdl.LenetLike((1, 8, 8), 3)
    model.classifier.append(nn.Linear(3, 3))
    return model


def with_a_norm_added() -> nn.Module:
    model = torchdl.LenetLike((1, 8, 8), 3)
    model.features.insert(1, nn.BatchNorm2d(32))
    return model


def with_a_norm_around_it() -> nn.Module:
    model = torchdl.MLP(4, 2)
    model.norm = nn.LayerNorm(4)
    return model


def with_weight_norm() -> nn.Module:
    model = torchdl.MLP(4, 2)
    nn.utils.parametrizations.weight_norm(model.layers[0])
    return model


def with_another_epsilon() -> nn.Module:
    model = Generator(3, 4, batch_norm=0.8)
    model.gen[2].eps = 1e-5
    return model


def with_a_part_removed() -> nn.Module:
    model = torchdl.LenetLike((1, 8, 8), 3)
    model.features[-1] = nn.Identity()
    return model


def with_another_forward() -> nn.Module:
    model = torchdl.MLP(4, 2)
    model.forward = lambda x: model.layers(x).relu()
    return model


def with_another_argument() -> nn.Module:
    model = torchdl.MLP(4, 2)
    model.activation = "tanh"
    return model


def with_an_extra_parameter() -> nn.Module:
    model = torchdl.MLP(4, 2)
    model.scale = nn.Parameter(torch.ones(1))
    return model


def with_numbers_of_more_digits() -> nn.Module:
    return torchdl.MLP(4, 2).double()


CHANGED = [
    with_numbers_of_more_digits,
    with_an_activation_replaced,
    with_an_activation_of_another_slope,
    with_another_bionodal_root,
    with_a_head_of_more_classes,
    with_a_deeper_head,
    with_a_norm_added,
    with_a_norm_around_it,
    with_weight_norm,
    with_another_epsilon,
    with_a_part_removed,
    with_another_forward,
    with_another_argument,
    with_an_extra_parameter,
]


@pytest.mark.parametrize("change", CHANGED, ids=lambda change: change.__name__)
@pytest.mark.parametrize("nested", [False, True])
def test_a_changed_model_is_not_saved_as_what_it_was(tmp_path, change, nested):
    model = change()
    if nested:
        model = GAN(Generator(3, 4), model, (1, 2, 2))
    with pytest.raises(InputError, match="would build another model") as caught:
        artifacts.save(model, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_does_not_change_the_structure_can_be_saved(tmp_path):
    model = torchdl.MLP(4, 2).train()
    model.layers[-1] = nn.Linear(128, 2)  # other weights
    model.layers[0].weight.requires_grad_(False)
    model.note = "mine"
    model.register_forward_hook(lambda *_: None)
    artifacts.save(model, tmp_path)
    x = gaussian(3, 4)
    assert torch.equal(artifacts.load(tmp_path)(x), model.eval()(x))


def test_a_norm_of_several_processes_can_be_saved(tmp_path):
    model = Generator(3, 4, batch_norm=0.8)
    synchronize_batch_norm(model)
    artifacts.save(model, tmp_path)
    assert torch.equal(artifacts.load(tmp_path).gen[2].running_var, model.gen[2].running_var)


def test_saving_draws_no_random_number(tmp_path):
    model, before = torchdl.transfer_model("regnet_x_400mf", 2, weights=None, input_size=32), torch.get_rng_state()
    artifacts.save(model, tmp_path)
    artifacts.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


# tied weights


def test_tied_weights_come_back_tied(tmp_path):
    model = torchdl.MLP(4, 2, hidden=(3, 3, 3))
    model.layers[6].weight = model.layers[3].weight
    artifacts.save(model, tmp_path)
    back = artifacts.load(tmp_path)
    assert back.layers[6].weight is back.layers[3].weight
    assert back.layers[6].bias is not back.layers[3].bias
    x = gaussian(3, 4)
    assert torch.equal(back(x), model.eval()(x))


def test_a_layer_that_is_used_twice_comes_back_as_one(tmp_path):
    generator = Generator(3, 5, hidden=(4, 4, 4))
    generator.gen[4] = generator.gen[2]
    artifacts.save(generator, tmp_path)
    back = artifacts.load(tmp_path)
    assert back.gen[4].weight is back.gen[2].weight
    assert len(list(back.parameters())) == len(list(generator.parameters()))


def test_weights_that_share_memory_are_saved(tmp_path):
    model = torchdl.MLP(4, 4, hidden=(4,))
    model.layers[3].weight = nn.Parameter(model.layers[0].weight.T)  # of the same memory, transposed
    artifacts.save(model, tmp_path)
    x = gaussian(3, 4)
    torch.testing.assert_close(artifacts.load(tmp_path)(x), model.eval()(x))


@pytest.mark.parametrize(
    "tied", [5, "ab", [["layers.0.weight"], 3], [["layers.0.weight", "layers.9.weight"]], [["layers.0.bias", ""]], [[]]]
)
def test_ties_of_what_cannot_be_tied_are_refused(tmp_path, tied):
    artifacts.save(torchdl.MLP(4, 2), tmp_path)
    rewrite(tmp_path, lambda d: d.update(tied=tied))
    refusal(tmp_path)


# arguments


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (torchdl.MLP(4, 2), {"hidden": 1}),
        (torchdl.MLP(4, 2), {"hidden": "12"}),
        (torchdl.MLP(4, 2), {"hidden": [1.5]}),
        (torchdl.MLP(4, 2), {"in_features": "4"}),
        (torchdl.MLP(4, 2), {"in_features": True}),
        (torchdl.MLP(4, 2), {"activation": ["relu"]}),
        (torchdl.MLP(4, 2), {"activation": {"class": "Sine", "arguments": {}}}),
        (torchdl.SequenceModel("lstm"), {"kind": "transformer"}),
        (torchdl.SequenceModel("lstm"), {"horizon": [1]}),
        (torchdl.TextCNN(9), {"widths": []}),
        (torchdl.StridedCNN(), {"dropout": [0.1, None]}),
        (torchdl.MatrixFactorization(3, 4), {"mean": None}),
    ],
)
def test_arguments_of_another_type_are_refused_and_named(tmp_path, model, arguments):
    artifacts.save(model, tmp_path)
    rewrite(tmp_path, lambda d: d["arguments"].update(arguments))
    reason = refusal(tmp_path)
    assert any(name in reason for name in [*arguments, "must be"])


# sizes


HUGE = 10**9


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (torchdl.SequenceModel("lstm"), {"layers": HUGE}),
        (torchdl.SequenceModel("mlp", length=3), {"layers": HUGE}),
        (torchdl.RowReader((1, 4, 4), 2), {"layers": HUGE}),
        (torchdl.models.Predictors(3, 4, 2), {"steps": HUGE}),
        (torchdl.MLP(4, 2), {"hidden": [1] * 300_000}),
        (torchdl.MLP(4, 2), {"hidden": [1] * 3_000_000}),
        (Generator(3, 4), {"hidden": [1] * 300_000}),
        (torchdl.TextCNN(9), {"widths": [1] * 300_000}),
        (torchdl.SignalEncoder(code_size=4), {"kernels": [1] * 300_000, "strides": [1] * 300_000}),
        (torchdl.AirbenchLike(), {"widths": [HUGE] * 3}),
        (torchdl.Autoencoder(), {"in_shape": [1, 2**70, 2**70], "depth": 60}),
        (torchdl.LenetLike((1, 8, 8), 2), {"in_shape": [1, HUGE, HUGE]}),
        (torchdl.TransferModel("pixels", 2), {"resize_size": 20_000}),
        (torchdl.TransferModel("pixels", 2, 8, 8), {"input_size": 20_000, "resize_size": 20_000}),
        (torchdl.TransferModel("pixels", 2, 8, 8), {"backbone": "regnet_y_128gf"}),
    ],
)
def test_an_architecture_of_enormous_numbers_is_refused_before_it_is_built(tmp_path, monkeypatch, model, arguments):
    artifacts.save(model, tmp_path)
    rewrite(tmp_path, lambda d: d["arguments"].update(arguments))
    made, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def count(*_: object) -> None:
        nonlocal made
        made += 1

    handle = register_module_parameter_registration_hook(count)
    try:
        refusal(tmp_path)
    finally:
        handle.remove()
    assert made < 5000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_many_nested_models_are_refused(tmp_path):
    artifacts.save(small_gan(), tmp_path)
    big = {"class": "MLP", "arguments": {"hidden": [1] * 900}}
    for _ in range(20):
        big = {"class": "GAN", "arguments": {"generator": big, "discriminator": big}}
        if len(json.dumps(big)) > 2**18:
            break
    rewrite(tmp_path, lambda d: d.update(big))
    assert "many more parameters" in refusal(tmp_path)


# backbones


@pytest.mark.parametrize("name", ["mnasnet0_5", "regnet_y_400mf", "squeezenet1_1"])
def test_a_backbone_comes_back_with_its_weights(tmp_path, name):
    model = torchdl.transfer_model(name, 2, weights=None, input_size=64)
    torchdl.save(model, tmp_path)
    back, images = torchdl.load(tmp_path), torch.rand(1, 3, 64, 64)
    assert torch.equal(back(images), model.eval()(images))


def empty_weights(path: Path, model: nn.Module) -> None:
    """Write a safetensors file of zeros that takes no space on the disk."""
    header, size = {}, 0
    for name, tensor in model.state_dict().items():
        end = size + tensor.nelement() * tensor.element_size()
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [size, end]}
        size = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + size)


SMALLEST = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_lite0", "efficientnet_v2_s"),
    *("googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "pixels"),
    *("regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1"),
    *("swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_32", "wide_resnet50_2"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_every_kind_of_backbone_comes_back(tmp_path, monkeypatch, name):
    if name == LITE:
        pytest.importorskip("efficientnet_lite_pytorch", reason="install the extra transfer for its network")
    with torch.device("meta"):
        model = torchdl.TransferModel(name, 2)
    (tmp_path / ARCHITECTURE).write_text(json.dumps(artifacts.describe(model)))
    empty_weights(tmp_path / WEIGHTS, model)
    monkeypatch.setattr(artifacts, "build", lambda _: model)  # builds it once, not twice
    back = torchdl.load(tmp_path)
    assert not any(tensor.is_meta for tensor in back.state_dict().values())


def test_the_smallest_backbones_are_of_all_kinds():
    kinds = {re.match(r"[a-z]+(_v\d|_x|_y)?", name)[0] for name in SMALLEST}
    assert {re.match(r"[a-z]+(_v\d|_x|_y)?", name)[0] for name in backbone_names()} == kinds


def test_a_model_of_another_class_than_asked_for_is_refused(tmp_path):
    torchdl.save(torchdl.MLP(4, 3), tmp_path)
    assert isinstance(torchdl.load(tmp_path, kind=torchdl.MLP), torchdl.MLP)
    with pytest.raises(InputError, match="holds an MLP, not a GAN"):
        torchdl.load(tmp_path, kind=torchdl.GAN)
