"""Words as numbers, texts from files, and batches of them."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings, strategies as st

from torchdl import BatchLoader, InputError, TextDataset, Vocabulary
from torchdl.data import Texts, pad, read_texts, read_vectors, tokenize
from torchdl.data.delimited_files import TableFormat
from torchdl.data.text import read_lines
from torchdl.data.vocabulary import FILTERS, UNKNOWN

SENTENCES = ["I like eggs and ham.", "I love chocolate and bunnies.", "I hate onions."]  # lecture 56's
TEXTS = st.lists(st.text(max_size=30), max_size=6)


# words


@pytest.mark.slow
@given(TEXTS, st.integers(1, 5), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=30)
def test_words_are_numbered_as_keras_does(keras, texts, most, unknown, lower):
    legacy = pytest.importorskip("keras.src.legacy.preprocessing.text")
    texts = [*texts, "a word"]  # without any there is nothing to learn, which Keras does not mind
    oov = UNKNOWN if unknown else None
    # Keras' num_words counts padding, and the word for the others
    theirs = legacy.Tokenizer(num_words=most + 1 + unknown, lower=lower, oov_token=oov)
    theirs.fit_on_texts([text.replace("\r\n", " ") for text in texts])  # ours takes Windows' line breaks for spaces
    ours = Vocabulary.learn(texts, most, unknown, lower=lower)
    new = [*texts, "a new WORD, Ünïcode", ""]
    assert [ours.encode(text) for text in new] == theirs.texts_to_sequences([text.replace("\r\n", " ") for text in new])


def test_the_lectures_sentences():
    vocabulary = Vocabulary.learn(SENTENCES)
    assert vocabulary.words[:3] == ("i", "and", "like")
    assert [vocabulary.encode(s) for s in SENTENCES] == [[1, 3, 4, 2, 5], [1, 6, 7, 2, 8], [1, 9, 10]]
    assert vocabulary.encode("What is THAT") == []
    assert Vocabulary.learn(SENTENCES, unknown=True).encode("I like that") == [2, 4, 1]
    assert Vocabulary.learn(SENTENCES, most=2).words == ("i", "and")
    assert Vocabulary.learn(SENTENCES, least=2).words == ("i", "and")


@given(st.text())
def test_a_words_text_is_found_again(text):
    words = tokenize(text)
    assert all(word and not set(word) & set(FILTERS + " ") for word in words)
    if words:
        vocabulary = Vocabulary.learn([text])
        assert vocabulary.decode(vocabulary.encode(text)) == " ".join(words)
        assert sorted(vocabulary.numbers.values()) == list(range(1, len(set(words)) + 1))
        assert vocabulary.decode([0, 0, *vocabulary.encode(text), 0]) == " ".join(words)


@given(TEXTS, st.booleans(), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_a_vocabulary_comes_back_from_its_file(tmp_path_factory, texts, unknown, lower, same_digits):
    path = tmp_path_factory.mktemp("v") / "vocabulary.json"
    made = Vocabulary.learn([*texts, "word 17"], unknown=unknown, lower=lower, same_digits=same_digits, filters="!")
    made.save(path)
    again = Vocabulary.load(path)
    assert vars(again) == vars(made)
    assert [again.encode(text) for text in texts] == [made.encode(text) for text in texts]


def test_digits_count_as_0_if_asked():
    vocabulary = Vocabulary.learn(["call 09061701461 or 150p"], same_digits=True)
    assert vocabulary.words == ("call", "00000000000", "or", "000p")
    assert vocabulary.encode("CALL 12345678901!") == [1, 2]
    assert Vocabulary.learn(["call 1"]).encode("call 2") == [1]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"words": "abc", "lower": true, "filters": "", "same_digits": false}',
     '{"words": [1], "lower": true, "filters": "", "same_digits": false}', "\x00"],
)  # fmt: skip
def test_a_damaged_vocabulary_is_one_sentence(tmp_path, content):
    path = tmp_path / "vocabulary.json"
    path.write_text(content)
    with pytest.raises(InputError):
        Vocabulary.load(path)
    with pytest.raises(InputError, match="No such file"):
        Vocabulary.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Vocabulary(["a", "a"]), "every word"),
        (lambda: Vocabulary([""]), "non-empty"),
        (lambda: Vocabulary.learn(["", "!!"]), "no word"),
        (lambda: Vocabulary.learn(["a"], most=0), "most.*0"),
        (lambda: Vocabulary.learn(["a"], least=0), "least.*0"),
        (lambda: Vocabulary.learn(["a b"], least=2), "no word"),
    ],
)
def test_what_is_no_vocabulary_is_refused(make, named):
    with pytest.raises(InputError, match=named):
        make()


# padding


@pytest.mark.slow
@given(
    st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=5),
    st.one_of(st.none(), st.integers(1, 8)),
    st.sampled_from(["pre", "post"]),
    st.sampled_from(["pre", "post"]),
)
@settings(deadline=None)
def test_padding_is_that_of_keras(keras, sequences, length, padding, truncating):
    theirs = keras.utils.pad_sequences(sequences, length, padding=padding, truncating=truncating)
    found = pad(sequences, length, padding, truncating)
    assert found.dtype == torch.int64
    assert found.tolist() == theirs.tolist()


def test_padding_cuts_what_is_too_long_on_either_side():
    assert pad([[1, 2, 3]], 2).tolist() == [[2, 3]]
    assert pad([[1, 2, 3]], 2, truncating="post").tolist() == [[1, 2]]
    assert pad([[1]], 3).tolist() == [[0, 0, 1]]
    assert pad([[1]], 3, padding="post").tolist() == [[1, 0, 0]]
    assert pad([[1, 2]], 0).shape == (1, 0)
    with pytest.raises(InputError, match="pre or post"):
        pad([[1]], 3, padding="left")
    with pytest.raises(InputError, match=r"length.*-1"):
        pad([[1]], -1)


# texts in memory


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda values: pandas.Series(values, index=[7, 8, 9])])
def test_texts_and_labels_may_be_lists_arrays_or_columns(kind):
    texts = Texts(kind(["see you", "buy now", "bye"]), kind([0, 1, 0]), ["ham", "spam"])
    assert (texts.texts, texts.counts) == (("see you", "buy now", "bye"), {"ham": 2, "spam": 1})
    assert texts[[2, 0]].texts == texts[torch.tensor([2, 0])].texts == ("bye", "see you")
    assert texts[np.array([True, False, True])].labels.tolist() == [0, 0]
    data = TextDataset(kind(["a b", "b", "a"]), kind([0, 1, 0]), Vocabulary(["a", "b"]))
    assert [part.tolist() for part in data[:]] == [[[1, 2], [2, 0], [1, 0]], [0, 1, 0]]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: TextDataset("ab", torch.tensor([0, 1]), Vocabulary(["a"])), "not one: put it in a list"),
        (lambda: Vocabulary.learn("a b"), "not one: put it in a list"),
        (lambda: Vocabulary.learn(["a", None]), "text number 1 is None"),
        (lambda: TextDataset(["a", float("nan")], torch.tensor([0, 1]), Vocabulary(["a"])), "text number 1 is nan"),
        (lambda: Texts(("a", 3), torch.tensor([0, 1]), ("x", "y")), "text number 1 is 3"),
        (lambda: Texts(("a", "b"), torch.tensor([0.0, 1.0]), ("x", "y")), "labels must be integers"),
    ],
)
def test_texts_that_are_none_are_refused(make, named):
    with pytest.raises(InputError, match=named):
        make()


# batches


def numbered(lengths: list[int]) -> TextDataset:
    """Make texts of so many words, whose labels are their places."""
    vocabulary = Vocabulary(["w", *(f"w{i}" for i in range(len(lengths)))])
    texts = [" ".join([f"w{place}"] * length) for place, length in enumerate(lengths)]
    return TextDataset(texts, torch.arange(len(lengths)), vocabulary)


def test_a_batch_is_padded_to_its_own_longest_text():
    data = numbered([3, 0, 1, 5])
    words, labels = data.__getitems__([2, 0])
    assert words.tolist() == [[4, 0, 0], [2, 2, 2]]
    assert labels.tolist() == [2, 0]
    assert data.__getitems__(torch.tensor([1]))[0].tolist() == [[0]]  # a text without words is padding alone
    assert [item.tolist() for item in data[3]] == [[5] * 5, 3]
    assert data[1:3][0].tolist() == [[0], [4]]
    assert TextDataset(["a b c"], torch.tensor([0]), Vocabulary(["a", "b", "c"]), longest=2)[0][0].tolist() == [1, 2]
    assert TextDataset(["x"], torch.tensor([0]), Vocabulary(["a"]))[0][0].tolist() == [0]


def test_a_fingerprint_tells_texts_and_labels_apart():
    one, two, three = numbered([3, 1]), numbered([1, 3]), numbered([3, 1])
    assert one.fingerprint() == three.fingerprint() != two.fingerprint()
    three.labels[0] = 7
    assert one.fingerprint() != three.fingerprint()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=300), st.integers(1, 5), st.booleans(), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_by_length_each_text_comes_once_an_epoch_and_always_in_the_same_order(lengths, size, shuffle, ranks):
    data = numbered(lengths)

    def epoch(rank: int = 0, of: int = 1, start: int = 0) -> list[list[int]]:
        loader = BatchLoader(data, size, shuffle, seed=1, by_length=True)
        loader.shard(rank, of)
        return [batch[1].tolist()[: span.size] for batch, span in loader.batches(3, start)]

    whole = epoch()
    assert sorted(i for batch in whole for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == size for batch in whole[:-1])
    assert epoch(start=len(whole) // 2) == whole[len(whole) // 2 :]
    parts = [epoch(rank, ranks) for rank in range(ranks)]
    assert sorted(i for part in parts for batch in part for i in batch) == list(range(len(lengths)))


def test_by_length_little_is_padded_and_the_order_is_another_one_each_epoch():
    lengths = torch.randint(1, 80, (2000,), generator=torch.Generator().manual_seed(0))
    data = numbered(lengths.tolist())

    def padded(by_length: bool) -> float:
        loader = BatchLoader(data, 20, shuffle=True, by_length=by_length)
        return sum(words.numel() for words, _ in loader) / int(lengths.sum())

    assert padded(True) < 1.05 < 1.7 < padded(False)
    loader = BatchLoader(data, 20, shuffle=True, by_length=True)
    first, second = ([batch[1].tolist() for batch, _ in loader.batches(epoch)] for epoch in (0, 1))
    assert first != second
    means = [float(lengths[batch].float().mean()) for batch in first]
    assert means != sorted(means)  # a network does not first see all that is short
    with pytest.raises(InputError, match="lengths"):
        BatchLoader(torch.utils.data.TensorDataset(torch.zeros(3)), 1, by_length=True)


# files


def write(path, rows, encoding="utf-8", header="kind,message"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding=encoding)
    return path


@pytest.mark.parametrize(
    ("encoding", "said"), [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("iso-8859-1", "cp1252")]
)
def test_any_encoding_is_read_and_said(tmp_path, encoding, said):
    path = write(tmp_path / "t.csv", ["ham,schön", 'spam,"win £1, now"', "ham,NA", "ham,007"], encoding)
    found = read_texts(path, "message", "kind")
    assert found.texts == ("schön", "win £1, now", "NA", "007")  # as they stand
    assert found.classes == ("ham", "spam")  # the frequent one first
    assert found.labels.tolist() == [0, 1, 0, 0]
    assert found.counts == {"ham": 3, "spam": 1}
    assert f"read as {said}" in found.origin


def test_one_bad_byte_does_not_change_all_other_texts(tmp_path):
    rows = ["ham,schön".encode(), "spam,win €1".encode(), "ham,über".encode(), b"ham,caf\xe9"]
    (tmp_path / "t.csv").write_bytes(b"\n".join([b"kind,message", *rows]))
    found = read_texts(tmp_path / "t.csv", "message", "kind")
    assert found.texts == ("schön", "win €1", "über", "caf\ufffd")
    assert "0xe9, byte 8 of line 5" in found.origin


def test_quotes_and_the_euro_of_windows_are_read(tmp_path):
    path = write(tmp_path / "t.csv", ["ham,don’t", "spam,€5"], "cp1252")
    found = read_texts(path, "message", "kind")
    assert found.texts == ("don’t", "€5")
    assert "line 2" in found.origin


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_a_line_break_separates_words(tmp_path, line_break):
    content = f'kind,message\nham,"hello{line_break}world"\nspam,"win now{line_break}hello"\n'
    (tmp_path / "t.csv").write_bytes(content.encode())
    texts = read_texts(tmp_path / "t.csv", "message", "kind").texts
    assert Vocabulary.learn(texts).words == ("hello", "world", "win", "now")
    assert texts[0] == "hello\nworld"


def test_a_line_break_of_windows_separates_words_in_any_text():
    assert tokenize("hello\r\nworld") == tokenize("hello\r\nworld", filters="!") == ["hello", "world"]
    vocabulary = Vocabulary(["hello", "world"])
    assert TextDataset(["hello\r\nworld"], torch.tensor([0]), vocabulary)[0][0].tolist() == [1, 2]


def test_other_ways_to_write_a_table_are_read(tmp_path):
    (tmp_path / "t.tsv").write_text("ham\tsee, you\nspam\tbuy; now\n")
    written = TableFormat(header=False, names=("kind", "message"), separator="tab")
    assert read_texts(tmp_path / "t.tsv", "message", "kind", format=written).texts == ("see, you", "buy; now")
    (tmp_path / "t.csv").write_text("#made up\nkind;message\nham;see, you\nspam;buy\n")
    written = TableFormat(separator=";", comment="#")
    assert read_texts(tmp_path / "t.csv", "message", "kind", format=written).texts == ("see, you", "buy")


def test_a_first_row_of_texts_is_not_taken_for_names(tmp_path):
    (tmp_path / "t.csv").write_text("ham,see you\nspam,buy now\nham,thank you\nham,bye\n")
    with pytest.raises(InputError, match="header"):
        read_texts(tmp_path / "t.csv", "see you", "ham")


def test_an_encoding_can_be_named(tmp_path):
    path = write(tmp_path / "t.csv", ["a,źle", "b,dobrze"], "cp1250")
    assert read_texts(path, "message", "kind", "cp1250").texts[0] == "źle"
    with pytest.raises(InputError, match=r"t.csv.*utf-8"):
        read_texts(path, "message", "kind", "utf-8")
    with pytest.raises(InputError, match="'nonsense'"):
        read_texts(path, "message", "kind", "nonsense")


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([], "no rows below its header"),
        (["ham,a", "spam, ", "ham,b"], "1 empty .*row 3"),
        (["ham,a", "", "spam, ", "ham,b", "", ""], "1 empty .*row 4"),
        (["ham,a", "spam", "ham,b"], "1 empty .*row 3"),
        (["ham,a", ",b"], "'kind' in row 3"),
        (["ham,a", "ham,b"], "ham"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path, rows, named):
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(InputError, match=named):
        read_texts(path, "message", "kind")


def test_empty_texts_are_left_out_if_asked_and_counted(tmp_path):
    path = write(tmp_path / "t.csv", ["ham,a", "spam,", "ham,  ", "spam,b", "ham,  "])
    found = read_texts(path, "message", "kind", skip_empty=True)
    assert found.texts == ("a", "b")
    assert "3 empty ones were left out" in found.origin


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("kind,text\nham,hello there, world\nspam,a,b\n", "row 2, more cells than the 2 names .*quotes"),
        ("kind,text\nham,hello\nspam,hello there, world\n", "row 3, more cells than the 2 names .*quotes"),
        ("kind,text,text\nham,a,b\nspam,b,c\n", "columns named text"),
    ],
)
def test_a_text_is_never_cut_at_its_comma(tmp_path, content, named):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InputError, match=named):
        read_texts(tmp_path / "x.csv", "text", "kind")


def test_what_is_not_there_is_said(tmp_path):
    path = write(tmp_path / "t.csv", ["ham,a"])
    with pytest.raises(InputError, match=r"'sms'.*kind, message"):
        read_texts(path, "sms", "kind")
    with pytest.raises(InputError, match=r"different columns.*'kind'"):
        read_texts(path, "kind", "kind")
    with pytest.raises(InputError, match=r"other.csv"):
        read_texts(tmp_path / "other.csv", "message", "kind")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty.csv"):
        read_texts(tmp_path / "empty.csv", "message", "kind")
    (tmp_path / "bytes.csv").write_bytes(b'kind,message\nham,"open')
    with pytest.raises(InputError, match=r"bytes.csv"):
        read_texts(tmp_path / "bytes.csv", "message", "kind")


def test_lines_are_texts(tmp_path):
    (tmp_path / "t.txt").write_bytes("schön\r\n\r\n win €1 \rnow".encode())
    assert read_lines(tmp_path / "t.txt") == (["schön", "win €1", "now"], ())
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress("schön\n".encode("utf-16")))
    assert read_lines(tmp_path / "t.txt.gz") == (["schön"], ())
    (tmp_path / "t.txt").write_bytes(b"caf\xe9\n")
    lines, (note,) = read_lines(tmp_path / "t.txt")
    assert lines == ["café"]
    assert "0xe9, byte 4 of line 1" in note
    with pytest.raises(InputError, match=r"t.txt is not utf-8"):
        read_lines(tmp_path / "t.txt", "utf-8")
    (tmp_path / "t.gz").write_bytes(gzip.compress(b"win")[:-4])
    with pytest.raises(InputError, match=r"t.gz is damaged"):
        read_lines(tmp_path / "t.gz")
    with pytest.raises(InputError, match=r"no file .*none.txt"):
        read_lines(tmp_path / "none.txt")


def labelled(counts: dict[str, int]) -> Texts:
    labels = torch.tensor([number for number, count in enumerate(counts.values()) for _ in range(count)])
    return Texts(tuple(f"t{i}" for i in range(len(labels))), labels, tuple(counts))


def test_a_split_is_the_seeds_and_has_each_class_alike():
    texts = labelled({"ham": 80, "spam": 20})
    train, test = texts.split(0.3, seed=5)
    assert (train.counts, test.counts) == ({"ham": 56, "spam": 14}, {"ham": 24, "spam": 6})
    assert sorted(train.texts + test.texts) == sorted(texts.texts)
    assert [texts.labels[texts.texts.index(t)] for t in test.texts] == test.labels.tolist()
    assert texts.split(0.3, seed=5)[1].texts == test.texts != texts.split(0.3, seed=6)[1].texts


def test_what_cannot_be_split_is_said():
    with pytest.raises(InputError, match=r"'spam' \(1\)"):
        labelled({"ham": 5, "spam": 1}).split()
    with pytest.raises(InputError, match="4 texts"):
        labelled({"a": 2, "b": 2}).split(0.1)
    with pytest.raises(InputError, match=r"share.*1.0"):
        labelled({"a": 2, "b": 2}).split(1.0)


def test_labels_are_for_one_logit_of_two_classes_and_numbers_of_more():
    vocabulary = Vocabulary(["t0"])
    two = labelled({"a": 2, "b": 1}).numbered(vocabulary)
    assert (two.labels.dtype, two.labels.tolist()) == (torch.float32, [[0.0], [0.0], [1.0]])
    three = labelled({"a": 1, "b": 1, "c": 1}).numbered(vocabulary)
    assert (three.labels.dtype, three.labels.tolist()) == (torch.int64, [0, 1, 2])


# word vectors


def test_vectors_are_those_of_the_file_and_others_are_drawn(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("i 1 2 3\nother 9 9 9\nlike -1 0.5 1e-2\ni 7 7 7\nw o r d 1 1 1\n", encoding="utf-8")
    vectors, found = read_vectors(path, Vocabulary(["like", "new", "i"]), seed=2)
    assert found == 2
    assert vectors[[0, 2]].tolist() == torch.tensor([[-1, 0.5, 1e-2], [1, 2, 3]]).tolist()
    assert 0 < float(vectors[1].abs().max()) <= 0.05
    assert torch.equal(read_vectors(path, Vocabulary(["like", "new", "i"]), seed=2)[0], vectors)
    path.write_text("2 3\ni 1 2 3\nlike 4 5 6\n", encoding="utf-8")  # as word2vec writes it
    assert read_vectors(path, Vocabulary(["i"]))[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffi 1 2 3\nlike 4 5 6\n",
        "\ufeff2 3\ni 1 2 3\nlike 4 5 6\n",
        "2 3 \r\ni 1 2 3 \r\nlike 4 5 6 \r\n",
        "i\t1\t2\t3\nlike\t4\t5\t6\n\n",
        "i  1 2 3\nlike  4 5 6\n",
        "i 1 2 3\nnan 7 7 7\n5 7 7 7\nnew\u00a0york 7 7 7\nat nan 7 7 7\nlike 4 5 6",
    ],
    ids=["bom", "bom and word2vec", "crlf", "tabs", "blanks", "words like numbers"],
)
def test_no_word_of_a_file_of_vectors_is_lost(tmp_path, content):
    path = tmp_path / "glove.txt"
    path.write_bytes(content.encode())
    vectors, found = read_vectors(path, Vocabulary(["i", "like"]))
    assert (vectors.tolist(), found) == ([[1, 2, 3], [4, 5, 6]], 2)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("i 1 2\nlike 1\n", "line 2: .*2 numbers"),
        ("PK\x03\x04\n", "a zip archive.*unpack"),
        ("i 1 x\n", "line 1: 2 numbers"),
        ("they 1 2\n", "none .*2 words"),
        ("i 1 nan\n", "not finite"),
        ("i\n", "line 1: .*1 numbers"),
        ("", "none .*2 words"),
        ("i 1 2\nlike 4 5 6\n", "line 2: .*2 numbers.* as in line 1.*3"),  # not the word "like 4"
        ("i 1 2 3\nlike 4 5\n", "line 2: .*3 numbers.* as in line 1.*2"),
        ("i 1 2\n\nlike 4\n", "line 3: .*2 numbers.* as in line 1.*1"),
        ("3 2\ni 1 2 3\n", "line 2: .*2 numbers.* as in line 1"),  # word2vec's line says 2
        ("2 3\ni 1 2\n", "line 2: .*3 numbers.* as in line 1"),
        ("3 2\ni 1 2\nlike 3 4\n", "2 words.* line 1 .*3"),  # cut off
        ("1 2\ni 1 2\nlike 3 4\n", "2 words.* line 1 .*1"),
        ("i 1 2\n2 2\nlike 1 2\n", "line 2: .*2 numbers"),  # two files, one after the other
        ("9" * 5000 + " 2\ni 1 2\n", "line 1"),
        ("i 1 1e39\n", "line 1.*not finite"),
    ],
)
def test_a_broken_file_of_vectors_is_one_sentence(tmp_path, content, named):
    path = tmp_path / "glove.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=named):
        read_vectors(path, Vocabulary(["i", "like"]))


def test_a_file_that_is_no_text_is_one_sentence(tmp_path):
    (tmp_path / "v.bin").write_bytes(b"\xff\xfe\x00i 1")
    with pytest.raises(InputError, match=r"v.bin.*UTF-8"):
        read_vectors(tmp_path / "v.bin", Vocabulary(["i"]))
    with pytest.raises(InputError, match=r"v.txt"):
        read_vectors(tmp_path / "v.txt", Vocabulary(["i"]))


def test_the_vocabularys_file_is_data_alone(tmp_path):
    Vocabulary(["a", "ü"]).save(tmp_path / "v.json")
    assert json.loads((tmp_path / "v.json").read_text(encoding="utf-8"))["words"] == ["a", "ü"]
