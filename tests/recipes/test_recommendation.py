from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import torchdl
from torchdl import InputError, MatrixFactorization, Ratings, RatingSplit, Trainer, split_ratings
from torchdl.recipes.recommendation import (
    CATALOGUE,
    Catalogue,
    RatingLearning,
    evaluate_ratings,
    rating_training,
    recommend,
    save_catalogue,
)

ITEMS = 12


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    """Return ratings of 20 users, of which user number n has not rated item number n."""
    random = np.random.default_rng(0)
    user, item = (ids.ravel() for ids in np.meshgrid(np.arange(20), np.arange(ITEMS), indexing="ij"))
    rated = user != item
    rating = random.integers(1, 6, rated.sum()).astype(np.float32)
    return Ratings(user[rated] + 100, item[rated] + 1000, rating, None, "memory")


@pytest.fixture(scope="module")
def trained(ratings, one_thread) -> tuple[MatrixFactorization, RatingSplit]:
    split = split_ratings(ratings)
    torch.manual_seed(0)
    model = MatrixFactorization(len(split.users), len(split.items), split.mean, 2)
    Trainer(epochs=1, device="cpu").fit(*rating_training(model, split, RatingLearning(batch_size=64)))
    return model, split


def test_a_model_is_compared_with_means(trained, capsys):
    model, split = trained
    report = evaluate_ratings(model, split, device="cpu", more={"seconds": 1})
    errors, (pairs, true) = report.results["errors"], split.test[:]
    assert list(errors) == ["mean", "user means", "item means", "user and item means", "this model"]
    with torch.no_grad():
        wrong = model(pairs).clamp(1, 5).double() - true
    assert errors["this model"]["RMSE"] == pytest.approx(wrong.square().mean().sqrt().item(), rel=1e-5)
    assert errors["mean"]["MAE"] == pytest.approx((true.double() - split.mean).abs().mean().item(), rel=1e-5)
    assert report.results["clipped to"] == [1, 5]
    assert report.results["seconds"] == 1
    assert all(f"{row['RMSE']:.4f}" in report.summary for row in errors.values())
    assert set(report.figures) == {"errors", "errors_by_count"}
    assert not capsys.readouterr().out


@pytest.mark.parametrize("path", [str, Path])
def test_only_unrated_items_are_recommended(trained, ratings, tmp_path, path):
    model, split = trained
    titles = [f"Film {number}" for number in range(ITEMS)]
    torchdl.save(model, tmp_path)
    save_catalogue(path(tmp_path / CATALOGUE), split, ratings, titles)
    for number in (0, 7, 15):
        recommended = recommend(path(tmp_path), str(100 + number))
        assert [title for title, _ in recommended] == ([titles[number]] if number < ITEMS else [])
        assert all(1 <= rating <= 5 for _, rating in recommended)
    with pytest.raises(InputError, match="'7'"):
        recommend(path(tmp_path), "7")
    with pytest.raises(InputError, match=r"not 0"):
        recommend(path(tmp_path), "100", 0)
    with pytest.raises(InputError, match=CATALOGUE):
        recommend(path(tmp_path / "none"), "100")


def test_bad_settings_are_refused(trained):
    with pytest.raises(InputError, match=r"damping.*-1"):
        rating_training(*trained, RatingLearning(damping=-1))


def test_a_user_is_found_by_the_text_of_the_id(tmp_path):
    random = np.random.default_rng(0)
    users, items = np.array(["7", "07", "+7"]).repeat(8), np.tile([f"0{k}" for k in range(8)], 3)
    rated = Ratings(users, items, random.integers(1, 6, 24).astype(np.float32), None, "memory")
    ratings = Ratings(users[:-2], items[:-2], rated.rating[:-2], None, "memory")  # +7 has not rated 06 and 07
    split = split_ratings(ratings, 0.1)
    torchdl.save(MatrixFactorization(len(split.users), len(split.items), split.mean, 2), tmp_path)
    save_catalogue(tmp_path / CATALOGUE, split, ratings, [f"Book {item}" for item in np.unique(ratings.item)])
    assert {title for title, _ in recommend(tmp_path, " +7 ")} == {"Book 06", "Book 07"}
    assert recommend(tmp_path, "07") == recommend(tmp_path, "7") == recommend(tmp_path, 7) == []
    with pytest.raises(InputError, match="'007'"):
        recommend(tmp_path, "007")


def test_errors_without_the_pairs_that_are_in_training_are_reported():
    user, item = np.array([1, 1, 2, 2, 1, 2, 3]), np.array([1, 2, 1, 2, 1, 2, 1])
    ratings = Ratings(user, item, np.float32([1, 2, 3, 4, 5, 4, 2]), np.arange(7), "memory")
    split = split_ratings(ratings, 3 / 7, by_time=True)
    report = evaluate_ratings(MatrixFactorization(2, 2, split.mean, 2), split, device="cpu")
    assert report.results["held out pairs in training"] == 2
    assert "2 of 3 test pairs of a user and an item are in the training part, too" in report.summary
    without = report.results["without duplicates"]
    assert without["ratings"] == 1
    assert without["errors"]["mean"] == pytest.approx({"RMSE": 0.5, "MAE": 0.5})  # 2, where the mean is 2.5
    assert f"without them: RMSE {without['errors']['this model']['RMSE']:.4f}" in report.summary


@pytest.fixture(scope="module")
def run(trained, ratings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torchdl.save(trained[0], folder)
    save_catalogue(folder / CATALOGUE, trained[1], ratings, [f"Film {number}" for number in range(ITEMS)])
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"range": np.array([np.nan, 5])},
        {"range": np.array([5.0, 1.0])},
        {"range": np.array(["a", "b"])},
        {"range": np.array(3.0)},
        {"stops": np.arange(21) * 1000},
        {"stops": -np.arange(21)},
        {"stops": np.array(5)},
        {"stops": np.arange(21) / 2},
        {"stops": np.empty(0, int)},
        {"rated": np.full(3, 99)},
        {"rated": np.full((5, 5), 1)},
        {"users": np.zeros(20)},
        {"users": np.zeros(20, int)},
        {"users": np.array("a")},
        {"items": np.zeros(ITEMS, int)},
        {"titles": np.arange(ITEMS)},
        {"titles": np.array(["a"])},
    ],
    ids=lambda change: f"{next(iter(change))} {next(iter(change.values())).dtype}",
)
def test_a_catalogue_that_is_none_is_refused(run, tmp_path, change):
    with np.load(run / CATALOGUE) as file:
        arrays = dict(file)
    np.savez(tmp_path / CATALOGUE, **arrays)
    assert len(Catalogue.load(tmp_path / CATALOGUE).users) == 20
    np.savez(tmp_path / CATALOGUE, **{**arrays, **change})
    with pytest.raises(InputError, match=r"catalogue.npz is damaged \(.*\): train again"):
        Catalogue.load(tmp_path / CATALOGUE)


def test_a_catalogue_that_unpacks_to_too_much_is_refused(run, monkeypatch):
    monkeypatch.setattr("torchdl.recipes.recommendation.MAX_CATALOGUE", 1000)
    with pytest.raises(InputError, match=r"catalogue.npz .*more than 1,000"):
        Catalogue.load(run / CATALOGUE)


def test_a_model_that_predicts_nothing_finite_is_refused(run, trained, tmp_path):
    model = copy.deepcopy(trained[0])
    with torch.no_grad():
        model.item_bias.weight.fill_(torch.nan)
    torchdl.save(model, tmp_path)
    shutil.copy(run / CATALOGUE, tmp_path)
    with pytest.raises(InputError, match="not finite"):
        recommend(tmp_path, "100")
