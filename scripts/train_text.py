"""Train a network that tells spam from ham, or any texts apart: read, number the words, train, see what it is worth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import _clone  # noqa: F401

from torchdl import TextCNN, TextLSTM, Trainer, Vocabulary
from torchdl.cli.console import say
from torchdl.cli.run import Run, RunOptions
from torchdl.cli.script import run_script
from torchdl.data import read_texts, read_vectors
from torchdl.data.files import find_file
from torchdl.errors import require
from torchdl.recipes.text_classification import TextClassifier, TextLearning, evaluate_texts, text_training
from torchdl.tasks.supervised import logits_for


@dataclass(frozen=True)
class Config:
    """Train an LSTM or a convolutional network to classify texts (lectures 54 to 59), or use it on new ones."""

    model: Literal["lstm", "cnn"] = "lstm"
    """Lecture 57's network or lecture 59's."""
    csv: Path | None = None
    """A CSV file with a header; the SMS spam collection of 5,572 messages if none is given."""
    text: str = ""
    """The column of the texts."""
    label: str = ""
    """The column of the classes."""
    encoding: str | None = None
    """How the file is encoded; guessed, and said, if not given."""
    skip_empty: bool = False
    """Leave texts of nothing but spaces out, and count them; else they are an error."""
    test_share: float = 0.33
    """Share of the texts that is held out, of each class alike, drawn by the seed."""
    words: int | None = 20_000
    """How many words to know, the most frequent ones of the training part."""
    least: int = 2
    """How often a word must be there to be known; 1 in the course."""
    unknown: bool = True
    """Give all words that are not known a vector of their own; the course's tokenizer drops them."""
    same_digits: bool = True
    """Count each digit as 0, so that numbers of the same length are one word; they differ in the course."""
    longest: int | None = None
    """Words of a text that are looked at, its first ones; all if not given."""
    embedding_dim: int = 32
    """Numbers a word; 20 in the course."""
    hidden: int = 32
    """Units of the LSTM; 15 in the course."""
    dropout: float = 0.4
    """Probability of dropping a word while training, and a number that the answer is made of; 0 in the course."""
    vectors: Path | None = None
    """Word vectors to begin with: a text file as GloVe's, a word and its numbers a line."""
    freeze: bool = False
    """Leave the given word vectors as they are."""
    predict: tuple[str, ...] = ()
    """Texts to classify by the finished run that --resume names; nothing is trained."""
    learning: TextLearning = field(default_factory=TextLearning)
    run: RunOptions = field(default_factory=lambda: RunOptions(threads=1))
    trainer: Trainer = field(default_factory=lambda: Trainer(epochs=10))


def main(config: Config) -> None:
    """Run the four steps, or classify texts by a finished run."""
    if config.predict:
        predict(config)
        return
    # 1. Get the texts, split them, and number the training part's words.
    own = config.csv is not None
    named = [bool(config.text), bool(config.label)]
    require(named == [own, own], "a --csv FILE needs --text COLUMN and --label COLUMN, and they it")
    require(config.vectors is not None or not config.freeze, "--freeze is for given word vectors: name --vectors FILE")
    path = config.csv if config.csv is not None else find_file("spam", config.run.data_root)
    text, label = (config.text, config.label) if own else ("v2", "v1")
    texts = read_texts(path, text, label, config.encoding, config.skip_empty)
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
    run.fit(*text_training(model, train, data, test_data, config.learning, config.trainer.seed))
    # 4. Compare it with TF-IDF.
    if run.is_main:
        classifier = TextClassifier(model.cpu(), vocabulary, train.classes, data.longest)
        classifier.save(run.folder)
        run.keep(evaluate_texts(classifier, train, test))
    run.close()


def predict(config: Config) -> None:
    """Classify new texts."""
    require(config.run.resume is not None, "--predict needs a finished run: name its folder with --resume")
    require(all(text.strip() for text in config.predict), "a text to --predict is empty: write one")
    classifier = TextClassifier.load(str(config.run.resume))
    for text, row in zip(config.predict, classifier.probabilities(config.predict), strict=True):
        unknown = classifier.unknown(text)
        note = f"  (words that it does not know: {', '.join(unknown)})" if unknown else ""
        note = note if classifier.vocabulary.tokenize(text) else "  (there is no word in it)"
        print(f"{classifier.classes[row.argmax()]} ({row.max():.2%}): {text}{note}")


if __name__ == "__main__":
    run_script(main, Config)
