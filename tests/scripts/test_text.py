"""train_text.py from its command line."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers.figures import is_drawn
from helpers.scripts import assert_mistake, files
from sklearn import metrics

import torchdl
from torchdl import Vocabulary
from torchdl.files import PREPROCESSING
from torchdl.predict import TextClassifier, load_as

pytestmark = pytest.mark.slow

SETTINGS = "--text message --label kind --epochs 10 --lr 0.02 --dropout 0 --batch-size 8 --seed 1 --evaluate-every 5"
SPAM = f"train_text.py --csv sms.csv {SETTINGS}"
THREE = f"train_text.py --csv three.csv {SETTINGS} --balanced"


def rows(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Make texts that their classes' own words tell apart, some of them longer than others."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for kind, count in counts.items():
        for _ in range(count):
            words = torch.randint(0, 30, (int(torch.randint(1, 12, (1,), generator=generator)),), generator=generator)
            made.append((kind, " ".join([*(f"w{word}" for word in words), f"{kind}, now! call 0{len(made)}"])))
    return made


def write(path: Path, made: list[tuple[str, str]], encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([("kind", "message"), *made])


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """Train on two classes and on three; return the folder and what each said."""
    folder = tmp_path_factory.mktemp("trained")
    write(folder / "sms.csv", rows({"häm": 90, "spam": 30}), "iso-8859-1")
    write(folder / "three.csv", rows({"sport": 60, "news": 30, "art": 10}))
    done = [run(f"{SPAM} --name two", folder), run(f"{THREE} --name three", folder)]
    assert [d.code for d in done] == [0, 0], done[0].err + done[1].err
    assert [d.err for d in done] == ["", ""]
    return folder, *done


@pytest.fixture
def workplace(trained, tmp_path):
    """Return a folder with both runs and the tables."""
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_scores_are_a_computation_by_hand(trained):
    folder = trained[0] / "runs" / "text" / "two"
    # the split again, from what the script's own pieces give
    texts = torchdl.data.read_texts(trained[0] / "sms.csv", "message", "kind")
    train, test = texts.split(0.33, 1)
    classifier = load_as(TextClassifier, folder, "cpu")
    assert classifier.settings.classes == ("häm", "spam")
    assert classifier.vocabulary.words == Vocabulary.learn(train.texts, 20_000, True, 2, same_digits=True).words
    spam = classifier.probabilities(test.texts)[:, 1].numpy()
    true, answers = test.labels.numpy(), spam > 0.5
    ours = results(folder)["scores"]["this model"]
    assert ours["accuracy"] == pytest.approx((answers == true).mean())
    assert ours["F1"] == pytest.approx(metrics.f1_score(true, answers))
    assert ours["MCC"] == pytest.approx(metrics.matthews_corrcoef(true, answers))
    assert ours["average precision"] == pytest.approx(metrics.average_precision_score(true, spam))
    assert ours["MCC"] > 0.9
    majority = results(folder)["scores"]["the most frequent class"]
    assert majority["accuracy"] == pytest.approx(1 - true.mean())
    assert (majority["F1"], majority["MCC"]) == (0, 0)
    assert results(folder)["texts"] == {"train": train.counts, "held out": test.counts}


def test_what_it_says_and_leaves(trained):
    folder, done, three = trained
    assert "120 texts from sms.csv, read as cp1252" in done.out
    assert re.search(r"of each class: häm 60, spam 20", done.out)
    for name, drawn in (("two", ["confusion", "precision_recall", "history"]), ("three", ["confusion", "history"])):
        plots = folder / "runs" / "text" / name / "plots"
        assert sorted(path.stem for path in plots.iterdir()) == sorted(drawn)
        assert all(is_drawn(path) for path in plots.iterdir())
    assert re.search("F1 and average precision .*all classes", three.out)
    nearest = done.out[done.out.index("nearest words") :].splitlines()[1:]
    said = {word: near.split(", ") for word, near in (line.strip().split(": ") for line in nearest if ": " in line)}
    classifier = load_as(TextClassifier, folder / "runs" / "text" / "two")
    assert {"häm", "spam"} <= said.keys()
    assert said["spam"] == [f"{word} {cosine:.2f}" for word, cosine in classifier.similar("spam", 5)]
    with (folder / "runs" / "text" / "two" / "words.csv").open(encoding="utf-8", newline="") as file:
        table = {row["input"]: row for row in csv.DictReader(file)}
    assert list(table) == list(classifier.word_embeddings().inputs)
    assert table["spam"]["nearest 5"] == classifier.similar("spam", 5)[-1][0]
    (labels,) = (folder / "runs" / "text" / "two").rglob("metadata.tsv")  # of TensorBoard's projector
    assert labels.read_text(encoding="utf-8").splitlines() == list(table)
    scores = results(folder / "runs" / "text" / "three")["scores"]
    assert set(scores["this model"]) == {"accuracy", "F1", "MCC", "average precision"}


def test_all_mistakes_are_saved_the_most_confident_first(trained):
    folder = trained[0] / "runs" / "text" / "three"
    with (folder / "mistakes.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    accuracy = results(folder)["scores"]["this model"]["accuracy"]
    test_texts = sum(results(folder)["texts"]["held out"].values())
    assert len(found) == round((1 - accuracy) * test_texts)
    shares = [float(row["probability"]) for row in found]
    assert shares == sorted(shares, reverse=True)
    assert all(row["class"] != row["answer"] for row in found)


@pytest.mark.parametrize("name", ["two", "three"])
def test_a_finished_run_classifies_new_texts_and_trains_nothing(run, workplace, name):
    (workplace / "sms.csv").unlink()  # it needs no data
    before = files(workplace)
    kinds = {"two": ["häm", "spam"], "three": ["sport", "news", "art"]}[name]
    texts = [f"{kind}, now! call 077" for kind in kinds]
    done = run(f"train_text.py --resume runs/text/{name} --predict {' '.join(map(repr, texts))} quux", workplace)
    assert (done.code, done.err) == (0, "")
    *lines, last = done.out.splitlines()
    for kind, text, line in zip(kinds, texts, lines, strict=True):
        assert re.fullmatch(rf"{kind} \(\d\d\.\d\d%\): {re.escape(text)}", line), line
    assert last.endswith("quux  (unknown words: quux)")
    assert files(workplace) == before


def test_the_texts_of_files_are_classified(run, workplace):
    (workplace / "new.txt").write_text("häm, now! call 1\r\n\r\nspam, now! call 2\r\n", encoding="utf-8")
    write(workplace / "new.csv", [("?", "spam, now!\r\ncall 3")])
    done = run("train_text.py --resume runs/text/two --predict new.txt new.csv 'häm, now! call 4'", workplace)
    assert (done.code, done.err) == (0, "")
    classes = [line.split(" (")[0] for line in done.out.splitlines() if "%)" in line]
    assert classes == ["häm", "spam", "spam", "häm"]
    assert "2 texts from new.txt" in done.out
    assert "unknown words: call" not in done.out


def test_a_run_of_before_goes_on(run, workplace):
    folder = workplace / "runs" / "text" / "two"
    record = json.loads((folder / "config.json").read_text())
    record["config"]["encoding"] = record["config"].pop("format")["encoding"] or None
    (folder / "config.json").write_text(json.dumps(record))
    before = (folder / PREPROCESSING).read_bytes()
    (folder / PREPROCESSING).unlink()
    done = run("train_text.py --resume runs/text/two --epochs 10", workplace)
    assert (done.code, done.err) == (0, "")
    assert (folder / PREPROCESSING).read_bytes() == before


def test_a_run_that_goes_on_ends_as_one_in_one_go(run, workplace):
    settings = f"{SPAM} --schedule constant"
    whole = run(f"{settings} --name whole --epochs 3", workplace)
    part = run(f"{settings} --name part --epochs 1", workplace)
    rest = run("train_text.py --resume runs/text/part --epochs 3", workplace)
    assert [whole.code, part.code, rest.code] == [0, 0, 0], whole.err + part.err + rest.err
    for name in ("weights.safetensors", PREPROCESSING, "results.json", "mistakes.csv"):
        first, second = ((workplace / "runs" / "text" / which / name).read_bytes() for which in ("whole", "part"))
        assert first == second, name


def test_given_vectors_are_said_used_and_kept_still(run, workplace):
    (workplace / "glove.txt").write_text("spam 1 2 3\nnow -1 0 1\nelse 0 0 0\n", encoding="utf-8")
    done = run(f"{SPAM} --name given --vectors glove.txt --freeze", workplace)
    assert done.code == 0, done.err
    assert re.search(r"2 of \d+ words have a vector in glove.txt", done.out)
    folder = workplace / "runs" / "text" / "given"
    classifier = load_as(TextClassifier, folder)
    assert classifier.model.embedding.weight[classifier.vocabulary.numbers["spam"]].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--csv sms.csv", "--csv.*--text.*--label"),
        ("--text a --label b", "--csv"),
        ("--text a", "--csv.*--label"),
        ("--csv sms.csv --text sms --label kind", "'sms'.* kind, message"),
        ("--csv none.csv --text a --label b", "none.csv"),
        ("--csv one.csv --text message --label kind", "one.csv .*class"),
        ("--csv gaps.csv --text message --label kind", r"1 empty .*row 3"),
        ("--csv rare.csv --text message --label kind", "'b'"),
        (f"--csv sms.csv {SETTINGS} --freeze", "--vectors FILE"),
        (f"--csv sms.csv {SETTINGS} --vectors none.txt", "none.txt"),
        (f"--csv sms.csv {SETTINGS} --words 0", " 0"),
        (f"--csv sms.csv {SETTINGS} --test-share 1", r"in \(0, 1\)"),
        ("--predict hello", "--predict.*--resume"),
        ("--resume runs/text/two --predict none.txt", "no file none.txt"),
        ("--resume runs/text/two --predict other.csv", "other.csv has no column 'message'.*sms.*--text"),
        ("--resume runs/text/two --predict empty.txt", "empty.txt has no texts"),
        ("--csv semicolons.csv --text message --label kind", "--separator"),
        ("--csv headless.csv --text message --label kind", "--no-header"),
        ("--resume runs/text/two --predict ' '", "--predict .*empty"),
        ("--resume runs/text/none --predict hello", "runs/text/none"),
        ("--resume runs/text/broken --predict hello", "runs/text/broken"),
        ("--resume runs/text/half --predict hello", "runs/text/half .*resume the finished run"),
    ],
)
def test_a_mistake_is_one_sentence(run, workplace, options, sentence):
    write(workplace / "one.csv", [("a", "x"), ("a", "y")])
    write(workplace / "gaps.csv", [("a", "x"), ("b", " "), ("b", "y")])
    write(workplace / "rare.csv", [*[("a", f"x {i}") for i in range(9)], ("b", "y")])
    (workplace / "other.csv").write_text("sms\nhello\n")
    (workplace / "empty.txt").write_text("\n")
    (workplace / "semicolons.csv").write_text("kind;message\na;x, y\nb;y, z, z\n")
    (workplace / "headless.csv").write_text("a,x\nb,y\na,z\na,x\n")
    for name in ("broken", "half"):
        shutil.copytree(workplace / "runs" / "text" / "two", workplace / "runs" / "text" / name)
    (workplace / "runs" / "text" / "broken" / PREPROCESSING).write_text("{}")
    (workplace / "runs" / "text" / "half" / PREPROCESSING).unlink()
    assert_mistake(run, f"train_text.py {options}", workplace, sentence)


def test_the_spam_collection_is_looked_for_by_name(run, tmp_path):
    (tmp_path / "data" / "csv").mkdir(parents=True)
    made = [("ham" if kind == "a" else "spam", text) for kind, text in rows({"a": 20, "b": 10})]
    with (tmp_path / "data" / "csv" / "spam.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("v1", "v2"), *made])
    done = run("train_text.py --data-root data --model cnn --epochs 1 --dry-run", tmp_path)
    assert done.code == 0, done.err
    assert "30 texts from data/csv/spam.csv" in done.out
    assert not (tmp_path / "runs").exists()
