"""
The long distance problem
=========================

Which network still knows at the end of a sequence what stood at its beginning? And what can we do if none does?

At the end you can test a network's memory on problems whose difficulty you choose, tell a network that cannot remember
from one that is not trained enough, and replace the last state by the maximum over all states.
"""

# %%
# A question about three terms
# ----------------------------
#
# A sequence has T random numbers. Its label depends on three of them alone: it is 1 if an odd number of the three are
# negative. At **short** distance the three are the last terms, so a network reads them just before it answers. At
# **long** distance they are the first: it must carry them through T - 3 terms of noise.
#
# The label is a parity, and a parity is hard. The label is 1 if the product of the three is negative:
#
# .. math:: y = 1 \quad \text{if} \quad x_a \, x_b \, x_c < 0
#
# One of the three, or two, say nothing about it: among the sequences with :math:`x_a < 0` and :math:`x_b > 0`, one half
# has label 1. So the best linear model has accuracy 50 %, and half a memory is worth nothing.
from functools import partial

import matplotlib.pyplot as plt
import torch
from check import check
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy, mse_loss

import torchdl
from torchdl.tasks import binary_accuracy, schedules


def label(x: Tensor, places: tuple[int, int, int]) -> Tensor:
    """Return 1.0 for sequences (N, T, 1) with an odd number of negative terms at the places, else 0.0; (N, 1)."""
    a, b, c = ((x[:, place] < 0) for place in places)  # (N, 1) each
    one_negative = (a & ~b & ~c) | (~a & b & ~c) | (~a & ~b & c)
    return (one_negative | (a & b & c)).float()


x, y = torchdl.long_distance(count=4000, terms=10, distance="long")[:]  # (N, T, 1), (N, 1)
torch.testing.assert_close(y, label(x, (0, 1, 2)))
print(f"share of label 1: {y.mean():.3f}; with the first term negative: {y[x[:, 0] < 0].mean():.3f}", end="; ")
print(f"with the first two negative: {y[(x[:, 0] < 0) & (x[:, 1] < 0)].mean():.3f}")

# %%
# Two ways to read out the states
# -------------------------------
#
# An LSTM turns a sequence (N, T, D) into states (N, T, M). The output layer needs (N, M):
#
# - The **last state** :math:`h_T` must have kept everything until then.
# - The **maximum over time**, :math:`\max_t h_t` for each unit, asks of each unit only that it was large *once*. A
#   gradient reaches the term where that happened directly, not through all later steps. This is for sequences what
#   global max pooling is for images: (H, W, C) to C there, (T, M) to M here.
#
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - PyTorch
#      - trap
#    * - ``LSTM(5)``
#      - ``nn.LSTM(1, 5, batch_first=True)(x)[0][:, -1]``
#      - the layer returns all states and a pair of last ones
#    * - ``LSTM(5, return_sequences=True)``, ``GlobalMaxPool1D()``
#      - ``nn.LSTM(...)(x)[0].amax(1)``
#      - axis 1 is T with ``batch_first=True``; padding takes part in the maximum
#    * - ``Dense(1, activation="sigmoid")``, ``binary_crossentropy``
#      - ``nn.Linear(5, 1)``, ``binary_cross_entropy_with_logits``
#      - no sigmoid in the network: the loss contains it
#    * - ``validation_split=0.5``: the last half
#      - slices
#      - Keras takes the half before it shuffles
#    * - two LSTM layers: ``return_sequences=True`` in the first
#      - ``num_layers=2``
#      - the second layer reads the states of the first as its sequence
#
# By hand, then with torchdl
# --------------------------
#
# The first 2,000 sequences are for training, the rest for the test. We train an LSTM with the maximum for five epochs
# in plain PyTorch, and then the same by the library, from the same weights:
torch.manual_seed(0)
model = torchdl.SequenceModel("lstm", hidden=16, pooling="max")
lstm, head = nn.LSTM(1, 16, batch_first=True), nn.Linear(16, 1)
lstm.load_state_dict(model.core.state_dict())
head.load_state_dict(model.head.state_dict())

optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()], lr=0.01)
losses = []
for _epoch in range(5):
    total = 0.0
    for start in range(0, 2000, 100):
        states, _ = lstm(x[start : start + 100])  # (B, T, M)
        loss = cross_entropy(head(states.amax(1)), y[start : start + 100])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() / 20
    losses.append(total)

train = torchdl.BatchLoader(torchdl.ArrayDataset(x[:2000], y[:2000]), batch_size=100)
task = torchdl.Supervised(model, cross_entropy, optimizer=partial(torch.optim.Adam, lr=0.01))
history = torchdl.Trainer(epochs=5).fit(task, train)
torch.testing.assert_close([row["train/loss"] for row in history], losses, rtol=1e-3, atol=1e-5)
print("the same losses by hand and by torchdl:", ", ".join(f"{loss:.4f}" for loss in losses))

# %%
# The loss of guessing is log 2 = 0.693, and after five epochs it has hardly moved. A parity gives almost no gradient
# until all three parts are in place; then the loss falls quickly. So a low accuracy may mean "cannot remember", or
# just "not yet". Train long enough before you judge, and look at the training accuracy, too.
#
# Look: who remembers
# -------------------
#
# Each network has 16 units and is trained with Adam, whose rate rises to 0.05 and then falls to 0: for 15, 45 and 20
# epochs on three problems.


def learns(kind: str, pooling: str, distance: str, terms: int, epochs: int) -> tuple[list[float], float]:
    """Return the training accuracy of each epoch, and the test accuracy after the last one, in per cent."""
    x, y = torchdl.long_distance(4000, terms, distance)[:]
    torch.manual_seed(0)
    model = torchdl.SequenceModel(kind, length=terms, hidden=16, pooling=pooling)
    adam = partial(torch.optim.Adam, lr=0.05)
    task = torchdl.Supervised(model, cross_entropy, {"accuracy": binary_accuracy}, adam, schedules.one_cycle)
    train = torchdl.BatchLoader(torchdl.ArrayDataset(x[:2000], y[:2000]), 100, shuffle=True)
    test = torchdl.BatchLoader(torchdl.ArrayDataset(x[2000:], y[2000:]), 500)
    history = torchdl.Trainer(epochs=epochs, clip_norm=1.0, evaluate_every=epochs).fit(task, train, test)
    return [100 * row["train/accuracy"] for row in history], 100 * history[-1]["val/accuracy"]


networks = {
    "linear": ("linear", "last"),
    "simple": ("rnn", "last"),
    "GRU": ("gru", "last"),
    "LSTM": ("lstm", "last"),
    "LSTM, maximum": ("lstm", "max"),
}
problems = {"short, T = 10": ("short", 10, 15), "long, T = 10": ("long", 10, 45), "long, T = 30": ("long", 30, 20)}
found = {
    problem: {name: learns(*network, *settings) for name, network in networks.items()}
    for problem, settings in problems.items()
}
print(f"{'accuracy, % (train / test)':28}" + "".join(f"{problem:>20}" for problem in problems))
for name in networks:
    cells = (found[problem][name] for problem in problems)
    print(f"{name:28}" + "".join(f"{train[-1]:13.1f} / {test:4.1f}" for train, test in cells))

# %%
# The linear model guesses. At short distance even the simple network is right. At long distance and T = 10 the gates
# pay: GRU and LSTM get further than the simple network. At T = 30 every last state is lost, while the maximum over all
# states still finds the answer. For the GRU that is "not yet": RESULTS has it with 100 epochs, also T = 20, and the
# maximum with a simple network and a GRU. The curves show how suddenly a parity is learned, and that a network can lose
# it again while the rate is high:
figure, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
for axis, problem in zip(axes, problems, strict=True):
    for name, (train, _) in found[problem].items():
        axis.plot(range(1, len(train) + 1), train, label=name)
    axis.axhline(50, color="0.5", linestyle="--", label="chance")
    axis.set(title=problem, xlabel="epoch")
axes[0].set_ylabel("training accuracy, %")
_ = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)

# %%
# The adding problem
# ------------------
#
# The classic test of memory (Hochreiter and Schmidhuber 1997) asks for a number, not for a class. Each term is a pair:
# a random number in [0, 1] and a marker, which is 1 at one place in each half. The target is the sum of the two marked
# numbers. Always predicting the mean, 1, has a mean squared error of 1/6 = 0.167. Every epoch has new sequences, so
# nothing can be learned by heart.
curves, test = {}, torchdl.AddingProblem(600, terms=30, seed=1)
for name, kind in (("simple", "rnn"), ("LSTM", "lstm")):
    torch.manual_seed(0)
    model = torchdl.SequenceModel(kind, in_features=2, hidden=16)
    task = torchdl.Supervised(model, mse_loss, None, partial(torch.optim.Adam, lr=0.02), schedules.one_cycle)
    train = torchdl.BatchLoader(torchdl.AddingProblem(3000, terms=30), 50)
    history = torchdl.Trainer(epochs=10, clip_norm=1.0).fit(task, train, torchdl.BatchLoader(test, 500))
    curves[name] = {int(row["epoch"]): [row["val/loss"]] for row in history}
    print(f"{name:7} {history[-1]['val/loss']:.4f}")
title = "the adding problem, 30 terms"
torchdl.plots.plot_measured({title: curves}, "epoch", "test mean squared error", {"always 1": 1 / 6}, log_y=True)

# %%
# What breaks it: the maximum where order matters
# -----------------------------------------------
#
# Is the maximum simply better? At short distance and T = 30 the last state has to remember three steps, but the maximum
# runs over 27 states of noise before them. Each of these raises the maximum of some unit, and must not:
for name in ("LSTM", "LSTM, maximum"):
    train, test = learns(*networks[name], "short", terms=30, epochs=20)
    print(f"short, T = 30, {name:14} train {train[-1]:5.1f} %, test {test:5.1f} %")

# %%
# The way to read out the states is a guess about where the answer is. Both are worth a try.
#
# Exercise 1: find the deciding terms
# -----------------------------------
#
# With ``distance="spread"`` the three terms lie far apart, as related words do in a sentence. Which places decide here?
# Give three numbers from 0 to 19, in ascending order. ``label`` tells you whether a guess fits all labels.
x_spread, y_spread = torchdl.long_distance(1000, terms=20, distance="spread")[:]
places = ...
check(places, torchdl.data.synthetic.deciding_terms("spread", 20), hint="There are 1,140 triples: try them all.")

# %%
# .. dropdown:: Solution
#
#    Only one triple gives all 1,000 labels.
#
#    .. code-block:: python
#
#       from itertools import combinations
#       places = next(p for p in combinations(range(20), 3) if torch.equal(label(x_spread, p), y_spread))

# %%
# Exercise 2: a maximum without padding
# -------------------------------------
#
# Padded sequences differ in length. Write a function ``pooled(states, lengths)`` that returns the maximum (N, M) of
# each unit over the first ``lengths[n]`` states of sequence n. ``states`` are (N, T, M), ``lengths`` are (N,).
pooled = ...


def try_it(function) -> bool | str:
    """Compare the function with a loop over sequences."""
    states, lengths = -torch.rand(3, 6, 2) - 1, torch.tensor([6, 2, 1])
    wanted = torch.stack([states[n, :length].amax(0) for n, length in enumerate(lengths)])
    return torch.equal(function(states, lengths), wanted) or "some maximum is wrong (all states may be negative)"


check(pooled, try_it, hint="Give the padded states a value that never is the maximum.")

# %%
# .. dropdown:: Solution
#
#    A mask (N, T) marks the padding, and minus infinity never wins.
#
#    .. code-block:: python
#
#       def pooled(states, lengths):
#           padding = torch.arange(states.shape[1]) >= lengths[:, None]  # (N, T)
#           return states.masked_fill(padding[..., None], float("-inf")).amax(1)

# %%
# Exercise 3: the error of a guess
# --------------------------------
#
# In the original adding problem the numbers are uniform in [-1, 1]. Which mean squared error does the best constant
# prediction have?
error = ...
check(error, torchdl.AddingProblem(low=-1).baseline, hint="The variance of a uniform number is its range squared / 12.")

# %%
# .. dropdown:: Solution
#
#    The best constant is the mean, 0, and its error is the variance of a sum of two numbers.
#
#    .. code-block:: python
#
#       error = 2 * 2**2 / 12

# %%
# Where next
# ----------
#
# ``python scripts/long_distance.py --quick`` compares networks and pooling; without ``--quick`` it takes all distances
# and up to 30 terms, and ``--layers`` of ``adding_problem.py`` stacks recurrent layers on 100 terms. RESULTS has both
# under "Sequences and forecasting". The API: :class:`torchdl.SequenceModel`, :func:`torchdl.long_distance`,
# :class:`torchdl.AddingProblem`. Next: :doc:`/learn/17_images_as_sequences`, where the rows of an image are the terms.
