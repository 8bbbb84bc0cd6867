from __future__ import annotations

import contextlib
import io
import json
import math
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import gaussian
from helpers.figures import grids_of
from helpers.image_folders import CLASSES, labelled, write_folder
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import torchdl
from torchdl import Autoencoder, ImageDataset, InputError, Trainer
from torchdl.cli.options import RunOptions
from torchdl.cli.run import Run
from torchdl.predict import ImageInput, ImageReconstructor
from torchdl.recipes.autoencoder import (
    Coding,
    autoencoder_training,
    denoising_error,
    encode,
    evaluate_autoencoder,
    fit_pca,
    image_reconstructor,
    nearest,
    summarize,
    usefulness,
)
from torchdl.recipes.image_classification import ImageOptions
from torchdl.tasks import AutoencoderTask

pytestmark = pytest.mark.usefixtures("quick")
PICTURES = ("reconstructions", "retrieval", "codes")


def network(shape: tuple[int, int, int] = (1, 12, 12), depth: int = 2, code_size: int = 18) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(shape, width=4, depth=depth, code_size=code_size)


def predictor(model: Autoencoder) -> ImageReconstructor:
    return ImageReconstructor(model, ImageReconstructor.Settings(ImageInput(*model.in_shape)), "cpu")


def train(
    out: Path, data: ImageDataset, test: ImageDataset, coding: Coding, model: Autoencoder | None = None, **options
):
    """Train in ``out/tests/x``, or resume there; return the run, the model, the history and the printed text."""
    resume = out / "tests" / "x" if options.pop("resume", False) else None
    run_options = RunOptions(out=out, name=options.pop("name", "x"), resume=resume, threads=1, keep_memory=False)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run = Run("tests", asdict(coding), run_options, Trainer(device="cpu", **options), data)
        model = model or network(data.image_shape)
        training = autoencoder_training(model, data, test, ImageOptions(), coding)
        reconstructor = image_reconstructor(model, data, ImageOptions("a folder"), "cpu")
        history = run.fit(*training, predictor=reconstructor)
        error = denoising_error(training, "cpu") if coding.noise else None
        run.keep(evaluate_autoencoder(reconstructor, training.task, data, test, error))
        run.close()
    return run, model, history, printed.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Train for two epochs with noise; return the result of ``train``, and the images."""
    data, test = labelled(20), labelled(9, seed=1)
    coding = Coding(10, 1e-2, noise=0.2, visualization_size=3)
    return (*train(tmp_path_factory.mktemp("runs"), data, test, coding, epochs=2), data, test)


def results_of(run: Run) -> dict:
    return json.loads((run.folder / "results.json").read_text())


def pixels(data: ImageDataset) -> np.ndarray:
    return data.images.flatten(1).double().numpy() / 255


# principal components


def truncated(train: np.ndarray, test: np.ndarray, components: int) -> np.ndarray:
    """Return each test row's mean squared error when projected on singular vectors of the centred training rows."""
    mean = train.mean(0)
    basis = np.linalg.svd(train - mean, full_matrices=False)[2][:components]
    kept = (test - mean) @ basis.T @ basis + mean
    return ((kept - test) ** 2).mean(1)


@pytest.mark.parametrize("components", [1, 5, 30])
def test_principal_components_are_the_singular_vectors_of_centred_images(components):
    data = labelled(20)
    pca, rows = fit_pca(data, components), pixels(data)
    _, values, vectors = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    assert pca.components_.shape == (components, 144)
    np.testing.assert_allclose(abs((pca.components_ * vectors[:components]).sum(1)), 1, atol=1e-2)
    np.testing.assert_allclose(pca.explained_variance_, values[:components] ** 2 / (len(rows) - 1), rtol=1e-3)
    flat = rows.astype(np.float32)
    errors = ((pca.inverse_transform(pca.transform(flat)) - flat) ** 2).mean(1)
    np.testing.assert_allclose(errors, truncated(rows, rows, components), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("count", "components", "expected"), [(1, 100, 3), (20, 500, 60), (60, 500, 144)])
def test_there_are_no_more_components_than_images_or_pixels(count, components, expected):
    assert fit_pca(labelled(count), components).components_.shape[0] == expected


def test_large_images_have_principal_components():
    data = ImageDataset((128 + 40 * gaussian(30, 3, 40, 40)).clamp(0, 255).to(torch.uint8))
    data.labels = torch.zeros(30, dtype=torch.int64)
    rows = pixels(data)
    pca = fit_pca(data, 4)
    errors = ((pca.inverse_transform(pca.transform(rows)) - rows) ** 2).mean()
    assert errors == pytest.approx(truncated(rows, rows, 4).mean(), rel=0.02)


def test_faint_images_have_principal_components():
    patterns = gaussian(400, 3) @ gaussian(3, 64, seed=1)
    data = ImageDataset((252 + 0.7 * patterns).round().clamp(250, 254).to(torch.uint8).view(400, 1, 8, 8))
    data.labels = torch.zeros(400, dtype=torch.int64)
    rows = pixels(data)
    basis = fit_pca(data, 10).components_.astype("float64")
    errors = (((rows - rows.mean(0)) @ (np.eye(64) - basis.T @ basis)) ** 2).mean()
    assert errors == pytest.approx(truncated(rows, rows, 10).mean(), rel=1e-5)


# codes


@pytest.mark.parametrize("count", [1, 3, 9])
def test_the_nearest_codes_equal_those_of_a_loop(count):
    codes, queries = gaussian(9, 4), gaussian(5, 4, seed=1)
    found = nearest(codes, queries, count)
    for query, row in zip(queries, found, strict=True):
        distances = [math.dist(query.tolist(), code.tolist()) for code in codes]
        assert row.tolist() == sorted(range(9), key=distances.__getitem__)[:count]


def test_a_large_common_mean_costs_the_nearest_codes_and_their_usefulness_nothing():
    codes, queries = (gaussian(60, 4) * 8).round(), (gaussian(30, 4, seed=1) * 8).round()
    labels, true = (codes[:, 0] > 0).long(), (queries[:, 0] > 0).long()
    mean = 2.0**18  # float32 has whole numbers up to 2 ** 24
    distances = torch.cdist(queries.double(), codes.double())
    chosen = nearest(codes + mean, queries + mean, 3)
    assert torch.equal(distances.gather(1, chosen), distances.topk(3, largest=False).values)
    plain = usefulness(codes, labels, queries, true, 2)
    assert usefulness(codes + mean, labels, queries + mean, true, 2) == plain


def test_there_are_no_more_neighbours_than_codes():
    assert nearest(gaussian(3, 4), gaussian(2, 4), 8).shape == (2, 3)


def test_a_code_is_nearest_to_itself():
    codes = gaussian(50, 4)
    assert nearest(codes, codes, 3)[:, 0].tolist() == list(range(50))


def clusters(count: int, seed: int, distance: float = 40.0) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(4 * count) % 4
    return gaussian(4 * count, 6, seed=seed) + distance * torch.eye(6)[labels], labels


def test_separated_clusters_are_perfectly_useful():
    reference, codes = clusters(20, 0), clusters(7, 1)
    assert usefulness(*reference, *codes, 4) == {"knn": 1.0, "nmi": pytest.approx(1.0)}


def test_codes_that_are_independent_of_labels_are_useless():
    (reference, labels), (codes, true) = clusters(60, 0, distance=0), clusters(40, 1, distance=0)
    found = usefulness(reference, labels, codes, true, 4)
    assert 0.05 < found["knn"] < 0.45
    assert found["nmi"] < 0.15


def test_knn_is_a_vote_of_ten_neighbours():
    (reference, labels), (codes, true) = clusters(15, 0, distance=2), clusters(10, 1, distance=2)
    correct = []
    for code, label in zip(codes, true, strict=True):
        distances = [math.dist(code.tolist(), other.tolist()) for other in reference]
        votes = [0] * 4
        for i in sorted(range(60), key=distances.__getitem__)[:10]:
            votes[labels[i]] += 1
        correct.append(votes.index(max(votes)) == label)
    expected = sum(correct) / 40
    assert 0.3 < expected < 1
    assert usefulness(reference, labels, codes, true, 4)["knn"] == pytest.approx(expected)


def test_fewer_codes_than_neighbours_are_enough():
    reference, codes = clusters(1, 0), clusters(2, 1)
    assert set(usefulness(*reference, *codes, 4)) == {"knn", "nmi"}


@pytest.mark.parametrize("count", [7, 60, 1000])
def test_encoding_returns_images_labels_codes_and_errors_in_order(count):
    data, model = labelled(20), network().train()
    coded = encode(predictor(model), data, count)
    chosen = sorted({int(i) for i in np.linspace(0, 59, min(count, 60))}) if count < 60 else list(range(60))
    images, labels = data.__getitems__(chosen)
    with torch.no_grad():
        codes = model.encode(images)
        errors = (model.decode(codes) - images).square().numpy().mean((1, 2, 3))
    assert torch.equal(coded.images, images)
    assert torch.equal(coded.labels, labels)
    torch.testing.assert_close(coded.codes, codes)
    np.testing.assert_allclose(coded.errors, errors, rtol=1e-5)
    assert model.training  # as before
    assert not coded.codes.requires_grad


def test_encoding_many_images_omits_none():
    data = ImageDataset(torch.arange(1201)[:, None, None, None].expand(-1, 1, 4, 4).remainder(256).to(torch.uint8))
    data.labels = torch.arange(1201)
    assert torch.equal(encode(predictor(network((1, 4, 4), 1)), data, 5000).labels, data.labels)


# a run


def test_the_error_equals_that_of_one_image_at_a_time(trained):
    run, model, _, printed, data, test = trained
    results = results_of(run)
    with torch.no_grad():
        squared = [(model(test[i][0][None]) - test[i][0]).square().double().mean().item() for i in range(len(test))]
    assert results["mse"] == pytest.approx(sum(squared) / len(squared), rel=1e-5)
    assert results["mse of pca"] == pytest.approx(truncated(pixels(data), pixels(test), 18).mean(), rel=1e-3)
    assert (results["images"], results["numbers a code"], results["numbers an image"]) == (27, 18, 144)
    assert results["parameters"] == sum(p.numel() for p in model.parameters())
    for name in ("autoencoder", "pca", "pixels"):
        assert results[name].keys() == {"knn", "nmi"}
        assert all(0 <= value <= 1 for value in results[name].values())
        assert re.search(rf"^{name} .*{results[name]['knn']:.1%} +{results[name]['nmi']:.3f}", printed, re.MULTILINE)
    assert summarize(results) in printed


def test_codes_components_and_pixels_are_compared_in_the_same_way(trained):
    run, model, *_, data, test = trained
    results, labels = results_of(run), (data.labels, test.labels)
    coded = [encode(predictor(model), images, 1000).codes for images in (data, test)]
    assert results["autoencoder"] == pytest.approx(usefulness(coded[0], labels[0], coded[1], labels[1], 3))
    rows = [pixels(images) for images in (data, test)]
    basis = np.linalg.svd(rows[0] - rows[0].mean(0), full_matrices=False)[2][:18]
    projected = [torch.from_numpy((row - rows[0].mean(0)) @ basis.T).float() for row in rows]
    assert results["pca"]["knn"] == usefulness(projected[0], labels[0], projected[1], labels[1], 3)["knn"]
    flat = [torch.from_numpy(row).float() for row in rows]
    assert results["pixels"]["knn"] == usefulness(flat[0], labels[0], flat[1], labels[1], 3)["knn"]


def test_the_error_before_and_after_denoising_is_in_the_results(trained):
    run, model, history, printed, _, test = trained
    results = results_of(run)
    task = AutoencoderTask(model, 0.2).eval()  # its step_info is an evaluation's: seed 0
    with torch.no_grad():
        expected = task.evaluate(test[:][0])["loss"].double().mean().item()
    assert results["noise"] == 0.2
    assert results["mse of noisy images"] == pytest.approx(0.04)
    assert results["mse of denoised images"] == pytest.approx(expected, rel=1e-5) == history[-1]["val/loss"]
    assert f"noise of 0.2: mse 0.04000 before, {expected:.5f} after" in printed


@pytest.mark.usefixtures("undrawn")
def test_a_run_without_noise_has_no_results_of_noise(tmp_path):
    run, *_, printed = train(tmp_path, labelled(20), labelled(5, seed=1), Coding(10), epochs=1)
    assert not [key for key in results_of(run) if "nois" in key]
    assert "noise of" not in printed


@pytest.mark.usefixtures("undrawn")
def test_with_noise_and_a_monitored_metric_all_results_are_of_the_saved_model(tmp_path):
    test = labelled(9, seed=1)
    run, model, history, _ = train(
        tmp_path, labelled(5), test, Coding(5, 1e-3, "constant", noise=0.3), epochs=3, monitor="val/loss", mode="max"
    )
    losses = [row["val/loss"] for row in history]
    assert max(losses) > losses[-1]  # the last epoch is not the saved one
    results = results_of(run)
    with torch.no_grad():
        clean = (model(test[:][0]) - test[:][0]).square().mean().item()
    assert results["mse"] == pytest.approx(clean, rel=1e-5)
    assert results["mse of denoised images"] == pytest.approx(max(losses), rel=1e-5)


@pytest.mark.parametrize("name", [*PICTURES, "history"])
def test_the_pictures_are_not_blank(trained, name):
    with Image.open(trained[0].folder / "plots" / f"{name}.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 50
        assert np.asarray(image.convert("L")).std() > 1


def test_reconstructions_are_beside_the_inputs_of_the_network(trained):
    run, model, *_, test = trained
    grids = [torch.from_numpy(grid) for grid in grids_of(run.folder / "plots" / "reconstructions.png", scale=2)]
    assert [grid.shape for grid in grids] == [(3 * 14 + 2, 3 * 14 + 2)] * 2
    examples = test.without_labels().spread(9)
    with torch.no_grad():
        task = AutoencoderTask(model, 0.2, examples=examples).eval()
        for shown, picture in zip(grids, task.preview().values(), strict=True):
            for i in (0, 4, 8):
                top, left = 2 + 14 * (i // 3), 2 + 14 * (i % 3)
                wanted = (picture[i, 0].clamp(0, 1) * 255).round()
                assert (shown[top : top + 12, left : left + 12].float() - wanted).abs().max() <= 1


def test_a_saved_run_reconstructs_test_images_as_its_evaluation_did(trained):
    run, *_, test = trained
    answers = torchdl.load_predictor(run.folder, "cpu").predict(test.images)
    assert float(answers.errors.double().mean()) == results_of(run)["mse"]


def test_retrieval_shows_each_query_beside_its_nearest_neighbours(trained):
    run, model, *_, data, test = trained
    asked, shown = (torch.from_numpy(grid) for grid in grids_of(run.folder / "plots" / "retrieval.png", scale=2))
    assert [asked.shape, shown.shape] == [(8 * 14 + 2, 14 + 2), (8 * 14 + 2, 8 * 14 + 2)]
    with torch.no_grad():
        codes, queries = (model.encode(images[:][0]) for images in (data, test))
    for row, number in enumerate(np.linspace(0, 26, 8).astype(int)):
        top = 2 + 14 * row
        assert torch.equal(asked[top : top + 12, 2:14], test.images[number, 0])
        order = (codes - queries[number]).square().sum(1).argsort()[:8]
        for column, neighbour in enumerate(order.tolist()):
            left = 2 + 14 * column
            assert torch.equal(shown[top : top + 12, left : left + 12], data.images[neighbour, 0])


def test_tensorboard_has_the_pictures_and_its_projector_the_codes(trained):
    run, model, *_, test = trained
    events = EventAccumulator(str(run.folder), size_guidance={"images": 0}).Reload()
    assert {"samples", *(f"plots/{name}" for name in PICTURES)} <= set(events.Tags()["images"])
    named = dict(re.findall(r'(\w+_path): "(.*?)"', (run.folder / "projector_config.pbtxt").read_text()))
    assert (run.folder / named["metadata_path"]).read_text().split() == [CLASSES[i] for i in test.labels]
    codes = torch.tensor(np.loadtxt(run.folder / named["tensor_path"]), dtype=torch.float32)
    torch.testing.assert_close(codes, encode(predictor(model), test, 27).codes, atol=1e-5, rtol=1e-4)


def test_training_lowers_the_error_and_leaves_the_saved_model(trained):
    run, model, history, *_ = trained
    assert history[1]["val/loss"] < history[0]["val/loss"]
    kept = torchdl.load(run.folder)
    assert not model.training
    assert all(torch.equal(tensor, kept.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    data, test, coding = labelled(20), labelled(5, seed=1), Coding(10, 1e-2, "constant", noise=0.1)
    whole = train(tmp_path / "whole", data, test, coding, max_steps=9)
    train(tmp_path / "cut", data, test, coding, max_steps=4)
    resumed = train(tmp_path / "cut", data, test, coding, max_steps=9, resume=True)
    assert resumed[2] == whole[2]
    assert all(torch.equal(t, resumed[1].state_dict()[name]) for name, t in whole[1].state_dict().items())
    assert results_of(resumed[0]) == results_of(whole[0])
    assert (resumed[0].folder / "projector_config.pbtxt").read_text().count("tensor_name") == 1


def test_a_dry_run_does_everything_and_keeps_nothing(tmp_path):
    run, _, history, printed = train(tmp_path, labelled(20), labelled(5), Coding(10), dry_run=True, name="")
    assert history[-1]["step"] == 2
    assert "dry run" in printed.splitlines()[-1]
    assert not run.folder.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "depth", "code_size"),
    [((1, 12, 12), 4, 1), ((3, 12, 12), 4, 2), ((3, 9, 15), 2, 20)],
    ids=["codes of one number", "colours and codes of two", "images that are not square"],
)
def test_images_and_codes_of_other_sizes_have_a_report(tmp_path, size, depth, code_size):
    data, test = labelled(20, size=size), labelled(8, seed=1, size=size)
    model = network(size, depth, code_size)
    run, *_ = train(tmp_path, data, test, Coding(20, visualization_size=2), model, epochs=2)
    results = results_of(run)
    assert results["numbers a code"] == code_size
    assert results["mse of pca"] == pytest.approx(truncated(pixels(data), pixels(test), code_size).mean(), rel=1e-3)
    assert all((run.folder / "plots" / f"{name}.png").is_file() for name in PICTURES)


@pytest.mark.slow
def test_one_test_image_per_class_is_enough(tmp_path):
    data, test = (ImageDataset(x.images, x.labels % 2, classes=CLASSES[:2]) for x in (labelled(4), labelled(1, seed=1)))
    test.images, test.labels = test.images[:2], test.labels[:2]
    run, *_ = train(tmp_path, data, test, Coding(12), epochs=1)
    assert results_of(run)["images"] == 2


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_images_is_encoded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = ImageOptions(str(write_folder(tmp_path / "pictures", size=(3, 12, 12))))
    data, test = options.load()
    run, *_ = train(tmp_path / "runs", data, test, Coding(10), epochs=1)
    assert results_of(run)["numbers an image"] == 3 * 144


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size.* 0"),
        ({"visualization_size": 0}, "visualization_size.* 0"),
        ({"visualization_size": 33}, "visualization_size.* 33"),
        ({"schedule": "falling"}, "falling.*cosine"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Coding(**settings)


@pytest.mark.parametrize(("settings", "message"), [({"lr": 0.0}, "learning rate.* 0"), ({"noise": -1.0}, "noise.* -1")])
def test_settings_that_the_task_refuses_leave_nothing_behind(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        train(tmp_path, labelled(5), labelled(2), Coding(5, **settings), epochs=1)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
