r"""
Words as vectors
================

A network multiplies and adds, so what is a word to it? And how can it find out that *queen* is to *king* as *woman* is
to *man*, if nobody tells it what the words mean?

At the end you can turn texts into a matrix of indices, look up and train word vectors, and find the nearest words.
"""

import random
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from torch import nn

import torchdl
from torchdl.data import pad, tokenize
from torchdl.models import WordEmbedding

torch.manual_seed(0)

# %%
# The idea: a table with a row for each word
# ------------------------------------------
# Words are categories, like digits' labels, and they come in an order, like a time series. A recurrent network cannot
# add *cat*. With a vocabulary of :math:`V` words, word :math:`k` could be a one-hot vector: zeros, and a 1 at place
# :math:`k`. A text of :math:`T` words is then a matrix (T, V) of almost only zeros. Worse, all one-hot vectors are
# equally far from each other, so a network cannot see that *cat* is closer to *dog* than to *tax*.
#
# Instead, each word gets a vector of :math:`D` numbers that the network learns: its *embedding*, row :math:`k` of a
# matrix :math:`W` (V, D). A one-hot vector times :math:`W` is just that row, so libraries look the row up instead.
V, D = 10_000, 20
table = torch.randn(V, D)
words = torch.tensor([50, 25, 3])  # a text of T = 3 words
one_hot = F.one_hot(words, V).float()  # (T, V)
torch.testing.assert_close(one_hot @ table, table[words])  # (T, D)
print(f"one-hot: {one_hot.numel():,} numbers, {V * D * len(words):,} multiplications; by index: {len(words)} rows read")

# %%
# By hand: from texts to a matrix of indices
# ------------------------------------------
# 1. Split each text into words, in lower case and without punctuation (*tokens*).
# 2. Number the words, from 1 on: the index 0 stays free for padding.
# 3. Replace each word by its index, and pad: texts of different lengths must fit one matrix (N, T).
texts = ["Cats like milk.", "Dogs hate cats, and cats hate dogs!", "I like dogs"]
word2idx = {}
for text in texts:
    for word in tokenize(text):
        if word not in word2idx:
            word2idx[word] = len(word2idx) + 1
rows = [[word2idx[word] for word in tokenize(text)] for text in texts]
longest = max(map(len, rows))
by_hand = torch.tensor([[0] * (longest - len(row)) + row for row in rows])  # zeros before the words
print(word2idx)
print(by_hand)

# %%
# With torchdl
# ------------
# :class:`torchdl.Vocabulary` numbers words by frequency, the most frequent first, as Keras' ``Tokenizer`` does. So a
# limit on their number leaves out the rarest: a large collection has a million different words, most of them misspelt
# or seen once. Unknown words are left out, or get the index 1 of ``<unknown>``. The vocabulary must come from the
# training texts alone; a word of the test texts is as unknown as any word will be in use.
vocabulary = torchdl.Vocabulary.learn(texts)
print("by frequency:", vocabulary.numbers)
torch.testing.assert_close(pad([[word2idx[w] for w in tokenize(t)] for t in texts]), by_hand)
small = torchdl.Vocabulary.learn(texts, most=3, unknown=True)
print("3 words:     ", small.numbers, "->", [small.encode(text) for text in texts])

# %%
# Where should the zeros be? Keras' default is before the words (``pre``): a network that reads from left to right then
# has just read the words when it answers, and need not remember them over zeros. A translator writes from the first
# word on, so its texts are padded after the words (``post``). A limit on the length drops words, by default the first.
for padding, truncating in (("pre", "pre"), ("post", "pre"), ("post", "post")):
    data = pad(rows, length=4, padding=padding, truncating=truncating)
    print(f"padding {padding:4}  truncating {truncating:4}  {data.tolist()}")

# %%
# .. list-table:: From Keras
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch, torchdl
#      - trap
#    * - ``Tokenizer(num_words=n)``
#      - ``Vocabulary.learn(texts, most=n - 1)``
#      - Keras keeps one word fewer than it says
#    * - ``fit_on_texts``, ``texts_to_sequences``
#      - ``Vocabulary.learn``, ``encode``
#      - learn on the training texts only
#    * - ``pad_sequences(padding="pre")``
#      - ``torchdl.data.pad``
#      - PyTorch's own ``pad_sequence`` pads after the words
#    * - ``Embedding(V + 1, D)``
#      - ``nn.Embedding(V + 1, D, padding_idx=0)``
#      - the highest index is V, so V rows are one too few; without ``padding_idx``, padding learns like a word
#
# The embedding layer turns (N, T) into (N, T, D), and any network for sequences can follow.
layer = nn.Embedding(len(vocabulary) + 1, 4, padding_idx=0)
print(f"{tuple(by_hand.shape)} -> {tuple(layer(by_hand).shape)}; a row of padding: {layer(by_hand)[0, 0].tolist()}")

# %%
# Where the numbers come from
# ---------------------------
# The vectors are weights: gradient descent finds them with all others, for whatever the network has to do. Then similar
# words get similar vectors if similarity *helps*. The task that helps most needs no labels: predict a word's neighbours
# (*word2vec*; GloVe reaches much the same by factorising the table of how often words meet). Words in the same company
# then get similar vectors. To see that, here is a little language whose meanings we know.
dice = random.Random(0)
features = ["he old farm", "she old farm", "he young farm", "she young farm"]
features += ["he old crown", "she old crown", "he young crown", "she young crown"]  # gender, age, rank
names = ["man", "woman", "boy", "girl", "king", "queen", "prince", "princess"]
people = dict(zip(names, map(str.split, features), strict=True))
company = {"he": ["he", "his"], "she": ["she", "her"], "old": ["old", "tired"], "young": ["young", "small"]}
company |= {"crown": ["crown", "throne", "castle"], "farm": ["farm", "shop", "bike"]}
food = ["eggs", "ham", "chocolate", "onions", "bread", "cheese"]
animals = ["cat", "dog", "bunny", "horse"]


def sentence():
    """Return a sentence of the little language."""
    kind = dice.random()
    if kind < 0.6:
        person = dice.choice(list(people))
        pronoun, age, thing = (dice.choice(company[feature]) for feature in people[person])
        return f"the {age} {person} and {pronoun} {thing}"
    if kind < 0.8:
        return f"i {dice.choice(['like', 'love', 'hate'])} {dice.choice(food)} and {dice.choice(food)}"
    return f"the {dice.choice(animals)} {dice.choice(['runs', 'sleeps', 'jumps'])} in the garden"


corpus = [sentence() for _ in range(1500)]
language = torchdl.Vocabulary.learn(corpus)
encoded = [language.encode(text) for text in corpus]
pairs = torch.tensor([(a, b) for row in encoded for i, a in enumerate(row) for j, b in enumerate(row) if i != j])
print(f"{len(language)} words, {len(pairs):,} pairs of a word and a neighbour, such as")
print("  ", corpus[0], "->", ", ".join(language.decode(pair) for pair in pairs[:4].tolist()))

# %%
# The model has two tables: vectors of words :math:`W` and of neighbours :math:`C`. The probability of neighbour
# :math:`j` beside word :math:`i` is a softmax over the dot products :math:`W_i \cdot C_j`.
SIZE, D = len(language) + 1, 8
start = 0.05 * torch.randn(2, SIZE, D)
start[0, 0] = 0  # padding


def skip_gram(batches):
    """Train both tables on batches of words (B,) and neighbours (B,); return them and the last loss."""
    vectors, neighbours = (nn.Parameter(part.clone()) for part in start)
    adam = torch.optim.Adam([vectors, neighbours], lr=0.01)
    for word, neighbour in batches:
        scores = vectors[word] @ neighbours.T  # (B, D) times (D, V + 1) is (B, V + 1)
        loss = F.cross_entropy(scores, neighbour)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return vectors.detach(), neighbours.detach(), loss.item()


data = torchdl.ArrayDataset(pairs[:, 0], pairs[:, 1])
loader = torchdl.BatchLoader(data, batch_size=512, shuffle=True)
vectors, _, loss = skip_gram(batch for epoch in range(12) for batch in loader)
print(f"loss {loss:.2f}; guessing would cost log {len(language)} = {torch.tensor(len(language)).log():.2f}")

# %%
# The same with the library's layers and trainer: same initial weights and batches, same vectors after two epochs.
model = nn.Sequential(WordEmbedding(len(language), D), nn.Linear(D, SIZE, bias=False))
model[0].set_(start[0, 1:])
model[1].weight.data.copy_(start[1])
task = torchdl.Supervised(model, F.cross_entropy, optimizer=partial(torch.optim.Adam, lr=0.01))
new_loader = partial(torchdl.BatchLoader, data, batch_size=512, shuffle=True)
torchdl.Trainer(epochs=2, device="cpu").fit(task, new_loader())
again = new_loader()
ours, _, _ = skip_gram(batch for epoch in range(2) for batch in again)
torch.testing.assert_close(model[0].weight.detach(), ours, rtol=0, atol=1e-3)
print(f"largest difference after two epochs: {(model[0].weight - ours).abs().max():.1e}")

# %%
# Look: nearest words
# -------------------
# Near means a high *cosine similarity*, the dot product of vectors of length 1.


def nearest(vector, vectors, vocabulary, leave_out=(), count=3):
    """Return the words whose vectors have the highest cosine similarity with a vector (D,)."""
    similarity = F.normalize(vectors, dim=1) @ F.normalize(vector, dim=0)  # (V + 1,)
    ranked = (vocabulary.words[k - 1] for k in similarity.argsort(descending=True).tolist() if k > 0)
    return [word for word in ranked if word not in leave_out][:count]


def vector(word):
    """Return the vector (D,) of a word of the little language."""
    return vectors[language.numbers[word]]


for word in ("king", "girl", "ham", "cat", "hate", "crown"):
    print(f"{word:6} {', '.join(nearest(vector(word), vectors, language, [word]))}")
for a, b, c in (("king", "man", "woman"), ("prince", "king", "queen"), ("princess", "girl", "boy")):
    found = nearest(vector(a) - vector(b) + vector(c), vectors, language, [a, b, c])
    print(f"{a} - {b} + {c} = {found[0]}")

# %%
# Differences mean something, too: from *man* to *woman* is about the step from *king* to *queen*, since the same
# neighbours change. In two dimensions (the two principal components of the people):
points = torch.stack([vector(name) for name in names])
components = torch.linalg.svd(points - points.mean(0)).Vh[:2]  # (2, D)
flat = (points - points.mean(0)) @ components.T  # (8, 2)
fig, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
colors = ["C0" if people[name][0] == "he" else "C1" for name in names]
ax.scatter(flat[:, 0], flat[:, 1], c=colors, s=40)
for name, (x, y) in zip(names, flat.tolist(), strict=True):
    ax.annotate(name, (x, y), xytext=(6, 4), textcoords="offset points")
for male, female in (("man", "woman"), ("king", "queen"), ("boy", "girl"), ("prince", "princess")):
    ends = flat[[names.index(male), names.index(female)]]
    ax.plot(*ends.T, color="0.6", linestyle="--", zorder=0)
ax.set(title="people (dashed: from he to she)", xlabel="first component", ylabel="second component")
ax.margins(0.15)

# %%
# Pretrained and frozen
# ---------------------
# Vectors learned from billions of words (word2vec, GloVe) know more than a small training set can teach. Put them into
# the layer and *freeze* it: embedding (fixed) → LSTM → linear layer, where only the others train.
reader = torchdl.TextLSTM(len(language), embedding_dim=D)
reader.embedding.set_(vectors[1:], frozen=True)
adam = torch.optim.Adam((p for p in reader.parameters() if p.requires_grad), lr=0.01)
about_people = torch.tensor([[float(any(name in text.split() for name in people))] for text in corpus[:256]])
inputs = pad(encoded[:256])
for _ in range(20):
    loss = F.binary_cross_entropy_with_logits(reader(inputs), about_people)
    adam.zero_grad()
    loss.backward()
    adam.step()
assert torch.equal(reader.embedding.weight[1:], vectors[1:])  # frozen means frozen
print(f"is it about people? loss {loss.item():.3f} after 20 steps; {len(vectors) * D} weights are as they were")

# %%
# What breaks it: vectors know what they were trained for
# -------------------------------------------------------
# torchdl comes with an LSTM that tells spam from ham in real text messages. Its vectors were trained for that alone.
# Its digits are all 0, so 0000 is any number of four digits.
spam = torchdl.pretrained("spam-lstm", "cpu")
spam_vectors = spam.model.embedding.weight.detach()
for word in ("prize", "mobile", "0000", "sorry", "home"):
    row = spam_vectors[spam.vocabulary.numbers[word]]
    print(f"{word:7} {', '.join(nearest(row, spam_vectors, spam.vocabulary, [word]))}")

# %%
# These neighbours do not mean the same. They are evidence for the same class: spam above, ham below. Everything that
# the task did not need was not learned. Two more traps:
#
# - **Index 0 for a word.** ``padding_idx`` keeps row 0 at zero and trains it never: the word has vanished. That is why
#   words start at 1, and why the layer has V + 1 rows.
# - **Rare words.** A row changes only when its word occurs. After few occurrences it is still mostly its random start,
#   and its neighbours are chance. ``Vocabulary.learn(texts, least=2, unknown=True)`` makes them unknown words.
broken = {word: index - 1 for word, index in word2idx.items()}  # counts from 0
first = next(iter(broken))
print(f"counted from 0, {first!r} has the vector {layer(torch.tensor(broken[first])).tolist()}")

# %%
# Exercise 1: how many weights?
# -----------------------------
# A training set has 5,000 different words, and vectors have 50 numbers. How many weights has the embedding layer, with
# a row for padding, and how many numbers does it return for 32 texts of 100 words? Answer with a list of both.
numbers = ...

many = nn.Embedding(5001, 50)
wanted = [many.weight.numel(), many(torch.zeros(32, 100, dtype=torch.long)).numel()]
check(numbers, wanted, hint="Indices run from 0 to 5,000, and the output is (N, T, D).", close=1e-9)  # to the last row

# %%
# .. dropdown:: Solution
#
#    One row more than words, and each index becomes a vector.
#
#    .. code-block:: python
#
#       numbers = [5001 * 50, 32 * 100 * 50]

# %%
# Exercise 2: pad by hand
# -----------------------
# Write a function of a list of indices and a length that pads *after* the words, and drops what is too long at the
# *end*. It returns a list.
pad_after = ...

check(
    pad_after,
    lambda f: (
        all([*map(int, f(list(row), n))] == row[:n] + [0] * (n - len(row)) for row in rows for n in (2, 4, 9))
        or "it differs from pad with post and post"
    ),
    hint="A slice that is longer than the list is no error.",
)

# %%
# .. dropdown:: Solution
#
#    Cut first, then add the zeros that are missing.
#
#    .. code-block:: python
#
#       def pad_after(row, length):
#           row = row[:length]
#           return row + [0] * (length - len(row))

# %%
# Exercise 3: an analogy
# ----------------------
# Which word of the little language is to *princess* as *man* is to *woman*? Compute it with ``vector`` and ``nearest``.
word = ...

check(
    word,
    nearest(vector("princess") - vector("woman") + vector("man"), vectors, language, ["princess", "woman", "man"])[0],
    hint="Take the step from woman to man, starting at princess, and leave the three words out.",
)

# %%
# .. dropdown:: Solution
#
#    The step changes the company *she, her* into *he, his*, and nothing else.
#
#    .. code-block:: python
#
#       step = vector("man") - vector("woman")
#       word = nearest(vector("princess") + step, vectors, language, ["princess", "woman", "man"])[0]

# %%
# Where next
# ----------
# ``python scripts/train_text.py --vectors vectors.txt --freeze`` puts vectors in GloVe's format into a network and
# freezes them (:func:`torchdl.data.read_vectors`); ``python scripts/predict.py RUN --similar prize`` prints the nearest
# words of a finished run. In the API: :class:`torchdl.Vocabulary`, :func:`torchdl.data.pad`,
# :class:`torchdl.TextDataset`, which pads each batch to its own longest text, and
# :class:`torchdl.models.WordEmbedding`. The next lesson, :doc:`/learn/20_texts`, classifies texts.
