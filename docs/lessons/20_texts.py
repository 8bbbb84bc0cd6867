r"""
Texts
=====

Is this message spam? A recurrent network reads it word by word, a convolutional one looks for phrases, and an old
method only counts words. Which is best, and what does *best* mean if almost no message is spam?

At the end you can classify texts in three ways, choose a threshold by precision and recall, and find the mistakes in
a split that make a score look better than it is.
"""

import random

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from check import check
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_curve
from torch import nn

import torchdl
from torchdl.data import in_training, pad
from torchdl.data.course_files import find_file
from torchdl.plots import plot_confusion, plot_precision_recall

torch.manual_seed(0)

# %%
# The messages
# ------------
# The course has 5,572 real text messages. They are used here if your data folder has them; :func:`torchdl.read_texts`
# finds out that their file has an older encoding than UTF-8, and reads two of its five columns. Otherwise the lesson
# makes up its own: people who meet, thank and ask, and senders who promise prizes. As in real life, both use the same
# words, make mistakes, and a few messages are sent again and again.
EITHER = ["hi", "sorry i missed you", "call me WHEN", "are you free WHEN", "text me WHEN", "see you WHEN"]
HAM = ["thanks for the THING", "i am at PLACE", "can you bring the THING", "i won the game", "call me on NUMBER"]
HAM += ["the THING is free", "lol ok", "it is not true you have not won a PRIZE", "do not call NUMBER", "how are you"]
SPAM = ["you have won a PRIZE", "win a PRIZE", "call NUMBER do not wait", "claim it WHEN", "free PRIZE", "reply WIN"]
FILL = {"WHEN": "now later today tonight tomorrow soon", "PLACE": "home work school town", "WIN": "win claim yes"}
FILL |= {"THING": "book ticket phone bike dinner key", "PRIZE": "prize holiday phone ticket car weekend"}


def make_message(dice, phrases):
    """Return a made-up message of two to four phrases, with a letter missing here and there."""
    chosen = [dice.choice(phrases if dice.random() < 0.6 else EITHER) for _ in range(dice.randint(2, 4))]
    words = []
    for word in " ".join(chosen).split():
        word = dice.choice(FILL[word].split()) if word in FILL else word
        word = str(dice.randrange(10**4, 10**5)) if word == "NUMBER" else word
        words.append(word[1:] if word.isalpha() and len(word) > 3 and dice.random() < 0.08 else word)
    return " ".join(words)


def make_messages(count=1500, share=0.13, copies=0.1, seed=1):
    """Return made-up messages with about this share of spam and of copies of earlier messages."""
    dice, made = random.Random(seed), []
    for _ in range(count):
        label = int(dice.random() < share)
        made.append((make_message(dice, SPAM if label else HAM), label))
        if dice.random() < copies:
            made[-1] = dice.choice(made)
    texts, labels = zip(*made, strict=True)
    return torchdl.Texts(texts, torch.tensor(labels), ("ham", "spam"), "made-up messages")


try:
    messages = torchdl.read_texts(find_file("spam", fetch=False), text="v2", label="v1")
except torchdl.InputError:
    messages = make_messages()
train, test = messages.split(0.33, seed=0)
print(f"{messages.origin}: {messages.counts}; {len(train):,} for training, {len(test):,} for testing")
for place in (*(train.labels == 0).nonzero()[:3, 0], *(train.labels == 1).nonzero()[:3, 0]):
    print(f"   {train.classes[train.labels[place]]:5} {train.texts[place][:100]}")

# %%
# The split keeps the share of spam equal in both parts. The vocabulary comes from the training part alone
# (:doc:`/learn/19_words_as_vectors`). All numbers are different, so at the test each would be an unknown word; with
# ``same_digits`` every digit is 0, and a number of five digits becomes the word 00000.
vocabulary = torchdl.Vocabulary.learn(train.texts, unknown=True, least=2, same_digits=True)
V, D, M = len(vocabulary), 20, 15  # words; numbers per word; hidden units
data, test_data = (part.numbered(vocabulary, longest=60) for part in (train, test))  # (N, T) indices, (N, 1) labels
print(f"{V} words; {vocabulary.tokenize('Call 61234 now!')} -> {vocabulary.encode('Call 61234 now!')}")

# %%
# By hand: an LSTM that keeps its strongest impressions
# -----------------------------------------------------
# Embedding (N, T) → (N, T, D), LSTM → (N, T, M), the maximum of each unit over time → (N, M), a linear layer → one
# logit. The maximum means that a unit may fire at any word; nothing has to be remembered to the end. Padding must not
# take part, so its states become :math:`-\infty`.


class Reader(nn.Module):
    """Lecture 57's network, for texts padded with zeros after the words."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(V + 1, D, padding_idx=0)
        self.lstm = nn.LSTM(D, M, batch_first=True)
        self.head = nn.Linear(M, 1)

    def forward(self, words):
        """Return logits (N, 1) of words (N, T)."""
        states, _ = self.lstm(self.embedding(words))  # (N, T, M)
        padding = words == 0  # (N, T)
        padding[:, 0] = False  # a text without words keeps one state
        return self.head(states.masked_fill(padding[..., None], -torch.inf).amax(1))


def fit(model, epochs=6, weight=1.0):
    """Train by Adam on batches of 32; ``weight`` multiplies the loss of spam."""
    adam = torch.optim.Adam(model.parameters(), lr=6e-3)
    loader = torchdl.BatchLoader(data, batch_size=32, shuffle=True, by_length=True)
    for _ in range(epochs):
        for words, labels in loader:
            loss = F.binary_cross_entropy_with_logits(model(words), labels, pos_weight=torch.tensor(weight))
            adam.zero_grad()
            loss.backward()
            adam.step()
    return model.eval()


@torch.no_grad()
def probabilities(model):
    """Return the probability of spam (N,) of each test text."""
    return torch.sigmoid(model(test_data[:][0]))[:, 0].numpy()


reader = fit(Reader())
found = {"LSTM": probabilities(reader)}
true = test.labels.numpy()
print(f"LSTM: test accuracy {((found['LSTM'] > 0.5) == true).mean():.1%}")

# %%
# With torchdl
# ------------
# :class:`torchdl.TextLSTM` has the same parts under the same names, so it can take our weights.
library = torchdl.TextLSTM(V, embedding_dim=D, hidden=M).eval()
library.load_state_dict(reader.state_dict())
words = test_data[:50][0]
with torch.no_grad():
    torch.testing.assert_close(library(words), reader(words))
    again = library(F.pad(words, (3, 20)))  # zeros before and after the words
torch.testing.assert_close(again, reader(words).detach())
print("same logits; more padding does not change them")

# %%
# By hand: a CNN for words
# ------------------------
# Neighbouring words belong together as neighbouring pixels do. A sequence has one direction to slide along, so a filter
# of width :math:`k` has the shape (k, D), and :math:`M` filters turn (T, D) into (T - k + 1, M):
#
# .. math::
#    y_{t,m} = b_m + \sum_{\tau=1}^{k} \sum_{d=1}^{D} x_{t+\tau-1,\,d} \; w_{\tau,d,m} .
#
# (The kernels of an image have four axes: height, width, and the features before and after. Those of a text have one
# less.) Each filter is a detector of phrases of three words. PyTorch wants the features before the time, (N, D, T).
x, layer = torch.randn(2, 9, D), nn.Conv1d(D, 4, kernel_size=3)
windows = x.unfold(1, 3, 1)  # (N, T - 2, D, 3)
by_hand = torch.einsum("ntdk,mdk->ntm", windows, layer.weight) + layer.bias
torch.testing.assert_close(by_hand, layer(x.transpose(1, 2)).transpose(1, 2))

layers = [nn.Conv1d(D, 32, 3), nn.ReLU(), nn.MaxPool1d(3), nn.Conv1d(32, 64, 3), nn.ReLU(), nn.MaxPool1d(3)]
layers += [nn.Conv1d(64, 128, 3), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(128, 1)]
part = nn.Embedding(V + 1, D)(pad([vocabulary.encode(train.texts[0])], 60, "post")).transpose(1, 2)  # (1, D, T)
print(f"{'embedding':18} {tuple(part.shape)}")
for layer in layers:
    part = layer(part)
    if not isinstance(layer, nn.ReLU):
        print(f"{type(layer).__name__:18} {tuple(part.shape)}")

# %%
# The time gets shorter, the features more. :class:`torchdl.TextCNN` is this network, and leaves padding out of every
# maximum; so its outputs do not depend on the padding, as those of the layers above would.
found["CNN"] = probabilities(fit(torchdl.TextCNN(V, embedding_dim=D), epochs=3))

# %%
# .. list-table:: From Keras
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch, torchdl
#      - trap
#    * - ``LSTM(15, return_sequences=True)``
#      - ``LSTM(20, 15, batch_first=True)(x)[0]``
#      - without ``batch_first`` the first axis is time
#    * - ``GlobalMaxPooling1D()``
#      - ``amax(1)``, padding masked
#      - Keras' layer takes the maximum over padding, too
#    * - ``Conv1D(32, 3)`` on (N, T, D)
#      - ``Conv1d(20, 32, 3)`` on (N, D, T)
#      - transpose before and after
#    * - ``MaxPooling1D(3)``
#      - ``MaxPool1d(3)``
#      - the stride is 3 in both; a rest of 1 or 2 is dropped

# %%
# By hand: TF-IDF, the baseline
# -----------------------------
# A *bag of words* forgets the order: it counts how often each word occurs in a text. A word that is in every text says
# little, so each count (*term frequency*) is multiplied by the *inverse document frequency*,
# :math:`\log\frac{1 + N}{1 + N_w} + 1` for a word in :math:`N_w` of :math:`N` texts. The rows get length 1, and
# logistic regression does the rest.
counts = torch.zeros(len(train), V + 1)
for row, text in enumerate(train.texts):
    for index in vocabulary.encode(text):
        counts[row, index] += 1
counts = counts[:, 2:].numpy()  # neither padding nor <unknown>
idf = np.log((1 + len(train)) / (1 + (counts > 0).sum(0))) + 1
tfidf = counts * idf
tfidf /= np.linalg.norm(tfidf, axis=1, keepdims=True).clip(1e-9)
vectorizer = TfidfVectorizer(
    analyzer=vocabulary.tokenize, vocabulary={w: k for k, w in enumerate(vocabulary.words[1:])}
)
np.testing.assert_allclose(vectorizer.fit_transform(train.texts).toarray(), tfidf, atol=1e-6)
regression = LogisticRegression(C=100, max_iter=1000).fit(tfidf, train.labels)
found["TF-IDF"] = regression.predict_proba(vectorizer.transform(test.texts))[:, 1]
for word, weight in sorted(zip(vocabulary.words[1:], regression.coef_[0], strict=True), key=lambda pair: -pair[1])[:5]:
    print(f"   {word:8} {weight:+.1f}")

# %%
# Those are the words that speak most for spam. The weights of a linear model can be read; a network's cannot.

# %%
# Look: accuracy is not enough
# ----------------------------
# Most messages are ham. A filter that always answers *ham* is right that often, and useless. Two other numbers look at
# spam alone:
#
# .. math::
#    \text{precision} = \frac{\text{spam found}}{\text{all called spam}} , \qquad
#    \text{recall} = \frac{\text{spam found}}{\text{all spam}} .
#
# A filter with low precision hides messages that you wanted; one with low recall lets spam through. The *average
# precision* is the area under the curve of both over all thresholds.
found["always ham"] = np.zeros(len(true))


def scores(probability, true, threshold=0.5):
    """Return accuracy, precision and recall."""
    called = probability > threshold
    caught = (called & (true == 1)).sum()
    return ((called == true).mean(), caught / max(called.sum(), 1), caught / (true == 1).sum())


print(f"{'':12}{'accuracy':>10}{'precision':>11}{'recall':>8}{'average precision':>19}")
for name, p in found.items():
    accuracy, precision, recall = scores(p, true)
    print(f"{name:12}{accuracy:10.1%}{precision:11.1%}{recall:8.1%}{average_precision_score(true, p):19.3f}")

# %%
# Counting words is hard to beat: short messages have telling words, and their order adds little. RESULTS says the same
# of the real messages. Always show the baseline beside the network.
#
# The threshold chooses between precision and recall. 0.5 is only a habit: which mistake costs more decides. If the loss
# of spam weighs more in training, as much as there is more ham, the probabilities rise, and the effect is similar.
for threshold in (0.05, 0.5, 0.95):
    _, precision, recall = scores(found["LSTM"], true, threshold)
    print(f"LSTM, spam from {threshold:4} on: precision {precision:.1%}, recall {recall:.1%}")
balance = float((train.labels == 0).sum() / (train.labels == 1).sum())
_, precision, recall = scores(probabilities(fit(Reader(), weight=balance)), true)
print(f"LSTM, spam weighs {balance:.1f} times as much: precision {precision:.1%}, recall {recall:.1%}")
curves = {
    f"{name}, {average_precision_score(true, p):.3f}": precision_recall_curve(true, p)[:2]
    for name, p in found.items()
    if name != "always ham"
}
plot_precision_recall(curves, "spam", float(true.mean()))

# %%
plot_confusion(confusion_matrix(true, found["LSTM"] > 0.5), test.classes)

# %%
# The rows are what the messages are, the columns what the LSTM calls them. The clearest mistakes teach most:
wrong = np.flatnonzero((found["LSTM"] > 0.5) != true)
for place in wrong[np.argsort(-np.abs(found["LSTM"][wrong] - 0.5))][:4]:
    print(f"   {test.classes[true[place]]}, spam with {found['LSTM'][place]:.0%}: {test.texts[place][:80]}")

# %%
# What breaks it: the same text in both parts
# -------------------------------------------
# The same message is sent again and again, so a random split puts copies on both sides. A model can know such a text by
# heart, which says nothing about new ones. Here is a model that does only that: it looks a text up in the training
# part, and calls it ham if it is not there.
known = in_training(train.texts, test.texts).numpy()  # (N,) bool
memory = dict(zip(train.texts, train.labels.tolist(), strict=True))
found["by heart"] = np.array([memory.get(text, 0) for text in test.texts], dtype=float)
print(f"{known.sum()} of {len(known)} test texts are in the training part, too")
shown = ("LSTM", "CNN", "TF-IDF", "by heart")
new = [100 * scores(found[name][~known], true[~known])[0] for name in shown]
old = [100 * scores(found[name][known], true[known])[0] for name in shown]
fig, ax = plt.subplots(figsize=(6.5, 3), layout="constrained")
for values, name, color in ((old, "seen in training", "C0"), (new, "new", "C1")):
    ax.plot(shown, values, "o", markersize=9, color=color, label=name)
ax.axhline(100 * (true[~known] == 0).mean(), color="0.5", linestyle="--", label="always ham, new texts")
ax.set(title="test texts that training has seen, and new ones", ylabel="accuracy, %")
ax.grid(alpha=0.3)
ax.margins(x=0.15)
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))

# %%
# What is learned by heart is nearly perfect on copies, and no better than *always ham* on new texts. Report the score
# on the new ones, too. Other leaks: a vocabulary or idf values that have seen the test part, and a threshold chosen on
# it.

# %%
# Exercise 1: accuracy of doing nothing
# -------------------------------------
# 4 % of all messages are spam. A filter calls nothing spam. What are its accuracy and its recall, as fractions?
accuracy_and_recall = ...

labels = np.array([1] * 4 + [0] * 96)
found = scores(np.zeros(100), labels)
check(accuracy_and_recall, [found[0], found[2]], hint="Which share of all messages is right, which share of the spam?")

# %%
# .. dropdown:: Solution
#
#    All ham is right, and no spam is found.
#
#    .. code-block:: python
#
#       accuracy_and_recall = [0.96, 0.0]

# %%
# Exercise 2: at least this recall
# --------------------------------
# Write a function of probabilities (N,) and labels (N,), both arrays, and a recall. It returns the highest threshold
# of which ``probability >= threshold`` finds at least that share of the spam.
choose = ...

p, y = np.array([0.9, 0.2, 0.8, 0.6, 0.3]), np.array([1, 0, 0, 1, 1])
check(
    choose,
    lambda f: (
        np.allclose([float(f(p, y, r)) for r in (0.3, 0.4, 0.6, 1.0)], [0.9, 0.6, 0.6, 0.3]) or "the thresholds differ"
    ),
    hint="Look at the probabilities of the spam alone, and find at least that share.",
)

# %%
# .. dropdown:: Solution
#
#    Only the probabilities of spam can be the highest threshold. Try each, and keep those that find enough.
#
#    .. code-block:: python
#
#       def choose(probability, labels, recall):
#           spam = probability[labels == 1]
#           return max(t for t in spam if np.mean(spam >= t) >= recall)

# %%
# Exercise 3: how short may a text be?
# ------------------------------------
# The CNN has convolutions of width 3 without padding, with max pooling over 3 between them: three convolutions, two
# poolings. What is the smallest number of words that leaves one position after the last convolution?
words_needed = ...

check(words_needed, torchdl.TextCNN(V).min_words, hint="Go backwards: one position after it takes three before it.")

# %%
# .. dropdown:: Solution
#
#    1 position needs 3 before the convolution, 9 before the pooling, 11, 33, 35.
#
#    .. code-block:: python
#
#       words_needed = 3 * (3 * (1 + 2) + 2) + 2

# %%
# Where next
# ----------
# ``python scripts/train_text.py --model lstm`` and ``--model cnn`` classify the course's messages, or yours
# (``--csv mails.csv --text mail --label kind``), and compare with TF-IDF, with and without duplicates; ``--balanced``
# weighs the classes. RESULTS lists both over several seeds. In the API: :func:`torchdl.read_texts`,
# :class:`torchdl.TextLSTM`, :class:`torchdl.TextCNN`, and ``torchdl.pretrained("spam-lstm")`` to try your own messages.
# The next lesson, :doc:`/learn/21_recommenders`, gives vectors to people and films.
