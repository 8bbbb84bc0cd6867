from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from helpers import keras2
from helpers.mutations import Made, faults_of, mutate

from torchdl import InputError
from torchdl.keras import Layer, from_keras, read_model

COUNT = 1000


def layers(layer: Layer) -> list[Layer]:
    return [layer, *(inner for each in layer.layers for inner in layers(each))]


@pytest.fixture
def mlp(tmp_path) -> Path:
    """Write a perceptron as Keras 2.2.4 did."""
    path = tmp_path / "mlp.h5"
    keras2.save(path, *keras2.perceptron())
    return path


def test_a_model_of_keras_2_is_read_by_name(mlp):
    _, weights = keras2.perceptron()
    model, outputs, version = read_model(mlp)
    assert (model.kind, outputs, version) == ("Sequential", ("dense_2",), "2.2.4")
    assert [layer.kind for layer in model.layers] == ["InputLayer", "Dense", "Dense"]
    assert model.layers[2].inputs == ("dense_1",)
    for layer in model.layers[1:]:
        for name, array in layer.weights.items():
            np.testing.assert_array_equal(array, weights[layer.name][f"{layer.name}/{name}:0"])
    network = from_keras(mlp)
    np.testing.assert_array_equal(network.layers[0].weight.detach().numpy(), model.layers[1].weights["kernel"].T)


def test_sequential_was_a_bare_list_and_texts_are_of_any_kind(mlp):
    expected = read_model(mlp)
    with h5py.File(mlp, "r+") as file:
        described = json.loads(file.attrs["model_config"])
        file.attrs["model_config"] = json.dumps({**described, "config": described["config"]["layers"]})  # a str
        group = file["model_weights"]
        group.attrs["layer_names"] = ["dense_1", "dense_2"]
        own = group["dense_1"].attrs
        own["weight_names0"], own["weight_names1"] = own["weight_names"][:1], own["weight_names"][1:]
        del own["weight_names"]
    found = read_model(mlp)
    assert [layer.kind for layer in found.model.layers] == ["InputLayer", "Dense", "Dense"]
    for layer, other in zip(found.model.layers, expected.model.layers, strict=True):
        np.testing.assert_equal(layer.weights, other.weights)


@pytest.mark.parametrize("steps", [1, 2])
def test_the_whole_cpc_of_keras_2_is_read(tmp_path, steps):
    description, weights = keras2.cpc(steps)
    keras2.save(tmp_path / "cpc.h5", description, weights)
    model, outputs, _ = read_model(tmp_path / "cpc.h5")
    assert outputs == ("cpc_layer_1",)
    by_name = {layer.name: layer for layer in model.layers}
    assert by_name["cpc_layer_1"].inputs == ("lambda_1", "time_distributed_2")
    assert by_name["lambda_1"].config == {}  # its code is dropped
    for wrapper in ("time_distributed_1", "time_distributed_2"):
        found = {f"{e.name}/{n}:0": a for e in layers(by_name[wrapper]) for n, a in e.weights.items()}
        np.testing.assert_equal(found, weights[wrapper])
    cpc = from_keras(tmp_path / "cpc.h5")
    assert (type(cpc).__name__, cpc.predictors.steps, cpc.context.reset_after) == ("CPC", steps, False)
    np.testing.assert_array_equal(
        cpc.predictors.linear[0].weight.detach().numpy(), by_name["z_t_0"].weights["kernel"].T
    )


@pytest.mark.parametrize("reset_after", [None, False, True])  # files before Keras 2.2 do not have it
@pytest.mark.parametrize("gate", [keras2.hard_sigmoid, keras2.sigmoid])
def test_the_grus_settings_of_a_cpc_of_keras_2_are_heeded(tmp_path, gate, reset_after):
    description, weights = keras2.cpc(recurrent_activation=gate.__name__, reset_after=reset_after)
    for own in weights.values():  # smaller ones, so that the gates are not all 0 or 1
        own |= {name: array - 0.75 for name, array in own.items() if "kernel" in name or "ar_context" in name}
    keras2.save(tmp_path / "cpc.h5", description, weights)
    cpc = from_keras(tmp_path / "cpc.h5")
    context, future = torch.rand(2, 3, 3, 28, 28), torch.rand(2, 2, 3, 28, 28)
    with torch.no_grad():
        codes, (predicted, _) = cpc.encode(context).double().numpy(), cpc(context, future)
    own = {name.split("/")[-1].split(":")[0]: array.astype(float) for name, array in weights["ar_context"].items()}
    last = keras2.gru_states(codes, own, gate, bool(reset_after))[:, -1]
    for step in range(2):
        dense = weights[f"z_t_{step}"]
        expected = last @ dense[f"z_t_{step}/kernel:0"] + dense[f"z_t_{step}/bias:0"]
        np.testing.assert_allclose(predicted[:, 0, step].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_call_in_training_and_classes_of_others_are_refused(mlp):
    description, weights = keras2.perceptron()
    last = description["config"]["layers"][1]
    for changed, words in (
        ({"class_name": "mine>Dense"}, "mine>Dense"),
        ({"module": "mine", "registered_name": "Dense"}, "mine>Dense"),
        ({"inbound_nodes": [[["dense_1", 0, 0, {"training": True}]]]}, "training=True"),
    ):
        description["config"]["layers"][1] = {**last, **changed}
        keras2.save(mlp, description, weights)
        with pytest.raises(InputError, match=f"'dense_2'.*{words}"):
            from_keras(mlp)
    description["config"]["layers"][1] = {**last, "inbound_nodes": [[["dense_1", 0, 0, {"training": False}]]]}
    keras2.save(mlp, description, weights)
    assert type(from_keras(mlp)).__name__ == "MLP"


def test_weights_that_a_layer_of_keras_has_only_with_an_extension_are_refused(mlp):
    description, weights = keras2.perceptron()
    adapter = {"dense_1/lora_kernel_a:0": np.ones((4, 2), "f4")}  # of low rank, added to the kernel
    keras2.save(mlp, description, {**weights, "dense_1": {**weights["dense_1"], **adapter}})
    with pytest.raises(InputError, match=r"'dense_1'.*lora_kernel_a"):
        from_keras(mlp)


def test_nested_layers_of_other_names_get_their_weights_in_order(tmp_path):
    description, weights = keras2.cpc()
    own = weights["time_distributed_1"]
    for rename, fits in (
        (lambda path: path.replace("/", "_1/"), True),
        (lambda path: f"x/{path.partition('/')[2]}", False),
    ):
        renamed = {rename(path): array for path, array in own.items()}
        keras2.save(tmp_path / "cpc.h5", description, {**weights, "time_distributed_1": renamed})
        if fits:
            wrapper = read_model(tmp_path / "cpc.h5").model.layers[1]
            found = {f"{e.name}/{n}:0": array for e in layers(wrapper) for n, array in e.weights.items()}
            np.testing.assert_equal(found, own)
        else:
            with pytest.raises(InputError, match="has weights for 1 layers in it"):
                read_model(tmp_path / "cpc.h5")


def test_weights_need_their_architecture_which_may_lie_beside_them(tmp_path):
    description, weights = keras2.perceptron()
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        keras2.save_weights(file, list(weights), weights)
    for path in (tmp_path, tmp_path / "weights.h5"):
        with pytest.raises(InputError, match="name the JSON file with"):
            read_model(path)
    (tmp_path / "architecture.json").write_text(json.dumps(description))
    beside, named = read_model(tmp_path), read_model(tmp_path / "weights.h5", tmp_path / "architecture.json")
    np.testing.assert_equal(beside.model.layers[1].weights, named.model.layers[1].weights)
    assert sorted(named.model.layers[1].weights) == ["bias", "kernel"]
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds 2 files \.json"):
        read_model(tmp_path)


def test_a_folder_with_a_whole_model_needs_no_architecture(mlp):
    (mlp.parent / "history.json").write_text("{}")
    assert read_model(mlp.parent).version == "2.2.4"
    with pytest.raises(InputError, match="leave the other out"):
        read_model(mlp, mlp.parent / "history.json")


# Keras 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("suffix", [".keras", ".h5", ".weights.h5"])
def test_what_keras_3_saves_is_read(keras, tmp_path, suffix):
    layer = keras.layers
    inner = keras.Sequential([keras.Input((4,)), layer.Dense(3, name="z"), layer.Dense(2, name="a")], name="inner")
    x = first = keras.Input((5, 4))
    x = layer.BatchNormalization(scale=False, name="norm")(layer.TimeDistributed(inner)(x))
    x = layer.Dropout(0.5)(layer.Bidirectional(layer.GRU(3))(x))  # which keeps a seed, of whole numbers
    model = keras.Model(first, layer.Dense(2, use_bias=False, name="last")(layer.Dense(4)(x)))
    path, architecture = tmp_path / f"model{suffix}", None
    if suffix == ".weights.h5":
        model.save_weights(path)
        (architecture := tmp_path / "model.json").write_text(model.to_json())
    else:
        model.save(path)
    found, outputs, _ = read_model(path, architecture)
    assert outputs == ("last",)
    ours = [array for each in layers(found) for array in each.weights.values()]
    theirs = [np.array(value) for value in model.get_weights()]
    assert len(ours) == len(theirs)
    for array, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(array, other)
    inside = next(each for each in found.layers if each.kind == "TimeDistributed").layers[0]
    assert [each.kind for each in inside.layers] == ["InputLayer", "Dense", "Dense"]


# hostile files


def kernel(file: h5py.File) -> tuple[h5py.Group, str]:
    return file["model_weights/dense_1/dense_1"], "kernel:0"


def link_elsewhere(file, folder):
    group, name = kernel(file)
    del group[name]
    group[name] = h5py.ExternalLink("/etc/passwd", "/x")


def soft_link(file, folder):
    group, name = kernel(file)
    del group[name]
    group[name] = h5py.SoftLink("/model_weights/dense_1/dense_1/bias:0")


def stored_elsewhere(file, folder):
    group, name = kernel(file)
    del group[name]
    (folder / "secret").write_bytes(bytes(48))
    group.create_dataset(name, (4, 3), "f4", external=[(str(folder / "secret"), 0, 48)])


def virtual(file, folder):
    group, name = kernel(file)
    del group[name]
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "x", (4, 3))
    group.create_virtual_dataset(name, layout)


def bomb(file, folder):
    group, name = kernel(file)
    del group[name]
    group.create_dataset(name, (10**6, 10**6), "f4", chunks=(1000, 1000), compression="gzip")


def unwritten(file, folder):
    group, name = kernel(file)
    del group[name]
    group.create_dataset(name, (10**6, 10**6), "f4")


def replaced(value):
    def change(file, folder):
        group, name = kernel(file)
        del group[name]
        group[name] = value

    return change


def circle(file, folder):
    group, _ = kernel(file)
    group["deeper"] = file["model_weights"]
    del file["model_weights/dense_1/dense_1/kernel:0"]


def a_reference(file, folder):
    file["model_weights/dense_1"].attrs.create("weight_names", file.ref, dtype=h5py.ref_dtype)


def deep(file, folder):
    file.attrs["model_config"] = '{"a":' * 100_000


def nested(file, folder):
    file.attrs["model_config"] = '{"class_name": "Model", "config": {"layers": [' * 400 + "]}}" * 400


HOSTILE = {
    link_elsewhere: "links to elsewhere",
    soft_link: "a link to elsewhere",
    stored_elsewhere: "stored elsewhere",
    virtual: "stored elsewhere|newer form",
    bomb: "compressed",
    unwritten: "not all there",
    replaced(np.full((4, 3), np.nan, "f4")): "not finite",
    replaced(np.ones((4, 3), "i4")): "no real numbers",
    replaced("text"): "no real numbers",
    circle: "there are no weights",
    a_reference: "no text",
    deep: "damaged",
    nested: "damaged|lists no layers",  # Python 3.13 reads deeper nests
}


@pytest.mark.parametrize(("change", "words"), HOSTILE.items())
def test_a_hostile_file_is_refused_in_one_sentence(mlp, tmp_path, change, words):
    with h5py.File(mlp, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(InputError, match=words) as error:
        read_model(mlp)
    assert str(mlp) in str(error.value)
    assert "\n" not in str(error.value)


def test_weights_that_share_bytes_are_not_copied_without_end(tmp_path):
    description, _ = keras2.perceptron()
    names = [f"dense_{number}" for number in range(10, 700)]
    template = description["config"]["layers"][1]
    description["config"]["layers"] = [{**template, "config": {**template["config"], "name": n}} for n in names]
    big = {"x/kernel:0": np.ones(100_000, "f4")}
    keras2.save(tmp_path / "model.h5", description, {names[0]: big})
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        group = file["model_weights"]
        for name in names[1:]:
            del group[name]
            group[name] = group[names[0]]
    with pytest.raises(InputError, match="again and again"):
        read_model(tmp_path / "model.h5")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "neither"), (b"\x80\x04}", "neither"), (b"PK\x03\x04", "damaged"), (b"\x89HDF\r\n\x1a\n", "too early")],
)
def test_other_files_are_refused(tmp_path, content, words):
    (tmp_path / "model.h5").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_model(tmp_path / "model.h5")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_model(tmp_path / "none.h5")
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(InputError, match="no file"):
        read_model(tmp_path / "pipe.h5")
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(InputError, match="SavedModel"):
        read_model(tmp_path)


def zipped(path: Path, folder: Path) -> Path:
    """Write the perceptron as Keras 3 does."""
    description, weights = keras2.perceptron()
    with h5py.File(folder / "w", "w") as file:
        for name, layer in (("dense", "dense_1"), ("dense_1", "dense_2")):
            for number, array in enumerate(weights[layer].values()):
                file[f"layers/{name}/vars/{number}"] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.5.0"}')
        archive.writestr("config.json", json.dumps(description))
        archive.write(folder / "w", "model.weights.h5")
    (folder / "w").unlink()
    return path


def test_names_are_counted_by_class_in_keras_3(tmp_path):
    model, _, version = read_model(zipped(tmp_path / "model.keras", tmp_path))
    assert version == "3.5.0"
    assert [layer.weights["kernel"].shape for layer in model.layers[1:]] == [(4, 3), (3, 2)]


def test_a_zip_bomb_and_an_archive_without_weights_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.writestr("../../outside", "x")
        archive.writestr("model.weights.h5", bytes(2**26))
    with pytest.raises(InputError, match="compressed too far"):
        read_model(path)
    np.savez(tmp_path / "arrays.npz", x=np.ones(3))
    with pytest.raises(InputError, match=r"no metadata\.json"):
        read_model(tmp_path / "arrays.npz")


def old(folder: Path) -> Made:
    folder.mkdir(parents=True, exist_ok=True)
    keras2.save(folder / "model.h5", *keras2.perceptron())
    return folder / "model.h5", lambda: read_model(folder / "model.h5")


def new(folder: Path) -> Made:
    folder.mkdir(parents=True, exist_ok=True)
    path = zipped(folder / "model.keras", folder)
    return path, lambda: read_model(path)


def imported(folder: Path) -> Made:
    path, _ = old(folder)
    return path, lambda: from_keras(path)


@pytest.mark.parametrize("make", [old, new, pytest.param(imported, marks=pytest.mark.slow)])
def test_mutations_are_read_or_refused(tmp_path, make):
    assert faults_of(make, mutate, tmp_path / "x", COUNT) == []
