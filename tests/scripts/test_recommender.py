from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.figures import is_drawn
from helpers.scripts import assert_mistake

import torchdl
from torchdl import BatchLoader, InputError, MatrixFactorization, RatingModel, Supervised, Trainer, split_ratings
from torchdl.data import read_ratings
from torchdl.data.ratings import Ratings
from torchdl.files import PREPROCESSING
from torchdl.predict import load_predictor
from torchdl.predict.recommender import CATALOGUE
from torchdl.recipes.recommendation import errors, fit_means, predict_means
from torchdl.tasks import make_optimizer

MF = "train_recommender.py --dataset films --model mf --dim 3 --batch-size 64 --lr 0.05"


def low_rank(users: int = 40, items: int = 30, share: float = 0.6, seed: int = 0) -> Ratings:
    """Make ratings that biases and one product explain, up to a little noise; ids are not numbered from 0."""
    random = np.random.default_rng(seed)
    taste, kind = random.choice([-1.0, 1.0], users), random.choice([-1.0, 1.0], items)
    table = 3 + random.normal(0, 0.3, (users, 1)) + random.normal(0, 0.3, items) + taste[:, None] * kind
    table += random.normal(0, 0.1, table.shape)
    user, item = np.nonzero(random.random(table.shape) < share)
    rating = table[user, item].clip(0.5, 5).astype(np.float32)
    return Ratings(user * 2 + 10, item * 3 + 100, rating, random.integers(0, 999, len(user)), "low rank")


def write_films(folder: Path) -> Path:
    folder.mkdir(parents=True)
    found = low_rank()
    rows = zip(found.user, found.item, found.rating.round(3), found.time, strict=True)
    lines = ["userId,movieId,rating,timestamp", *(",".join(map(str, row)) for row in rows)]
    (folder / "ratings.csv").write_text("\n".join(lines) + "\n")
    titles = [f'{item},"Film $ {item}, The (1999)",Drama' for item in range(100, 190, 3)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *titles]) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train a factorisation for some steps; return the folder and what was printed."""
    folder = tmp_path_factory.mktemp("trained")
    write_films(folder / "films")
    done = run(f"{MF} --epochs 40 --evaluate-every 40 --name x", folder)
    assert (done.code, done.err) == (0, "")
    return folder, done


@pytest.fixture
def workplace(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


# the means


@pytest.mark.parametrize("damping", [0.0, 1e-3, 0.5, 3.0, 100.0])
def test_the_means_are_the_minimum_of_their_penalized_squared_errors(damping):
    random = np.random.default_rng(0)
    user, item = np.arange(400) % 40, np.concatenate([np.zeros(200, int), random.integers(1, 90, 200)])
    split = split_ratings(Ratings(user, item, random.random(400, np.float32) * 5, None, "some items are rated once"))
    pairs, rest = split.train.inputs.long().numpy() - 1, split.train.targets.double().numpy() - split.mean
    users, items = len(split.users), len(split.items)
    design = np.zeros((len(rest), users + items))
    design[np.arange(len(rest)), pairs[:, 0]] = design[np.arange(len(rest)), users + pairs[:, 1]] = 1
    penalty = damping**0.5 * np.eye(users + items)
    solved = np.linalg.lstsq(np.vstack([design, penalty]), np.append(rest, np.zeros(users + items)))[0]
    found = fit_means(split, damping)["user and item means"]
    predicted = predict_means(split.train.inputs, 0.0, found).numpy()
    np.testing.assert_allclose(predicted, design @ solved, atol=1e-9)
    if damping:
        np.testing.assert_allclose(torch.cat([part[1:] for part in found]), solved, atol=1e-9)
    assert [float(part[0]) for part in found] == [0, 0]


def test_equal_ratings_have_no_deviations():
    ratings = Ratings(np.arange(9) % 3, np.arange(9) % 2, np.full(9, 4, np.float32), None, "all alike")
    for deviations in fit_means(split_ratings(ratings)).values():
        assert not torch.cat(deviations).any()


def test_the_means_of_users_and_of_items_by_hand():
    ratings = Ratings(np.array([1, 1, 2, 2]), np.array([5, 6, 5, 5]), np.float32([1, 2, 4, 5]), np.arange(4), "x")
    split = split_ratings(
        Ratings(*(np.append(a, a[:1]) for a in (ratings.user, ratings.item, ratings.rating)), np.arange(5), "x"),
        0.2,
        True,
    )
    found = fit_means(split, damping=1.0)  # the mean of 1, 2, 4 and 5 is 3
    assert found["mean"][0].abs().max() == 0
    assert found["user means"][0].tolist() == pytest.approx([0, -3 / 3, 3 / 3])
    assert found["item means"][1].tolist() == pytest.approx([0, (-2 + 1 + 2) / 4, -1 / 2])
    assert predict_means(split.test.inputs, 3.0, found["user means"]).tolist() == pytest.approx([2.0])
    assert fit_means(split, damping=0.0)["user means"][0].tolist() == pytest.approx([0, -1.5, 1.5])
    with pytest.raises(InputError, match=r"damping.*-1"):
        fit_means(split, -1.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda u, i, m: MatrixFactorization(u, i, m, 3),
        lambda u, i, m: RatingModel(u, i, m, 4, 32),
        lambda u, i, m: RatingModel(u, i, m, 4, 32, 0.1, 3),
    ],
)
@pytest.mark.slow
def test_every_model_beats_the_means_on_ratings_of_low_rank(quick, build):
    split = split_ratings(low_rank())
    torch.manual_seed(0)
    model = build(len(split.users), len(split.items), split.mean)
    task = Supervised(model, torch.nn.functional.mse_loss, optimizer=lambda p: make_optimizer("adam", p, 0.02))
    history = Trainer(epochs=40, evaluate_every=40, device="cpu").fit(
        task, BatchLoader(split.train, 64, shuffle=True), BatchLoader(split.test, 500)
    )
    means = predict_means(split.test.inputs, split.mean, fit_means(split)["user and item means"])
    assert history[-1]["val/loss"] ** 0.5 < 0.5 < 0.9 < errors(means, split.test.targets)["RMSE"]


# the script


@pytest.mark.slow
def test_a_run_compares_the_model_with_means(trained):
    folder, done = trained
    path = folder / "runs" / "recommender" / "x"
    results = json.loads((path / "results.json").read_text())
    split = split_ratings(read_ratings(folder / "films"))
    low, high = split.range
    model, (pairs, true) = torchdl.load(path), split.test[:]
    with torch.no_grad():
        wrong = model(pairs).clamp(low, high).double() - true.double()
    row = results["errors"]["this model"]
    assert row["RMSE"] == pytest.approx(float(wrong.square().mean().sqrt()), rel=1e-5)
    assert row["MAE"] == pytest.approx(float(wrong.abs().mean()), rel=1e-5)
    assert row["RMSE"] < 0.5 < results["errors"]["user and item means"]["RMSE"]
    assert results["errors"]["mean"]["RMSE"] == pytest.approx(
        float((true.double() - split.mean).square().mean().sqrt())
    )
    assert results["ratings"] == {"train": len(split.train), "held out": len(split.test)}
    groups = results["errors by the item's training ratings"]["this model"]
    counts = [int(re.search(r"\((\d+) held out", name)[1]) for name in groups]
    squares = sum(n * error["RMSE"] ** 2 for n, error in zip(counts, groups.values(), strict=True))
    assert squares == pytest.approx(float(wrong.square().sum()), rel=1e-5)
    assert f"test data: drawn at random, {len(true):,} of {len(true) + len(split.train):,} ratings" in done.out
    for name in ("errors", "errors_by_count", "history"):
        assert is_drawn(path / "plots" / f"{name}.png")


@pytest.mark.slow
def test_recommended_are_the_titles_not_yet_rated_with_the_highest_ratings(run, trained, tmp_path):
    folder, _ = trained
    path = folder / "runs" / "recommender" / "x"
    ratings = read_ratings(folder / "films")
    split = split_ratings(ratings)
    user = int(split.users[4])
    left = [item for item in split.items.tolist() if item not in ratings.item[ratings.user == user]]
    assert 3 < len(left) < len(split.items)
    pairs = torch.tensor([[5, split.items.tolist().index(item) + 1] for item in left])
    with torch.no_grad():
        predicted = torchdl.load(path)(pairs)
    best = [left[k] for k in predicted.argsort(descending=True).tolist()]
    answers = load_predictor(path, "cpu").predict(str(user), 1000)
    assert answers.titles == tuple(f"Film $ {item}, The (1999)" for item in best)
    low, high = split.range
    assert answers.ratings.tolist() == pytest.approx(predicted.clamp(low, high).sort(descending=True).values.tolist())
    done = run(f"train_recommender.py --resume {path} --recommend {user} --n 3", tmp_path)
    lines = [f"{answers.ratings[k]:5.2f}  {answers.titles[k]}\n" for k in range(3)]
    assert (done.code, done.out, done.err) == (0, "".join(lines), "")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_stopped(run, workplace):
    options = f"{MF} --weight-decay 0.001 --schedule constant --evaluate-every 1"
    first = run(f"{options} --max-steps 4 --name cut", workplace)
    resumed = run("train_recommender.py --resume runs/recommender/cut --max-steps 17", workplace)
    whole = run(f"{options} --max-steps 17 --name whole", workplace)
    assert [d.err for d in (first, resumed, whole)] == ["", "", ""]
    path = workplace / "runs" / "recommender"
    states = [torchdl.load(path / name).state_dict() for name in ("cut", "whole")]
    assert all(torch.equal(tensor, states[1][key]) for key, tensor in states[0].items())
    results = [json.loads((path / name / "results.json").read_text())["errors"] for name in ("cut", "whole")]
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "name", "settings"),
    [
        ("--model course", "RatingModel", {"dim": 10, "hidden": 1024, "dropout": 0, "factors": 0}),
        ("--model network --hidden 8 --split time", "RatingModel", {"hidden": 8, "dropout": 0.4, "factors": 64}),
        ("--model bias", "MatrixFactorization", {"dim": 0}),
    ],
)
def test_every_model_is_built_with_its_own_settings(run, workplace, options, name, settings):
    done = run(f"train_recommender.py --dataset films/ratings.csv {options} --max-steps 2 --name y", workplace)
    assert (done.code, done.err) == (0, "")
    path = workplace / "runs" / "recommender" / "y"
    model = torchdl.load(path)
    assert type(model).__name__ == name
    assert {key: getattr(model, key) for key in settings} == settings
    learning = json.loads((path / "config.json").read_text())["config"]["learning"]
    is_course = "course" in options
    assert (learning["optimizer"], learning["lr"]) == (("momentum", 0.08) if is_course else ("adam", 0.01))
    assert ("the latest" in done.out) == ("time" in options)


@pytest.mark.slow
def test_own_columns_and_names_for_ids_do(run, tmp_path):
    lines = ["who,what,stars", *(f"person {k % 7},thing {k % 5},{k % 4 + 1}" for k in range(60))]
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    columns = "--user who --item what --rating stars"
    done = run(f"train_recommender.py --dataset own.csv {columns} --max-steps 2 --name x", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert load_predictor(tmp_path / "runs/recommender/x").settings.titles[0] == "thing 0"
    done = run("train_recommender.py --resume runs/recommender/x --recommend 'person 3'", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out.count("\n") == 0  # all five are rated


@pytest.mark.slow
def test_ids_are_texts_and_dates_are_times_from_training_to_recommending(run, tmp_path):
    rows = (f"{'0' * (k % 2)}7;0{k % 9};{k % 4},5;2024-01-{k % 28 + 1:02}T12:00:00Z" for k in range(60))
    (tmp_path / "own.csv").write_text("\n".join(["userId;movieId;rating;timestamp", *rows]) + "\n")
    (tmp_path / "movies.csv").write_text("movieId,title\n" + "".join(f"0{k},Book {k}\n" for k in range(9)))
    options = "--dataset own.csv --separator ';' --decimal , --split time --max-steps 2 --name x"
    done = run(f"train_recommender.py {options}", tmp_path)
    assert (done.code, done.err) == (0, "")
    settings = load_predictor(tmp_path / "runs/recommender/x").settings
    assert settings.users == ("07", "7")
    assert settings.titles == tuple(f"Book {k}" for k in range(9))
    assert "the latest 12 of 60 ratings" in done.out
    assert re.search(r"\d+ of 12 test pairs of a user and an item are in the training part, too", done.out)
    done = run("train_recommender.py --resume runs/recommender/x --recommend 07", tmp_path)
    assert (done.code, done.err) == (0, "")
    done = run("train_recommender.py --resume runs/recommender/x --max-steps 4", tmp_path)
    assert (done.code, done.err) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            "--dataset films/ratings.csv --separator ';'",
            "no column 'userId'.*--separator ,.*--user and --item and --rat",
        ),
        ("--csv films/ratings.csv", "--dataset here, not --csv"),
        ("films", "write --dataset films"),
        ("--dataset films --time when --split time", "'when'.* timestamp; choose one, such as --time "),
        ("--dataset nothing", "nothing.*ml-latest-small, ml-20m"),
        ("--dataset films --user who", "'who'"),
        ("--dataset films --model bias --dim 3", "--dim .*--model bias"),
        ("--dataset films --model mf --hidden 3", "--hidden .*--model mf"),
        ("--dataset films --test-share 1", r"\(0, 1\).* 1"),
        ("--recommend 10", "--recommend .*--resume"),
        ("--resume runs/recommender/x --recommend 11", "'11'.* 40"),
        ("--resume runs/recommender/x --recommend 10 --n 0", " 0"),
        ("--dataset films --damping -1", "damping.*-1"),
    ],
)
def test_a_mistake_is_one_sentence(run, workplace, options, sentence):
    assert_mistake(run, f"train_recommender.py {options}", workplace, sentence)


@pytest.mark.slow
def test_a_damaged_catalogue_or_another_runs_is_refused(workplace):
    path = workplace / "runs" / "recommender" / "x"
    whole = (path / CATALOGUE).read_bytes()
    for content in (b"", whole[:300], b"x" * 300):
        (path / CATALOGUE).write_bytes(content)
        with pytest.raises(InputError, match=r"catalogue\.npz"):
            load_predictor(path)
    (path / CATALOGUE).write_bytes(whole)
    torchdl.save(MatrixFactorization(3, 3), path)
    with pytest.raises(InputError, match="another model's"):
        load_predictor(path)


@pytest.mark.slow
def test_a_finished_run_of_before_gets_its_preprocessing_by_a_resume(run, workplace):
    path = workplace / "runs" / "recommender" / "x"
    before = (path / PREPROCESSING).read_bytes()
    for name in (PREPROCESSING, CATALOGUE):
        (path / name).unlink()
    assert_mistake(run, f"train_recommender.py --resume {path} --recommend 10", workplace, "resume the finished run")
    done = run(f"train_recommender.py --resume {path}", workplace)
    assert (done.code, done.err) == (0, "")
    assert (path / PREPROCESSING).read_bytes() == before
    assert len(load_predictor(path).predict(10)) > 0
