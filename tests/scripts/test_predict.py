"""Ask trained runs, on what users have; each run is copied away from its data first."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from helpers.scripts import assert_mistake
from PIL import Image

import torchdl
from torchdl.training.folder import taken

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classifier(run, tmp_path_factory):
    """Train a classifier of digits; return a folder with its copy ``digits`` and some pictures."""
    folder = tmp_path_factory.mktemp("classifier")
    command = "train_lenet.py --dataset mnist_5k --max-steps 60 --width 8 --hidden 64 --name x"
    done = run(command, folder)
    assert done.code == 0, done.err
    shutil.move(folder / "runs" / "lenet" / "x", folder / "digits")
    test = torchdl.load_images("mnist_5k", "test")
    (folder / "pictures").mkdir()
    for number in range(3):
        Image.fromarray(test.images[number, 0].numpy()).save(folder / "pictures" / f"{number}.png")
    return folder


def test_pictures_are_classified_as_the_training_script_did(classifier, run):
    done = run("predict.py digits pictures --out answers.csv --top 2", classifier)
    assert (done.code, done.err) == (0, "")
    with (classifier / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"] for row in rows] == [f"pictures/{number}.png" for number in range(3)]
    assert float(rows[0]["confidence"]) == float(rows[0][f"probability of {rows[0]['class']}"])
    # the training's own evaluation, by the same predictor
    test = torchdl.load_images("mnist_5k", "test")
    answers = torchdl.load_predictor(classifier / "digits", "cpu").predict(test)
    accuracy = float((answers.probabilities.argmax(1) == test.labels).double().mean())
    assert accuracy == json.loads((classifier / "digits" / "results.json").read_text())["accuracy"]
    assert answers.labels[:3] == [row["class"] for row in rows]
    done = run("predict.py digits pictures/0.png pictures/1.png --out answers.npy", classifier)
    assert np.load(classifier / "answers.npy").shape == (2, 10)
    done = run("predict.py digits pictures/2.png --out answers.json", classifier)
    assert json.loads((classifier / "answers.json").read_text())[0]["class"] == answers.labels[2]
    done = run("predict.py digits pictures/2.png", classifier)
    assert done.out.split()[-2:-1] == [answers.labels[2]]


@pytest.fixture(scope="module")
def texts(run, tmp_path_factory):
    """Train a classifier of texts; return a folder with its copy ``mails``."""
    folder = tmp_path_factory.mktemp("texts")
    mails = [
        f"{kind},{words} {number % 5}" for number in range(20) for kind, words in (("ham", "see you"), ("spam", "buy"))
    ]
    (folder / "mails.csv").write_text("\n".join(["kind,mail", *mails]) + "\n")
    command = "train_text.py --csv mails.csv --text mail --label kind --epochs 8 --lr 0.05 --dropout 0 --name x"
    done = run(command, folder)
    assert done.code == 0, done.err
    shutil.move(folder / "runs" / "text" / "x", folder / "spam")
    return folder


def test_texts_and_files_of_texts_are_classified(texts, run):
    (texts / "new.txt").write_text("buy buy\n\nsee you today\n")
    done = run("predict.py spam new.txt 'see you' --out answers.csv", texts)
    assert (done.code, done.err) == (0, "")
    with (texts / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"], row["class"]) for row in rows] == [
        ("buy buy", "spam"),
        ("see you today", "ham"),
        ("see you", "ham"),
    ]
    assert [row["unknown words"] for row in rows] == ["", "today", ""]
    done = run("predict.py spam mails.csv --out answers.npy", texts)
    assert np.load(texts / "answers.npy").shape == (40, 2)
    done = run("predict.py spam mails.csv --text kind", texts)
    assert done.out.splitlines()[-1].split()[0] == "spam"
    done = run("predict.py spam --similar BUY --n 2", texts)
    similar = torchdl.load_predictor(texts / "spam", "cpu").similar("buy", 2)
    assert [line.split()[0] for line in done.out.splitlines()] == ["word", *(word for word, _ in similar)]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("spam", "write some"),
        ("spam ' '", "empty"),
        ("spam hello --n 3", "--n is for --similar"),
        ("spam hello --similar buy", "--similar needs no inputs"),
        ("spam none.txt", "no file none.txt"),
        ("spam blank.txt", "blank.txt has no texts"),
        ("spam mails.csv --text sms", "no column 'sms'.*kind, mail.*--text mail"),
        ("spam hello --out answers.png", r"must end in \.csv or \.json or \.npy"),
    ],
)
def test_a_mistake_about_texts_is_one_sentence(texts, run, command, sentence):
    (texts / "blank.txt").write_text("\n \n")
    assert_mistake(run, f"predict.py {command}", texts, sentence)


@pytest.fixture(scope="module")
def films(run, tmp_path_factory):
    """Train a recommender; return a folder with its copy ``films`` and a new user's ratings."""
    folder = tmp_path_factory.mktemp("films")
    rows = [f"{user},{item},{1 + (user * item) % 5}" for user in range(1, 9) for item in range(9) if user != item]
    (folder / "data").mkdir()
    (folder / "data" / "ratings.csv").write_text("\n".join(["userId,movieId,rating", *rows]) + "\n")
    titles = "".join(f"{item},Film {item}\n" for item in range(9))
    (folder / "data" / "movies.csv").write_text("movieId,title\n" + titles)
    done = run("train_recommender.py --dataset data --model mf --dim 2 --max-steps 30 --name x", folder)
    assert done.code == 0, done.err
    shutil.move(folder / "runs" / "recommender" / "x", folder / "films")
    shutil.rmtree(folder / "data")
    (folder / "mine.csv").write_text("item,rating\nFilm 2,5\n7,1\n")
    return folder


def test_titles_are_recommended_to_known_and_to_new_users(films, run):
    done = run("predict.py films --user 3", films)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].split()[-3:] == ["Film", "3", "3"]  # the only one that user 3 has not rated
    done = run("predict.py films --ratings mine.csv --n 4 --out answers.csv", films)
    assert (done.code, done.err) == (0, "")
    with (films / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = torchdl.load_predictor(films / "films", "cpu").predict({2: 5, 7: 1}, 4)
    assert [row["title"] for row in rows] == list(expected.titles)
    assert [float(row["predicted rating"]) for row in rows] == pytest.approx(expected.ratings.tolist())
    assert not {"Film 2", "Film 7"} & {row["title"] for row in rows}
    done = run("predict.py films --similar 'film 3' --n 2 --least 1", films)
    assert (done.code, done.err) == (0, "")
    similar = torchdl.load_predictor(films / "films", "cpu").similar("Film 3", 2, least=1)
    assert [line.split()[:-1] for line in done.out.splitlines()[1:]] == [title.split() for title, _ in similar]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("films", "--user ID, --ratings FILE or --similar TITLE"),
        ("films 3", "--user ID, --ratings FILE or --similar TITLE"),
        ("films --user 3 --ratings mine.csv", "--user ID, --ratings FILE or --similar TITLE"),
        ("films --user 3 --similar 'Film 3'", "and nothing else"),
        ("films --similar 'Film 3'", "no other item has 10 ratings: choose a smaller number, such as --least 1"),
        ("films --user 77", "no user '77'"),
        ("films --user 3 --n 0", "not 0"),
        ("films --user 3 --top 2", "--top is for runs of the kind image classifier or"),
        ("films --ratings none.csv", "no file none.csv"),
        ("films --ratings other.csv", "no item 'Film 22'"),
        ("films --user 3 --out answers.png", r"must end in \.csv or \.json or \.npy"),
    ],
)
def test_a_mistake_about_users_is_one_sentence(films, run, command, sentence):
    (films / "other.csv").write_text("item,rating\nFilm 22,5\n")
    assert_mistake(run, f"predict.py {command}", films, sentence)


def test_a_model_that_comes_with_torchdl_needs_no_run(classifier, run):
    done = run("predict.py pretrained:lenet-mnist pictures --out shipped.csv", classifier)
    assert (done.code, done.err) == (0, "")
    with (classifier / "shipped.csv").open(newline="") as file:
        found = [row["class"] for row in csv.DictReader(file)]
    assert found == [str(label) for label in torchdl.load_images("mnist_5k", "test").labels[:3].tolist()]


def test_a_run_that_is_still_being_trained_answers_and_says_so(classifier, run):
    command = "predict.py digits pictures/0.png"
    finished = run(command, classifier)
    with taken(classifier / "digits"):
        done = run(command, classifier)
    said = "digits is being trained at this moment: its model is that of the latest checkpoint\n"
    assert (done.code, done.out) == (0, said + finished.out)


def test_a_run_that_was_stopped_answers_and_says_so(classifier, run):
    others = shutil.ignore_patterns("plots", "results.json")
    shutil.copytree(classifier / "digits", classifier / "stopped", ignore=others)
    (classifier / "stopped" / "config.json").write_text('{"config": {"trainer": {"epochs": 9}}, "command": "x.py"}')
    (classifier / "stopped" / "metrics.csv").write_text("epoch,step,train/loss\n1,4,0.5\n2,8,0.4\n")
    done = run("predict.py stopped pictures/0.png", classifier)
    assert done.out.startswith("stopped is not finished: its model is that of epoch 2 of 9\n")


def test_answers_are_saved_in_a_new_folder(classifier, run):
    done = run("predict.py digits pictures --out new/deep/answers.npy", classifier)
    assert (done.code, done.err) == (0, "")
    assert np.load(classifier / "new" / "deep" / "answers.npy").shape == (3, 10)


MISTAKES = {
    "digits": "name pictures",
    "digits missing.png": "no file missing.png$",
    "digits https://example.org/3.png": "no file https:/example.org/3.png: save the picture first",
    "digits ''": "an empty text names no picture",
    "digits text.png": "text.png",
    "digits pictures/0.png text.png": "text.png .*; repair it, or leave it out of the 2 pictures",
    "digits empty": "no images in empty",
    "digits --top 0 pictures": "--top must be 1 or more",
    "digits pictures --out answers.xlsx": "answers.xlsx must end in",
    "digits pictures --out answers.png": "must end in .csv or .json or .npy",
    "digits pictures --text mail": "--text is for runs of the kind text classifier",
    "digits pictures --missing fill": "--missing is for .*tabular predictor, .*image classifier",
    "digits pictures --separator ;": "--separator is for .*tabular predictor",
    "nowhere pictures": "no folder nowhere",
    "pretrained:resnet pictures": "no model 'resnet' comes with torchdl: choose among",
    "pictures pictures": "not the folder of a run",
    "old pictures": "resume the finished run",
    "begun pictures": "no model yet",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence(classifier, run, command):
    (classifier / "text.png").write_text("no picture")
    (classifier / "empty").mkdir(exist_ok=True)
    for name, missing in (("old", "preprocessing.json"), ("begun", "weights.safetensors")):
        shutil.copytree(classifier / "digits", classifier / name, dirs_exist_ok=True)
        (classifier / name / missing).unlink()
    assert_mistake(run, f"predict.py {command}", classifier, MISTAKES[command])
