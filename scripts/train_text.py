"""Train a text classifier, of spam for example: get the texts, build the model, train, compare it with TF-IDF."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # torchdl of this clone, installed or not

from torchdl import TextCNN, TextLSTM, Trainer, Vocabulary
from torchdl.cli.main import run_script
from torchdl.cli.options import RunOptions
from torchdl.cli.printing import say
from torchdl.cli.run import Run
from torchdl.data import read_texts, read_vectors
from torchdl.data.course_files import find_file
from torchdl.data.delimited_files import TableFormat
from torchdl.errors import InputError, require
from torchdl.predict import TextClassifier, load_as
from torchdl.recipes.text_classification import TextLearning, evaluate_texts, text_training
from torchdl.tasks.supervised import logits_for


@dataclass(frozen=True)
class Config:
    """Train an LSTM or a convolutional network to classify texts (lectures 54 to 59), or classify new texts with it."""

    model: Literal["lstm", "cnn"] = "lstm"
    """The network of lecture 57 (lstm) or 59 (cnn)."""
    csv: Path | None = None
    """A text file with a table; the SMS spam collection of 5,572 messages if not given."""
    text: str = ""
    """The column of the texts."""
    label: str = ""
    """The column of the classes."""
    format: TableFormat = field(default_factory=TableFormat)
    skip_empty: bool = False
    """Skip texts that are empty or only spaces, and count them; otherwise they are an error."""
    test_share: float = 0.33
    """Share of the texts for testing, the same for each class, drawn at random by the seed."""
    words: int | None = 20_000
    """Maximum number of words to know: the most frequent ones of the training texts."""
    least: int = 2
    """Minimum number of times that a known word occurs; 1 in the course."""
    unknown: bool = True
    """Map all unknown words to a vector of their own; the course's tokenizer drops them."""
    same_digits: bool = True
    """Replace each digit by 0, so that numbers of the same length are the same word; not in the course."""
    longest: int | None = None
    """Maximum number of words per text, from its start; all if not given."""
    embedding_dim: int = 32
    """Length of a word vector; 20 in the course."""
    hidden: int = 32
    """Number of units of the LSTM; 15 in the course."""
    dropout: float = 0.4
    """Dropout probability of words, and of the inputs of the last layer; 0 in the course."""
    vectors: Path | None = None
    """Initial word vectors: a text file like GloVe's, with a word and its numbers per line."""
    freeze: bool = False
    """Do not train the given word vectors."""
    predict: tuple[str, ...] = ()
    """Texts to classify with a finished run (--resume), without training; or files: one text per line, or tables."""
    learning: TextLearning = field(default_factory=TextLearning)
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=10))


def main(config: Config) -> None:
    """Get the texts, build the model, train, look; or classify texts with a finished run."""
    if config.predict:
        predict(config)
        return
    # 1. Get the texts, split them, and number the words of the training texts.
    own_file = config.csv is not None
    named = [bool(config.text), bool(config.label)]
    require(named == [own_file, own_file], "--csv FILE needs --text COLUMN and --label COLUMN, and they need --csv")
    require(config.vectors is not None or not config.freeze, "--freeze needs word vectors: name --vectors FILE")
    path = config.csv if config.csv is not None else find_file("spam", config.run.data_root)
    text, label = (config.text, config.label) if own_file else ("v2", "v1")
    texts = read_texts(path, text, label, skip_empty=config.skip_empty, format=config.format)
    train, test = texts.split(config.test_share, config.trainer.seed)
    vocabulary = Vocabulary.learn(
        train.texts, config.words, config.unknown, config.least, same_digits=config.same_digits
    )
    data, test_data = (part.numbered(vocabulary, config.longest) for part in (train, test))
    run = Run("text", config, config.run, config.trainer, data, test_data)
    # 2. Build the model.
    outputs = logits_for(len(texts.classes))
    given = None
    if config.vectors is not None:
        given, found = read_vectors(config.vectors, vocabulary, config.trainer.seed)
        say(f"{found:,} of {len(vocabulary):,} words have a vector in {config.vectors}")
    dim = config.embedding_dim if given is None else given.shape[1]
    model = (
        TextLSTM(len(vocabulary), outputs, dim, config.hidden, config.dropout)
        if config.model == "lstm"
        else TextCNN(len(vocabulary), outputs, dim, dropout=config.dropout)
    )
    if given is not None:
        model.embedding.set_(given, config.freeze)
    # 3. Train it.
    counts = ", ".join(f"{name} {count:,}" for name, count in train.counts.items())
    run.say(f"{len(vocabulary):,} words; training texts of each class: {counts}")
    settings = TextClassifier.Settings(vocabulary.settings, train.classes, config.longest, text, config.format)
    classifier = TextClassifier(model, settings, config.trainer.device)
    training = text_training(model, train, data, test_data, config.learning, config.trainer.seed)
    run.fit(*training, predictor=classifier)
    # 4. Look at it beside TF-IDF.
    if run.is_main:
        run.keep(evaluate_texts(classifier, train, test))
    run.close()


def predict(config: Config) -> None:
    """Classify texts, or those of files, with a finished run, and print the classes; predict.py does so, too."""
    if config.run.resume is None:
        raise InputError("--predict needs a finished run: name its folder with --resume")
    require(all(text.strip() for text in config.predict), "a text to --predict is empty: write one")
    classifier = load_as(TextClassifier, config.run.resume)
    given = [Path(text) if os.path.isfile(text) else text for text in config.predict]
    answers = classifier.predict(given, config.text, config.format)
    for note in answers.notes:
        say(note)
    rows = zip(
        answers.inputs, answers.labels, answers.probabilities.amax(1), answers.unknown, answers.wordless, strict=True
    )
    for text, label, probability, unknown, wordless in rows:
        note = "  (no words)" if wordless else f"  (unknown words: {', '.join(unknown)})" if unknown else ""
        print(f"{label} ({probability:.2%}): {text}{note}")


if __name__ == "__main__":
    run_script(main, Config)
