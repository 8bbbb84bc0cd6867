from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from torchdl import InputError, MatrixFactorization, RatingModel
from torchdl.files import PREPROCESSING
from torchdl.predict import RatedItems, Recommender, load_predictor
from torchdl.predict.recommender import CATALOGUE

USERS, ITEMS = 40, 30
IDS = tuple(range(100, 100 + 3 * ITEMS, 3))
TITLES = (*(f"Film {number} (1999)" for number in range(ITEMS - 2)), "Twice", "twice")
MODELS = [lambda: MatrixFactorization(USERS, ITEMS, 3.0, 4), lambda: RatingModel(USERS, ITEMS, 3.0, 3, 16, 0.5, 2)]


def recommender(build=MODELS[0], deviation: float = 1.0, range_: tuple[float, float] = (0.5, 5.0)) -> Recommender:
    """Return a recommender of a model with random weights; user number n, from 1, has rated the first n % 30 items."""
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for name, table in model.named_parameters():
            if name.startswith(("user_", "item_", "factorization")):
                table[1:] = torch.randn_like(table[1:]) * 0.7
    counts = np.arange(1, USERS + 1) % ITEMS
    rated = RatedItems(np.append(0, counts.cumsum()), np.concatenate([np.arange(1, n + 1) for n in counts]))
    settings = Recommender.Settings(tuple(range(10, 10 + USERS)), IDS, TITLES, range_, deviation)
    return Recommender(model, settings, "cpu", rated=rated)


def of_user(own: Recommender, user: int, items: torch.Tensor) -> torch.Tensor:
    return own.predictions(torch.stack([torch.full_like(items, user), items], 1))


@pytest.mark.parametrize("build", MODELS)
def test_a_copied_folder_answers_the_same_to_the_bit(tmp_path, build):
    own = recommender(build)
    own.save(tmp_path / "run")
    shutil.move(tmp_path / "run", tmp_path / "copy")
    loaded = load_predictor(tmp_path / "copy", "cpu")
    assert loaded.settings == own.settings
    for user in (12, "47", {100: 4, "Film 3 (1999)": 2.5}):
        answers, expected = loaded.predict(user, 4), own.predict(user, 4)
        assert answers.titles == expected.titles
        assert torch.equal(answers.ratings, expected.ratings)
    assert torch.equal(loaded.rate([(12, 103)]), own.rate([(12, 103)]))


def test_only_unrated_items_are_recommended_the_best_first():
    own = recommender()
    answers = own.predict(14, None)  # the fifth user
    assert sorted(answers.items) == list(IDS[5:])
    predicted = of_user(own, 5, torch.tensor([IDS.index(item) + 1 for item in answers.items]))
    assert torch.equal(predicted, predicted.sort(descending=True).values)
    assert torch.equal(answers.ratings, predicted.clamp(0.5, 5))
    assert answers.titles == tuple(TITLES[IDS.index(item)] for item in answers.items)
    assert len(own.predict(14, 3)) == 3
    assert list(own.predict(14).to_frame().columns) == ["predicted rating", "title", "item"]
    everything = RatedItems(own.rated.stops * 0, np.arange(1, ITEMS + 1))
    everything.stops[1:] = ITEMS
    assert len(Recommender(own.model, own.settings, "cpu", rated=everything).predict(10)) == 0


def test_pairs_are_rated_by_ids_and_titles():
    own = recommender()
    found = own.rate([(14, 100), ("15", "103"), (14, " film 3")])  # a title without its year will do
    with torch.no_grad():
        expected = own.model(torch.tensor([[5, 1], [6, 2], [5, 4]])).double().clamp(0.5, 5)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("build", MODELS)
def test_similar_items_have_the_nearest_vectors_and_enough_ratings(build):
    own = recommender(build)
    parts = [table[1:] for name, table in own.model.state_dict().items() if name.endswith("item_vectors.weight")]
    vectors = torch.cat(parts, 1)
    cosines = torch.cosine_similarity(vectors[4], vectors)
    rated = [i for i in range(ITEMS) if i != 4 and (own.rated.rated == i + 1).sum() >= 12]
    expected = sorted(rated, key=lambda i: -cosines[i])[:3]
    assert 3 < len(rated) < ITEMS - 1
    assert own.similar("Film 4", 3, least=12) == [
        (TITLES[i], pytest.approx(float(cosines[i]), abs=1e-5)) for i in expected
    ]
    assert own.similar(112, 3, 12) == own.similar("film 4 (1999)", 3, 12)
    with pytest.raises(InputError, match="no other item has 41 ratings"):
        own.similar(112, least=41)


# new users


def test_a_folded_in_user_is_the_ridge_regression_on_the_ratings():
    own, items = recommender(deviation=1.4), torch.tensor([3, 9, 4, 17, 21])
    ratings = torch.tensor([5.0, 1.0, 4.5, 2.0, 3.0], dtype=torch.float64)
    state = {name: table.double() for name, table in own.model.state_dict().items()}
    users = torch.cat([state["user_bias.weight"], state["user_vectors.weight"]], 1)[1:].numpy()
    mean, precision = users.mean(0), np.linalg.inv(np.cov(users.T, bias=True))
    design = torch.cat([torch.ones(5, 1), state["item_vectors.weight"][items]], 1).numpy()
    rest = (ratings - 3.0 - state["item_bias.weight"][items, 0]).numpy()
    noise = 1.4**2 / 2
    solved = np.linalg.solve(design.T @ design / noise + precision, design.T @ rest / noise + precision @ mean)
    tables = own.fold_in(items, ratings)
    found = torch.cat([tables["user_bias.weight"], tables["user_vectors.weight"]], 1)
    assert found.shape == (2, 5)
    assert not found[0].any()
    np.testing.assert_allclose(found[1].numpy(), solved, atol=1e-4)


@pytest.mark.parametrize("build", MODELS)
def test_a_known_user_who_is_folded_in_gets_about_the_same_predictions(build):
    own, items = recommender(build, deviation=0.1, range_=(-9.0, 9.0)), torch.arange(1, ITEMS + 1)
    for user in (3, 8, 22):
        trained = of_user(own, user, items)
        rated = dict(zip(IDS[:25], trained.tolist(), strict=False))
        answers = own.predict(rated, None)
        assert sorted(answers.items) == list(IDS[25:])
        expected = torch.tensor([trained[IDS.index(item)] for item in answers.items])
        wrong = (answers.ratings - expected).square().mean().sqrt()
        mean_user = of_user(own, 0, items)[25:]  # biases of the items alone
        assert wrong < 0.2 * (mean_user - trained[25:]).square().mean().sqrt()


def test_folding_in_changes_nothing_and_depends_on_the_ratings_alone():
    own = recommender(MODELS[1])
    own.model.train()
    before = copy.deepcopy(own.model.state_dict())
    rated = [(100, 4.5), ("Film 7 (1999)", 1), ("103", np.float32(3))]
    first = own.predict(rated, None)
    torch.rand(3)
    assert torch.equal(own.predict(dict(rated), None).ratings, first.ratings)
    assert own.predict(rated[:1], None).ratings[0] != first.ratings[0]
    assert own.model.training
    assert all(torch.equal(value, before[name]) for name, value in own.model.state_dict().items())
    assert all(parameter.grad is None for parameter in own.model.parameters())


def test_own_ratings_come_from_tables_too(tmp_path):
    own = recommender()
    expected = own.predict({100: 4.5, "Film 7 (1999)": 1}, None)
    (tmp_path / "a.csv").write_text("rating,item\n4.5,100\n1,film 7 (1999)\n")
    (tmp_path / "b.tsv").write_text("title\trating\tnote\nFilm 0 (1999)\t4.5\t\nFilm 7 (1999)\t1\tbad\n")
    (tmp_path / "c.csv").write_text("userId,movieId,rating\n1,100,4.5\n1,121,1.0\n")
    for path in (tmp_path / "a.csv", str(tmp_path / "b.tsv"), tmp_path / "c.csv"):
        answers = own.predict(path, None)
        assert (answers.items, answers.ratings.tolist()) == (expected.items, expected.ratings.tolist())


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        (7, "no user 7 among the 40 training users"),
        ("010", "no user '010'"),
        ({}, "no ratings"),
        ({"Film 3 (1998)": 4}, r"no item 'Film 3 \(1998\)'.* 'Film 3 \(1999\)'"),
        ({101: 4}, "no item '101'"),
        ({"TWICE": 4}, "several items .*184, 187"),
        ([(100, 4), ("Film 0 (1999)", 3)], "'Film 0 .* two ratings"),
        ({100: 6}, "from 0.5 to 5, .*not 6"),
        ({100: float("nan")}, "not nan"),
        ({100: "4"}, "not '4'"),
        ({100: True}, "not True"),
        ([(100, 4, 5)], "pairs"),
        (["ab"], "pairs"),
        ([3], "pairs"),
        (3.5, "3.5 is no user"),
        ("none.csv", "no file none.csv"),
        (Path("none"), "no file none"),
    ],
)
def test_a_wrong_user_is_refused_in_one_sentence(user, sentence):
    with pytest.raises(InputError, match=sentence):
        recommender().predict(user)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("item,stars\n100,4\n", "no column rating"),
        ("movie,rating\n100,4\n", "no column item or title or movieId"),
        ("item,rating\n100,4\n103,good\n", "'good' in row 3"),
        ("item,rating\n,4\n103,3\n", "row 2"),
        ("item,rating\n", "no rows"),
        ("item,rating\n100,40\n", "from 0.5 to 5"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(tmp_path, content, sentence):
    (tmp_path / "mine.csv").write_text(content)
    with pytest.raises(InputError, match=sentence):
        recommender().predict(tmp_path / "mine.csv")


def test_what_a_model_cannot_do_is_said():
    own = recommender()
    with pytest.raises(InputError, match="not 0"):
        own.predict(12, 0)
    with torch.no_grad():
        own.model.item_bias.weight.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        own.predict(12)
    with pytest.raises(InputError, match="not finite"):
        own.predict({100: 4})
    own.model = MatrixFactorization(USERS, ITEMS, 3.0, 0)  # biases alone
    with pytest.raises(InputError, match="no vectors of items"):
        own.similar(100)
    own.model = torch.nn.Linear(2, 1)
    with pytest.raises(InputError, match="no vectors of users"):
        own.predict({100: 4})


# files


def change(**settings):
    return lambda saved: saved | {"settings": saved["settings"] | settings}


@pytest.mark.parametrize(
    "changed",
    [
        change(users=[1, 2]),
        change(users=[1] * USERS),
        change(users=[*range(1, USERS), "x"]),
        change(users=[True] * USERS),
        change(titles=["a"]),
        change(range=[5, 1]),
        change(range=[float("nan"), 1]),
        change(range=[1]),
        change(deviation=-1),
        change(items=[None, *IDS[1:]]),
    ],
)
def test_settings_of_another_model_or_a_strangers_are_refused(tmp_path, changed):
    recommender().save(tmp_path)
    path = tmp_path / PREPROCESSING
    path.write_text(json.dumps(changed(json.loads(path.read_text()))))
    with pytest.raises(InputError, match=PREPROCESSING):
        load_predictor(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"stops": np.arange(41) * 1000},
        {"stops": -np.arange(41)},
        {"stops": np.array(5)},
        {"stops": np.arange(41) / 2},
        {"stops": np.empty(0, int)},
        {"rated": np.full(3, 99)},
        {"rated": np.full((5, 5), 1)},
        {"rated": np.array(["a"])},
    ],
    ids=lambda changed: f"{next(iter(changed))} {next(iter(changed.values())).dtype}",
)
def test_lists_of_rated_items_that_are_none_are_refused(tmp_path, changed):
    recommender().save(tmp_path)
    with np.load(tmp_path / CATALOGUE) as file:
        arrays = dict(file)
    np.savez(tmp_path / CATALOGUE, **{**arrays, "users": np.arange(3)})  # as older versions did
    assert len(load_predictor(tmp_path).predict(10)) == 10
    np.savez(tmp_path / CATALOGUE, **{**arrays, **changed})
    with pytest.raises(InputError, match=r"/catalogue.npz is damaged \(.*\): train again"):
        load_predictor(tmp_path)


def test_lists_of_rated_items_of_another_run_are_refused(tmp_path, monkeypatch):
    own = recommender()
    own.save(tmp_path)
    rated = np.full(own.rated.rated.shape, ITEMS + 1)
    for other in (RatedItems(np.array([0, 1]), np.array([1])), RatedItems(own.rated.stops, rated)):
        other.save(tmp_path / CATALOGUE)
        with pytest.raises(InputError, match=r"catalogue\.npz"):
            load_predictor(tmp_path)
    monkeypatch.setattr("torchdl.predict.recommender.MAX_CATALOGUE", 100)
    with pytest.raises(InputError, match=r"catalogue.npz .*more than 100"):
        load_predictor(tmp_path)
    (tmp_path / CATALOGUE).unlink()
    with pytest.raises(InputError, match=r"no .*catalogue\.npz"):
        load_predictor(tmp_path)
