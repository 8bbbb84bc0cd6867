r"""
Recommenders
============

Which film will you like, if all that is known are the stars that people gave to a few films each? Nobody says what a
film is about; still a model can find out which films are alike.

At the end you can predict ratings by means, by factors and by a network, recommend films to known and to new people,
and say whether a model is better than a mean.
"""

import copy

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from check import check
from torch import nn

import torchdl
from torchdl.recipes.recommendation import errors, fit_means, predict_means, recommender

torch.manual_seed(0)

# %%
# The data: triples
# -----------------
# Ratings are triples (user, film, rating), and most pairs are missing: nobody has seen everything. A model is a
# function :math:`F(u, i) \to r` that is close to the known ratings and fills in the others. To recommend, predict all
# films that a user has not rated, and sort.
#
# The course takes MovieLens, and so does the script at the end. Here are made-up ratings whose truth we know: 120 films
# of five genres, 400 people with a taste for each genre, and noise of 0.6 stars. The model sees no genre.
GENRES = ("Comedy", "Horror", "Romance", "Science", "Western")


def make_ratings(users=400, films=120, seed=0):
    """Return made-up ratings, and the films' titles in the order of their ids."""
    rng = np.random.default_rng(seed)
    genre, quality = np.arange(films) % len(GENRES), rng.normal(0, 0.4, films)
    taste, kindness = rng.normal(0, 0.7, (users, len(GENRES))), rng.normal(0, 0.4, users)
    fame = rng.permutation(1 / np.arange(4, films + 4))  # few films are seen by many
    rows = []
    for user in range(users):
        seen = rng.choice(films, size=int(rng.integers(8, 56)), replace=False, p=fame / fame.sum())
        stars = 3.5 + kindness[user] + quality[seen] + taste[user, genre[seen]] + rng.normal(0, 0.6, len(seen))
        rows += [(101 + 7 * user, 11 + 3 * film, star) for film, star in zip(seen, stars, strict=True)]
    user_ids, film_ids, stars = map(np.array, zip(*rows, strict=True))
    stars = (2 * stars).round().clip(1, 10) / 2  # half stars
    titles = [f"{GENRES[genre[film]]} {film // len(GENRES) + 1}" for film in range(films)]
    return torchdl.Ratings(user_ids, film_ids, stars.astype(np.float32), None, "made-up ratings"), titles


ratings, titles = make_ratings()
users, films = np.unique(ratings.user), np.unique(ratings.item)
print(
    f"{ratings.origin}: {len(ratings):,} of {len(users) * len(films):,} pairs of {len(users)} users, {len(films)} films"
)

# %%
# Ids are names, not numbers: these have gaps, and others are texts. An embedding needs indices without gaps, so each id
# becomes its place among all ids. :func:`torchdl.split_ratings` does so from 1 on, by the training part alone: index 0
# means *unknown*, for a user or a film that is only in the test part.
known_ids, index = np.unique([131, 17, 131, 90], return_inverse=True)
print(f"ids 131, 17, 131, 90 -> indices {index.tolist()} of {known_ids.tolist()}")
split = torchdl.split_ratings(ratings, share=0.2, seed=0)
pairs, stars = split.train[:]  # (N, 2) indices of user and film, (N,) ratings
test_pairs, test_stars = split.test[:]
title_of = dict(zip(films.tolist(), titles, strict=True))
names = ["unknown", *(title_of[film] for film in split.items.tolist())]
USERS, FILMS, mean = len(split.users), len(split.items), split.mean
print(f"{len(stars):,} for training, {len(test_stars):,} for testing; mean {mean:.2f} stars")

# %%
# By hand: means first
# --------------------
# A film that everybody likes, a user who likes everything: much of a rating is that. The deviation of film :math:`i`
# from the mean :math:`\mu` is shrunk, as if it had five more ratings without deviation; else a film with one rating of
# 5 would be the best of all. The users' deviations follow from what the films leave:
#
# .. math::
#    b_i = \frac{\sum_u (r_{ui} - \mu)}{n_i + 5} , \qquad
#    b_u = \frac{\sum_i (r_{ui} - \mu - b_i)}{n_u + 5} , \qquad \hat r_{ui} = \mu + b_u + b_i .


def deviations(rows, rest, size):
    """Return the shrunk mean of ``rest`` (N,) for each index below ``size``, given each one's index ``rows`` (N,)."""
    total, count = torch.zeros(size), torch.zeros(size)
    return total.index_add(0, rows, rest) / (count.index_add(0, rows, torch.ones(len(rest))) + 5)


def rmse(predicted, pairs=test_pairs, true=test_stars):
    """Return the root of the mean squared error, in stars, of predictions clipped to the stars that there are."""
    return errors(predicted.clamp(*split.range), true)["RMSE"]


film_bias = deviations(pairs[:, 1], stars - mean, FILMS + 1)
user_bias = deviations(pairs[:, 0], stars - mean - film_bias[pairs[:, 1]], USERS + 1)
by_means = mean + user_bias[test_pairs[:, 0]] + film_bias[test_pairs[:, 1]]
jointly = predict_means(test_pairs, mean, fit_means(split)["user and item means"])  # both at once, by the library
table = {"mean": rmse(torch.full((len(test_stars),), mean)), "means of users and films": rmse(by_means)}
print(", ".join(f"{name}: {value:.3f}" for name, value in table.items()) + f" (both at once: {rmse(jointly):.3f})")

# %%
# By hand: factors
# ----------------
# Means recommend the same films to everyone. *Matrix factorisation* adds taste. Each user gets a vector :math:`p_u` and
# each film a vector :math:`q_i` of :math:`D` numbers, and their product is what the user adds to the film's mean:
#
# .. math::
#    \hat r_{ui} = \mu + b_u + b_i + p_u \cdot q_i .
#
# The vectors are embeddings, as those of words (:doc:`/learn/19_words_as_vectors`), found by gradient descent. Weight
# decay is what shrinking was: a user with few ratings stays near zero.


def table_of(count, dim):
    """Return an embedding of indices from 0 (unknown) to ``count``, with Keras' small initial numbers."""
    layer = nn.Embedding(count + 1, dim, padding_idx=0)
    nn.init.uniform_(layer.weight[1:], -0.05, 0.05)
    nn.init.zeros_(layer.weight[:1])
    return layer


class Factors(nn.Module):
    """Mean, biases and the product of two vectors."""

    def __init__(self, dim=16):
        super().__init__()
        self.user_bias, self.item_bias = table_of(USERS, 1), table_of(FILMS, 1)
        self.user_vectors, self.item_vectors = table_of(USERS, dim), table_of(FILMS, dim)

    def forward(self, pairs):
        """Return ratings (B,) of pairs (B, 2)."""
        user, film = pairs[:, 0], pairs[:, 1]
        product = (self.user_vectors(user) * self.item_vectors(film)).sum(1)  # (B, D) -> (B,)
        return mean + self.user_bias(user)[:, 0] + self.item_bias(film)[:, 0] + product


@torch.no_grad()
def predict(model, pairs):
    """Return the predicted ratings (N,)."""
    return model.eval()(pairs)


def fit(model, optimizer, epochs, batch_size=512):
    """Train on the squared error; return the training's and the test's RMSE of every epoch, (epochs, 2)."""
    loader, rows = torchdl.BatchLoader(split.train, batch_size, shuffle=True), []
    for _ in range(epochs):
        model.train()
        for some, target in loader:
            loss = F.mse_loss(model(some), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rows.append([rmse(predict(model, pairs), pairs, stars), rmse(predict(model, test_pairs))])
    return np.array(rows)


factors = Factors()
bare = copy.deepcopy(factors)  # for later
history = fit(factors, torch.optim.Adam(factors.parameters(), lr=0.01, weight_decay=1e-3), epochs=20)
table["means and factors"] = history[-1, 1]
print(f"test RMSE with factors {history[-1, 1]:.3f}")

# %%
# By hand: the course's network
# -----------------------------
# The course puts both vectors side by side, (B, 2D), and lets a hidden layer of 1,024 units find out how they match. It
# is a regression on centred ratings, with stochastic gradient descent.


class Network(nn.Module):
    """Lecture 61's network."""

    def __init__(self, dim=10, hidden=1024):
        super().__init__()
        self.user_vectors, self.item_vectors = table_of(USERS, dim), table_of(FILMS, dim)
        self.layers = nn.Sequential(nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, pairs):
        """Return ratings (B,) of pairs (B, 2)."""
        both = torch.cat([self.user_vectors(pairs[:, 0]), self.item_vectors(pairs[:, 1])], 1)  # (B, 2 D)
        return mean + self.layers(both)[:, 0]


network = Network()
fit(network, torch.optim.SGD(network.parameters(), lr=0.08, momentum=0.9), epochs=25)
table["the course's network"] = rmse(predict(network, test_pairs))

# %%
# With torchdl
# ------------
# :class:`torchdl.MatrixFactorization` has the same parts, so it takes our weights, and :class:`torchdl.RatingModel` is
# the course's network.
library = torchdl.MatrixFactorization(USERS, FILMS, mean, dim=16)
library.load_state_dict(factors.state_dict())
torch.testing.assert_close(library(test_pairs), factors(test_pairs))
model = torchdl.RatingModel(USERS, FILMS, mean, dim=10, hidden=1024).eval()
model.user_vectors.load_state_dict(network.user_vectors.state_dict())
model.item_vectors.load_state_dict(network.item_vectors.state_dict())
for ours, its in ((0, 1), (2, 4)):  # its layers have dropout before them
    model.layers[its].load_state_dict(network.layers[ours].state_dict())
both_known = (test_pairs > 0).all(1)  # for unknown ones it returns the mean
torch.testing.assert_close(model(test_pairs)[both_known], network(test_pairs)[both_known])
for name, value in table.items():
    print(f"{name:26} test RMSE {value:.3f}")

# %%
# A model is only worth its place in this table if it is better than the means. None can be perfect: what is noise, here
# 0.6 stars, cannot be predicted.
#
# .. list-table:: From Keras
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``Input(shape=(1,))``, ``Embedding``, ``Flatten``
#      - ``nn.Embedding`` of indices (B,)
#      - no axis of length 1, so nothing to flatten; Keras starts in ±0.05, PyTorch with a deviation of 1, with which
#        the course's network diverges
#    * - ``Concatenate()([u, m])``
#      - ``torch.cat([u, m], 1)``
#      - the functional API is just ``forward``
#    * - ``loss="mse"``
#      - ``F.mse_loss``
#      - outputs (B, 1) against ratings (B,) spread to (B, B): take ``[:, 0]``
#    * - ``SGD(lr=0.08, momentum=0.9)``
#      - ``torch.optim.SGD(parameters, lr=0.08, momentum=0.9)``
#      - the same
#
# Look: what the vectors know
# ---------------------------
# The nearest films, by cosine similarity, among those with 20 ratings or more:
seen = torch.bincount(pairs[:, 1], minlength=FILMS + 1)  # ratings of each film
vectors = factors.item_vectors.weight.detach()  # (FILMS + 1, D)
unit = F.normalize(vectors, dim=1)
common = (seen >= 20).nonzero()[:, 0]


def neighbours(film, count=5):
    """Return the indices of the films with the most similar vectors."""
    order = common[(unit[common] @ unit[film]).argsort(descending=True)]
    return [other for other in order.tolist() if other != film][:count]


popular = seen.argsort(descending=True, stable=True)
for film in popular[:4].tolist():
    print(f"{names[film]}: {', '.join(names[k] for k in neighbours(film))}")

# %%
centred = vectors[common] - vectors[common].mean(0)
flat = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T  # (films, 2)
fig, ax = plt.subplots(figsize=(6.5, 5), layout="constrained")
genres = np.array([names[k].split()[0] for k in common.tolist()])
for genre in GENRES:
    ax.scatter(*flat[genres == genre].T, s=25, label=genre)
for k in popular[:6].tolist():
    ax.annotate(names[k], flat[common.tolist().index(k)], fontsize=8, xytext=(4, 3), textcoords="offset points")
ax.set(title="films by their vectors", xlabel="first component", ylabel="second component")
ax.margins(0.12)
ax.legend(loc="lower left")

# %%
# Films of a genre lie together, though no genre was in the data. Two components cannot show all five directions of
# taste, so some genres overlap here that are apart in sixteen dimensions.
#
# A recommendation is a sorted list. The seen ones are left out:
user = int(torch.bincount(pairs[:, 0]).argmax())
own = pairs[:, 0] == user
best = pairs[own, 1][stars[own].argsort(descending=True, stable=True)][:5]
print("rated highest:", ", ".join(names[k] for k in best.tolist()))
unseen = torch.tensor([k for k in range(1, FILMS + 1) if k not in set(pairs[own, 1].tolist())])
expected = predict(factors, torch.stack([torch.full_like(unseen, user), unseen], 1))
order = expected.argsort(descending=True)[:5]
print("recommended:  ", ", ".join(f"{names[unseen[k]]} ({expected[k]:.1f})" for k in order.tolist()))

# %%
# A new user's ratings
# --------------------
# Someone new rates six films. There is no need to train again: with the films' vectors fixed, the best :math:`p_u` and
# :math:`b_u` are a *ridge regression*, one small system of linear equations. Here this person loves the most popular
# film and those like it, and dislikes the least similar ones.
loved = [popular[0].item(), *neighbours(popular[0].item(), 2)]
disliked = popular[:40][(unit[popular[:40]] @ unit[popular[0]]).argsort()][:3].tolist()
rated, given = torch.tensor(loved + disliked), torch.tensor([5.0, 5, 5, 1, 1, 1])
inputs = torch.cat([torch.ones(len(rated), 1), vectors[rated]], 1)  # (6, 1 + D): the bias, then the taste
rest = given - mean - factors.item_bias.weight.detach()[rated, 0]
ridge = 0.5 * torch.eye(inputs.shape[1])
solution = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ rest)  # (1 + D,)
scores = mean + factors.item_bias.weight.detach()[:, 0] + solution[0] + vectors @ solution[1:]  # (FILMS + 1,)
top = [k for k in scores.argsort(descending=True).tolist() if k > 0 and k not in rated.tolist()][:5]
print("loves:      ", ", ".join(names[k] for k in loved), "  dislikes:", ", ".join(names[k] for k in disliked))
print("by hand:    ", ", ".join(names[k] for k in top))
advisor = recommender(library, split, ratings, titles, device="cpu")
stars_of = {names[k]: star for k, star in zip(rated.tolist(), given.tolist(), strict=True)}
print("with torchdl:", ", ".join(advisor.predict(stars_of, 5).titles))

# %%
# The library's :class:`torchdl.predict.Recommender` takes the users of the training as a prior, so its list can differ.

# %%
# What breaks it: too many free numbers
# -------------------------------------
# Each vector has sixteen numbers, and many users have hardly more ratings. Without weight decay the model learns the
# noise by heart.
without = fit(bare, torch.optim.Adam(bare.parameters(), lr=0.01), epochs=40)
fig, ax = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for rows, line, name in ((history, "-", "decay"), (without, ":", "no decay")):
    for column, part in enumerate(("training", "test")):
        ax.plot(range(1, len(rows) + 1), rows[:, column], line, color=f"C{column}", label=f"{part}, {name}")
ax.axhline(table["means of users and films"], color="0.5", linestyle="--", label="means of users and films")
ax.set(title="factors with and without weight decay", xlabel="epoch", ylabel="RMSE, stars")
ax.legend(fontsize=8)
print(f"without decay: training {without[-1, 0]:.3f}, test {without[-1, 1]:.3f}; at its best {without[:, 1].min():.3f}")

# %%
# The training error falls and falls; the test error turns, and ends worse than the means. Two more traps:
#
# - **Nobody knows you.** A new user or film has no vector. The model falls back on the mean and the other's bias, as
#   below. In use most ratings are in the future, many by new users: split by time (``by_time=True``), not at random.
# - **Chosen ratings.** People watch what they expect to like, so known ratings are higher than unknown ones would be.
film = int(popular[0])
for who, what in ((0, 0), (0, film), (user, 0)):
    value = predict(factors, torch.tensor([[who, what]])).item()
    print(f"user {'unknown' if who == 0 else 'known'}, film {names[what]}: {value:.2f} stars")

# %%
# Exercise 1: count the numbers
# -----------------------------
# How many numbers does the model with biases and factors learn for 1,000 users, 500 films and D = 10? (Without rows for
# unknown ones. The mean :math:`\mu` is computed, not learned.)
count = ...

check(
    count, sum(nn.Embedding(n, d).weight.numel() for n in (1000, 500) for d in (1, 10)), hint="Biases, too.", close=1e-9
)

# %%
# .. dropdown:: Solution
#
#    Each user and each film has ten numbers and a bias.
#
#    .. code-block:: python
#
#       count = (1000 + 500) * (10 + 1)

# %%
# Exercise 2: two enthusiasts
# ---------------------------
# The mean is 3.5 stars. A film has only two ratings, both 5. Which rating do the shrunk means of this lesson predict
# for a user without deviation, to two decimals?
predicted = ...

check(predicted, 3.5 + deviations(torch.tensor([0, 0]), torch.tensor([1.5, 1.5]), 1)[0], hint="Five more without any.")

# %%
# .. dropdown:: Solution
#
#    The deviations add up to 3, but they are divided by 7.
#
#    .. code-block:: python
#
#       predicted = 3.5 + (1.5 + 1.5) / (2 + 5)

# %%
# Exercise 3: recommend
# ---------------------
# Write a function of predicted ratings (I,), a tensor, and a list of the indices that a user has seen. It returns the
# list of the three best others, the best first.
recommend = ...

check(
    recommend,
    lambda f: (
        [[*map(int, f(torch.tensor([3.0, 5, 1, 4, 2, 4.5]), seen))] for seen in ([1, 5], [3, 2], [])]
        == [[3, 0, 4], [1, 5, 0], [1, 5, 3]]
        or "the films or their order differ"
    ),
    hint="Sort all, then leave out the seen ones.",
)

# %%
# .. dropdown:: Solution
#
#    Cut the list after leaving out, or it may get too short.
#
#    .. code-block:: python
#
#       def recommend(predicted, seen):
#           order = predicted.argsort(descending=True).tolist()
#           return [film for film in order if film not in seen][:3]

# %%
# Where next
# ----------
# ``python scripts/train_recommender.py --model mf --epochs 6`` trains on MovieLens, and ``--dataset ml-20m`` on the
# course's 20 million ratings; without ``--model`` it is the course's network, and ``--model network`` adds biases and
# factors to it. ``python scripts/predict.py RUN --user 42`` recommends, ``--ratings own.csv`` does so to someone new,
# and ``--similar "Toy Story"`` prints the nearest films. RESULTS has each model beside the means, also for a split by
# time, where the means are hard to beat. In the API: :class:`torchdl.RatingModel`,
# :class:`torchdl.MatrixFactorization`, :func:`torchdl.split_ratings`. The next lesson,
# :doc:`/learn/22_transfer_learning`, returns to images.
