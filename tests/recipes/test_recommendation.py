from __future__ import annotations

import numpy as np
import pytest
import torch

from torchdl import InputError, MatrixFactorization, Ratings, RatingSplit, Trainer, split_ratings
from torchdl.predict import Recommender, load_predictor
from torchdl.recipes.recommendation import RatingLearning, evaluate_ratings, rating_training, recommender

ITEMS = 12
TITLES = [f"Film {number}" for number in range(ITEMS)]


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    """Return ratings of 20 users, of which user number n has not rated item number n."""
    random = np.random.default_rng(0)
    user, item = (ids.ravel() for ids in np.meshgrid(np.arange(20), np.arange(ITEMS), indexing="ij"))
    rated = user != item
    rating = random.integers(1, 6, rated.sum()).astype(np.float32)
    return Ratings(user[rated] + 100, item[rated] + 1000, rating, None, "memory")


@pytest.fixture(scope="module")
def trained(ratings, one_thread) -> tuple[Recommender, RatingSplit]:
    split = split_ratings(ratings)
    torch.manual_seed(0)
    model = MatrixFactorization(len(split.users), len(split.items), split.mean, 2)
    Trainer(epochs=1, device="cpu").fit(*rating_training(model, split, RatingLearning(batch_size=64)))
    return recommender(model, split, ratings, TITLES, device="cpu"), split


def test_a_model_is_compared_with_means(trained, capsys):
    own, split = trained
    report = evaluate_ratings(own, split, more={"seconds": 1})
    errors, (pairs, true) = report.results["errors"], split.test[:]
    assert list(errors) == ["mean", "user means", "item means", "user and item means", "this model"]
    with torch.no_grad():
        wrong = own.model(pairs).clamp(1, 5).double() - true
    assert errors["this model"]["RMSE"] == pytest.approx(wrong.square().mean().sqrt().item(), rel=1e-5)
    assert errors["mean"]["MAE"] == pytest.approx((true.double() - split.mean).abs().mean().item(), rel=1e-5)
    assert report.results["clipped to"] == [1, 5]
    assert report.results["seconds"] == 1
    assert all(f"{row['RMSE']:.4f}" in report.summary for row in errors.values())
    assert set(report.figures) == {"errors", "errors_by_count"}
    assert not capsys.readouterr().out


def test_only_unrated_items_are_recommended(trained, tmp_path):
    trained[0].save(tmp_path)
    loaded = load_predictor(tmp_path, "cpu")
    for number in (0, 7, 15):  # in the test part, too
        answers = loaded.predict(str(100 + number))
        assert answers.titles == ((TITLES[number],) if number < ITEMS else ())
        assert all(1 <= rating <= 5 for rating in answers.ratings)


def test_a_saved_recommender_has_the_errors_of_its_evaluation(trained, tmp_path):
    own, split = trained
    own.save(tmp_path)
    pairs, true = split.test[:]
    ids = [(split.users[user - 1], split.items[item - 1]) for user, item in pairs.tolist()]
    wrong = load_predictor(tmp_path, "cpu").rate(ids) - true
    measured = evaluate_ratings(own, split).results["errors"]["this model"]
    assert measured["RMSE"] == float(wrong.square().mean().sqrt())


def test_bad_settings_are_refused(trained):
    with pytest.raises(InputError, match=r"damping.*-1"):
        rating_training(trained[0].model, trained[1], RatingLearning(damping=-1))


def test_a_user_is_found_by_the_text_of_the_id(tmp_path):
    random = np.random.default_rng(0)
    users, items = np.array(["7", "07", "+7"]).repeat(8), np.tile([f"0{k}" for k in range(8)], 3)
    rated = Ratings(users, items, random.integers(1, 6, 24).astype(np.float32), None, "memory")
    ratings = Ratings(users[:-2], items[:-2], rated.rating[:-2], None, "memory")  # +7 has not rated 06 and 07
    split = split_ratings(ratings, 0.1)
    model = MatrixFactorization(len(split.users), len(split.items), split.mean, 2)
    recommender(model, split, ratings, [f"Book {item}" for item in np.unique(ratings.item)]).save(tmp_path)
    loaded = load_predictor(tmp_path)
    assert set(loaded.predict(" +7 ").titles) == {"Book 06", "Book 07"}
    assert [len(loaded.predict(user)) for user in ("07", "7", 7)] == [0, 0, 0]
    with pytest.raises(InputError, match="'007'"):
        loaded.predict("007")


def test_errors_without_the_pairs_that_are_in_training_are_reported():
    user, item = np.array([1, 1, 2, 2, 1, 2, 3]), np.array([1, 2, 1, 2, 1, 2, 1])
    ratings = Ratings(user, item, np.float32([1, 2, 3, 4, 5, 4, 2]), np.arange(7), "memory")
    split = split_ratings(ratings, 3 / 7, by_time=True)
    own = recommender(MatrixFactorization(2, 2, split.mean, 2), split, ratings, ["A", "B"], device="cpu")
    report = evaluate_ratings(own, split)
    assert report.results["held out pairs in training"] == 2
    assert "2 of 3 test pairs of a user and an item are in the training part, too" in report.summary
    without = report.results["without duplicates"]
    assert without["ratings"] == 1
    assert without["errors"]["mean"] == pytest.approx({"RMSE": 0.5, "MAE": 0.5})  # 2, where the mean is 2.5
    assert f"without them: RMSE {without['errors']['this model']['RMSE']:.4f}" in report.summary
