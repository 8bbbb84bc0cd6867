"""Networks that read texts: what padding must not change, parity with Keras, and learning."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import fill_, gaussian
from helpers.keras_originals import numbers, randomize
from hypothesis import given, settings, strategies as st
from torch import nn

import torchdl
from torchdl import BatchLoader, InputError, Supervised, TextCNN, TextDataset, TextLSTM, Trainer, Vocabulary
from torchdl.data import pad
from torchdl.models.text import WordEmbedding, words_first
from torchdl.tasks import binary_accuracy

WORDS = 20
BUILD = {"lstm": lambda: TextLSTM(WORDS, 2, 5, 7), "cnn": lambda: TextCNN(WORDS, 2, 5, (4, 6, 8))}


@pytest.fixture(scope="module", params=sorted(BUILD))
def model(request):
    model = fill_(BUILD[request.param]()).eval()
    with torch.no_grad():
        model.embedding.weight[0] = 0
    return model


def draw(lengths: list[int], seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, WORDS + 1, (length,), generator=generator).tolist() for length in lengths]


@pytest.mark.slow
@given(st.lists(st.integers(0, 60), min_size=1, max_size=6), st.integers(0, 50), st.integers(0, 50))
@settings(deadline=None, max_examples=40)
def test_padding_on_either_side_never_changes_a_score(model, lengths, before, after):
    texts = draw(lengths)
    longest = max([1, *lengths])
    with torch.no_grad():
        expected = torch.cat([model(torch.tensor([text or [0]])) for text in texts])  # each alone, without padding
        for padding in ("pre", "post"):
            padded = F.pad(pad(texts, longest, padding), (before, after))
            torch.testing.assert_close(model(padded), expected, rtol=1e-5, atol=1e-6)
        # zeros between the words do not count either
        torch.testing.assert_close(model(F.pad(padded[:, :, None], (0, 1)).flatten(1)), expected, rtol=1e-5, atol=1e-6)


def test_words_do_change_a_score(model):
    texts = torch.tensor(draw([40]))
    with torch.no_grad():
        for place in (0, 20, 39):
            other = texts.clone()
            other[0, place] = texts[0, place] % WORDS + 1
            # at the worst one of the places is looked over by a maximum
            if (model(other) - model(texts)).abs().max() > 1e-5:
                return
    pytest.fail("no word changes the score")


@pytest.mark.parametrize("network", [TextLSTM, TextCNN])
def test_texts_without_any_words_count_as_padding_alone(network):
    model = network(5).eval()
    torch.testing.assert_close(model(torch.zeros(2, 0, dtype=torch.int64)), model(torch.zeros(2, 3, dtype=torch.int64)))


def test_padding_gets_no_gradient_and_stays_zero(model):
    model = type(model)(WORDS, 2, 5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(pad(draw([3, 0, 9]))).square().sum().backward()
        assert model.embedding.weight.grad[1:].abs().sum() > 0
        assert model.embedding.weight.grad[0].abs().sum() == 0
        optimizer.step()
    assert model.embedding.weight[0].abs().sum() == 0


@pytest.mark.parametrize("name", BUILD)
def test_padding_that_is_read_is_a_word_with_a_vector_of_its_own(name):
    kind, sizes = {"lstm": (TextLSTM, (7,)), "cnn": (TextCNN, ((4, 6, 8),))}[name]
    reader, ignorer = (fill_(kind(WORDS, 2, 5, *sizes, read_padding=read)).eval() for read in (True, False))
    texts = torch.tensor(draw([40]))
    assert torch.allclose(reader(texts), ignorer(texts))
    padded = F.pad(texts, (6, 3))
    assert not torch.allclose(reader(padded), reader(texts), atol=1e-3)
    reader(padded).sum().backward()
    assert reader.embedding.weight.grad[0].abs().sum() > 0
    # as if padding were one more word
    other = fill_(kind(WORDS + 1, 2, 5, *sizes)).eval()
    state = reader.state_dict()
    table = state["embedding.weight"]
    other.load_state_dict(state | {"embedding.weight": torch.cat([torch.zeros(1, 5), table])})
    torch.testing.assert_close(reader(padded), other(padded + 1))


def test_words_come_first():
    words, count = words_first(torch.tensor([[0, 3, 0, 1], [0, 0, 0, 0], [5, 6, 7, 8]]))
    assert words.tolist() == [[3, 1, 0, 0], [0, 0, 0, 0], [5, 6, 7, 8]]
    assert count.tolist() == [2, 0, 4]


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_words_keep_their_order(texts):
    expected = [sorted(text, key=lambda word: word == 0) for text in texts]  # Python's sort is stable
    assert words_first(torch.tensor(texts))[0].tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILD)
def test_an_exported_model_gives_the_same_and_needs_no_stable_sort(name):
    model, texts = fill_(BUILD[name]()).eval(), pad(draw([4, 0, 40]))
    exported = torch.export.export(model, (texts,))
    operations = {str(node.target) for node in exported.graph.nodes}
    assert not {found for found in operations if "sort" in found}  # ONNX has no stable sort
    torch.testing.assert_close(exported.module()(texts), model(texts))


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILD)
def test_a_model_runs_in_onnx(name, tmp_path):
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    runtime = pytest.importorskip("onnxruntime")
    model, path, texts = fill_(BUILD[name]()).eval(), tmp_path / "model.onnx", pad(draw([4, 0, 40]))
    torch.onnx.export(model, (texts,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(path)
    (found,) = session.run(None, {session.get_inputs()[0].name: texts.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(texts).detach(), rtol=1e-4, atol=1e-5)


def test_the_lstm_is_a_loop_over_words_and_a_maximum():
    model = fill_(TextLSTM(WORDS, 1, 5, 7)).eval()
    cell = nn.LSTMCell(5, 7)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in model.lstm.state_dict().items()})
    for text in draw([1, 4, 11]):
        state, states = (torch.zeros(1, 7), torch.zeros(1, 7)), []
        for word in text:
            state = cell(model.embedding.weight[word][None], state)
            states.append(state[0][0])
        expected = model.head(torch.stack(states).max(0).values)
        torch.testing.assert_close(model(pad([text], 15))[0], expected)


@pytest.mark.parametrize("frozen", [False, True])
def test_given_vectors_are_used_and_are_trained_unless_frozen(frozen):
    vectors = gaussian(WORDS, 5)
    model = TextLSTM(WORDS, 1, 5, 7)
    model.embedding.set_(vectors, frozen)
    assert torch.equal(model.embedding.weight[1:], vectors)
    assert model.embedding.weight[0].abs().sum() == 0
    data = TextDataset(["a b", "b c"], torch.ones(2, 1), Vocabulary(["a", "b", "c"]))
    task = Supervised(model, F.binary_cross_entropy_with_logits)
    Trainer(epochs=2, device="cpu").fit(task, BatchLoader(data, 2))
    assert torch.equal(model.embedding.weight[1:], vectors) == frozen
    with pytest.raises(InputError, match=r"\(20, 5\).*\(21, 5\)"):
        model.embedding.set_(gaussian(WORDS + 1, 5))


@pytest.mark.parametrize("name", BUILD)
def test_a_model_comes_back_from_its_files(name, tmp_path):
    model = fill_(BUILD[name]()).eval()
    torchdl.save(model, tmp_path)
    texts = pad(draw([4, 50]))
    assert torch.equal(torchdl.load(tmp_path).eval()(texts), model(texts))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TextLSTM(0), "vocabulary_size"),
        (lambda: TextLSTM(5, 0), "out_features"),
        (lambda: TextLSTM(5, dropout=1.0), "dropout.*1.0"),
        (lambda: TextCNN(5, dropout=-0.1), "dropout.*-0.1"),
        (lambda: TextCNN(5, widths=()), "widths"),
        (lambda: TextCNN(5, 0), "out_features"),
        (lambda: WordEmbedding(5, 0), "dim"),
        (lambda: TextLSTM(5)(torch.zeros(2, 3)), "integers"),
        (lambda: TextLSTM(5)(torch.tensor([[6, 1]])), "words .*from 1 to 5,.*from 1 to 6"),
        (lambda: TextCNN(5)(torch.tensor([[6, 1]])), "words .*from 1 to 5,.*from 0 to 6"),
        (lambda: TextCNN(5)(torch.zeros(3, dtype=torch.int64)), r"\(texts, words\)"),
        (lambda: TextLSTM(5)(torch.zeros(3, dtype=torch.int64)), r"\(texts, words\)"),
    ],
)
def test_what_cannot_be_is_one_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILD)
def test_a_network_learns_which_word_matters(name, quick):
    generator = torch.Generator().manual_seed(0)
    texts, labels = [], []
    for text in draw(torch.randint(1, 45, (300,), generator=generator).tolist(), seed=1):
        words = [word for word in text if word != 7]
        special = bool(torch.rand((), generator=generator) < 0.5)
        place = int(torch.randint(0, len(words) + 1, (), generator=generator))
        texts.append(" ".join(f"w{word}" for word in [*words[:place], *([7] if special else []), *words[place:]]))
        labels.append([float(special)])
    vocabulary = Vocabulary.learn(texts)
    data = TextDataset(texts, torch.tensor(labels), vocabulary)
    torch.manual_seed(0)
    model = TextLSTM(len(vocabulary), 1, 8, 8) if name == "lstm" else TextCNN(len(vocabulary), 1, 8, (8, 8, 8))
    task = Supervised(
        model, F.binary_cross_entropy_with_logits, {"accuracy": binary_accuracy}, lambda p: torch.optim.Adam(p, 0.01)
    )
    first, (words, known) = TextDataset(texts[:200], torch.tensor(labels[:200]), vocabulary), data[200:]
    Trainer(epochs=12, device="cpu").fit(task, BatchLoader(first, 20, shuffle=True, by_length=True))
    with torch.no_grad():
        assert float(binary_accuracy(model.eval()(words), known).mean()) > 0.95


# parity with Keras


def lstm_listing(keras, length: int):
    """Build lecture 57's network for texts of so many words, without the sigmoid that our loss has."""
    layers = keras.layers
    i = keras.Input((length,))
    x = layers.Embedding(WORDS + 1, 20)(i)
    x = layers.LSTM(15, return_sequences=True)(x)
    return keras.Model(i, layers.Dense(1)(layers.GlobalMaxPooling1D()(x)))


def cnn_listing(keras, length: int):
    """Build lecture 59's network."""
    layers = keras.layers
    i = keras.Input((length,))
    x = layers.Embedding(WORDS + 1, 20)(i)
    x = layers.MaxPooling1D(3)(layers.Conv1D(32, 3, activation="relu")(x))
    x = layers.MaxPooling1D(3)(layers.Conv1D(64, 3, activation="relu")(x))
    x = layers.Conv1D(128, 3, activation="relu")(x)
    return keras.Model(i, layers.Dense(1)(layers.GlobalMaxPooling1D()(x)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own
@pytest.mark.parametrize("length", [35, 61])
@pytest.mark.parametrize("kind", ["lstm", "cnn"])
def test_outputs_and_sizes_are_those_of_keras(keras, tmp_path, kind, length):
    theirs = randomize((lstm_listing if kind == "lstm" else cnn_listing)(keras, length))
    table = numbers(keras, theirs.weights[0]).copy()
    table[0] = 0  # padding, which the listing would have taken for a word
    theirs.weights[0].assign(table)
    theirs.save(tmp_path / "text.keras")
    ours = (TextLSTM(WORDS) if kind == "lstm" else TextCNN(WORDS)).eval()
    ours.load_state_dict(torchdl.keras.from_keras(tmp_path / "text.keras").state_dict())
    texts = torch.tensor(draw([length] * 8))
    expected = theirs(texts.numpy(), training=False).detach().cpu()
    torch.testing.assert_close(ours(texts), expected, rtol=1e-5, atol=1e-5)
    extra = 60 if kind == "lstm" else 0  # PyTorch's LSTM has a second bias, which does nothing
    assert sum(p.numel() for p in ours.parameters()) - extra == theirs.count_params()
    if kind == "cnn" and length == 35:
        # a shorter text counts as padded to 35 words, as the listing would see it
        short = pad(draw([4, 20]), 35, "post")
        expected = theirs(short.numpy(), training=False).detach().cpu()
        torch.testing.assert_close(ours(pad(draw([4, 20]), 20, "post")), expected, rtol=1e-5, atol=1e-5)
