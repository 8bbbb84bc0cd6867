r"""
Contrastive predictive coding
=============================

Can a network learn to tell digits apart if it never sees a label, only which pictures follow each other? And what does
it need so that it learns the digit, and not the colour of the background?

At the end you can write InfoNCE by hand, say what chance and a perfect model reach, probe a frozen encoder, and
classify digits from one label each.
"""

import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from torch import nn

import torchdl
from torchdl.plots import plot_embeddings, plot_sequences

torch.manual_seed(0)

# %%
# The idea: predict the embedding, not the picture
# ------------------------------------------------
# The data are sequences of digits that count upwards, each drawn by another hand. The first :math:`T = 4` pictures are
# the context, the next :math:`K = 4` the future. Some sequences have a *false* future (red): each of its digits is
# another one than the correct one, chosen at random. Three sequences in grey, and the same in colour:
digits, test = (torchdl.load_digits(part, 28, color=False, name="mnist_5k") for part in ("train", "test"))
colored, colored_test = (torchdl.load_digits(part, 28, name="mnist_5k") for part in ("train", "test"))
SIZE = 32  # sequences per batch


def sequences(images, real=SIZE):
    """Return sequences of numbers; ``real`` of each batch have their real future."""
    return torchdl.SortedNumbers(images, terms=4, predict_terms=4, positive_samples=real, batch_size=SIZE)


grey, color = sequences(digits, 16)[:3], sequences(colored, 16)[:3]
shown = [torch.cat(pair) for pair in zip(grey, color, strict=True)]  # context, future, label, digits, expected
print(f"context {tuple(color.context.shape)}, future {tuple(color.future.shape)}, label {color.label.tolist()}")
plot_sequences(*shown[:4], low=-1)  # pixels are in [-1, 1]

# %%
# To predict a picture, a network would have to draw handwriting and backgrounds that nobody can know. Contrastive
# predictive coding predicts only an *embedding*. Three networks learn together:
#
# - the encoder turns the picture at time :math:`t` into an embedding :math:`z_t` of :math:`D` numbers;
# - a GRU reads :math:`z_1 \dots z_t` into a context :math:`c_t` of :math:`H` numbers;
# - for each step ahead, a linear map :math:`W_k` predicts the embedding :math:`z_{t+k}` as :math:`W_k c_t`.
#
# Embeddings that are all equal would be predicted perfectly, so the prediction must also *tell apart*: among the
# embeddings :math:`z^{(1)}_{t+k} \dots z^{(N)}_{t+k}` that the :math:`N` sequences of a batch have at that time, it has
# to find the one of its own sequence. The scores are dot products, an N x N matrix with a row for each context and a
# column for each candidate; the correct ones are on the diagonal. The loss, *InfoNCE*, is a cross-entropy with
# :math:`N` classes. For sequence :math:`i`:
#
# .. math::
#    L_i = -\log \frac{\exp(z^{(i)\top}_{t+k} W_k c^{(i)}_t)}{\sum_{n=1}^{N} \exp(z^{(n)\top}_{t+k} W_k c^{(i)}_t)} .
#
# A model that guesses has the loss :math:`\log N`. If the other candidates come from independent sequences,
# :math:`\log N - L` is a lower bound on the information that context and future share. Here that is which digit comes,
# :math:`\log 10`. So even a perfect model cannot choose between candidates of the same digit: its loss is about the
# logarithm of their number, not 0.

# %%
# By hand
# -------
# The Keras original's encoder for 64 pixels has four convolutions of 64 filters and stride 2, each with batch norm and
# LeakyReLU, then ``Flatten``, ``Dense(256)`` with the same, and ``Dense(code_size)``, which makes the embedding. For 28
# pixels it has three of 32 filters, and 128 units (:class:`torchdl.ImageEncoder` has both). Ours has half of these.
CODE, CONTEXT = 32, 64  # D (the original's code_size, there 128) and H (there 256)


def block(layer, norm, width):
    """Return a layer with batch norm and activation, with Keras' numbers."""
    return layer, norm(width, eps=1e-3, momentum=0.01), nn.LeakyReLU(0.3)


def new_networks():
    """Return an encoder, a GRU and four predictors."""
    encoder = nn.Sequential(
        *block(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d, 16),  # (B, 3, 28, 28) -> (B, 16, 13, 13)
        *block(nn.Conv2d(16, 16, 3, stride=2), nn.BatchNorm2d, 16),  # -> (B, 16, 6, 6)
        *block(nn.Conv2d(16, 16, 3, stride=2), nn.BatchNorm2d, 16),  # -> (B, 16, 2, 2)
        *(nn.Flatten(), *block(nn.Linear(64, 64), nn.BatchNorm1d, 64), nn.Linear(64, CODE)),  # -> (B, D)
    )
    predictors = nn.ModuleList(nn.Linear(CONTEXT, CODE) for _ in range(4))
    return nn.ModuleList([encoder, nn.GRU(CODE, CONTEXT, batch_first=True), predictors])


def embed_and_read(networks, batch):
    """Return the embeddings (N, 8, D) of all pictures and the contexts (N, 4, H)."""
    pictures = torch.cat([batch.context, batch.future], 1)  # (N, 8, 3, 28, 28)
    z = networks[0](pictures.flatten(0, 1)).unflatten(0, pictures.shape[:2])  # encoder: (N * 8, ...) -> (N, 8, D)
    return z, networks[1](z[:, :4])[0]


def info_nce(networks, batch):
    """Return the mean loss over all contexts and steps: 16 times, find its own sequence among N."""
    z, c = embed_and_read(networks, batch)
    own = torch.arange(len(z))
    losses = []
    for t in range(4):  # z[:, t] is the picture with number t + 1
        for k, predictor in enumerate(networks[2], 1):
            scores = predictor(c[:, t]) @ z[:, t + k].T  # (N, N): a row per prediction, a column per candidate
            losses.append(F.cross_entropy(scores, own))
    return torch.stack(losses).mean()


def train(networks, images, loss_of, steps, real=SIZE):
    """Train by Adam; return the losses."""
    adam = torch.optim.Adam(networks.parameters(), lr=2e-3)
    data, losses = sequences(images, real), []
    for step in range(steps):
        epoch, start = divmod(step * SIZE, len(data))
        data.set_epoch(epoch)  # other sequences in every epoch
        loss = loss_of(networks, data[start : start + SIZE])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return torch.tensor(losses)


untrained, networks = new_networks(), new_networks()
losses = train(networks, digits, info_nce, steps=240)
print(
    f"InfoNCE: first {losses[0]:.2f}, last 20 steps {losses[-20:].mean():.2f}, chance log {SIZE} = {math.log(SIZE):.2f}"
)

# %%
# With torchdl
# ------------
# :class:`torchdl.CPC` takes any encoder, ours too. With our weights, its task must return our loss. ``every_term``
# predicts from all four contexts, not only from the last; ``classes`` is for the measurements below, not for the loss.
context, predictors = torchdl.ContextNetwork(CODE, CONTEXT), torchdl.Predictors(CONTEXT, CODE, steps=4)
context.core.load_state_dict(networks[1].state_dict())
predictors.linear.load_state_dict(networks[2].state_dict())
task = torchdl.CPCTask(torchdl.CPC(networks[0], context, predictors, every_term=True), classes=10).eval()
batch = sequences(test)[:SIZE]
with torch.no_grad():
    by_torchdl, by_hand = next(task.losses(batch)).loss, info_nce(networks.eval(), batch)
torch.testing.assert_close(by_torchdl, by_hand)
print(f"loss on test digits: torchdl {by_torchdl:.6f}, by hand {by_hand:.6f}")

# %%
# .. list-table:: From the Keras original
#    :header-rows: 1
#
#    * - original
#      - here
#      - remark
#    * - ``MnistHandler``, ``MnistGenerator``
#      - :func:`torchdl.load_digits`
#      - ``subset``, ``image_size=28``, ``color=False``, ``rescale=True`` (pixels in [-1, 1])
#    * - ``SortedNumberGenerator``, ``SameNumberGenerator``
#      - :class:`torchdl.SortedNumbers`, :class:`torchdl.SameNumbers` (7 7 7 7)
#      - ``batch_size``, ``terms``, ``predict_terms=1``, ``positive_samples=1`` (real futures per batch); an epoch has
#        images // terms sequences, in whole batches
#    * - a step: ``[context, future], label``; ``PlotSequence``
#      - ``batch.context``, ``batch.future``, ``batch.label``; ``plot_sequences``
#      - context (32, 4, 64, 64, 3) and six terms of future there; here channels come before pixels, as printed above;
#        the label is 1 for a real future, 0 for a false one
#    * - the encoder in ``TimeDistributed``
#      - ``flatten(0, 1)``, then ``unflatten``
#      - batch norm sees all pictures of all sequences
#    * - ``Conv2D(64, 3, strides=2)``, ``LeakyReLU()``
#      - ``Conv2d(3, 64, 3, stride=2)``, ``LeakyReLU(0.3)``
#      - no padding: 28 becomes 13, 6, 2; the default slopes are 0.3 and 0.01
#    * - autoregressive part: ``GRU(256, return_sequences=False)``
#      - ``GRU(...)(z)[0][:, -1]``
#      - older Keras resets before the product and has hard sigmoids: ``ContextNetwork(reset_after=False, gate=...)``
#    * - prediction, CPC layer; CPC network, ``train_model``
#      - ``predictors``, ``match`` below; :class:`torchdl.CPC`, ``train``
#      - the layer returns :math:`\sigma\big(\frac{1}{KD} \sum_k z_{t+k}^\top W_k c_t\big)`

# %%
# Look: chance and ceiling
# ------------------------
# A top-1 accuracy of, say, 30 % sounds poor. Here it may be perfect: of the 31 other candidates, about three show the
# same digit. So the task also measures how often the best candidate shows the *correct digit* (a guess does so for
# about 4 of 32: its own, and those three), and for both the chance and the ceiling, what a perfect model reaches.
data = sequences(test)
with torch.no_grad():
    measured = [task.evaluate(data[start : start + SIZE]) for start in range(0, len(data), SIZE)]


def mean_of(key):
    """Return the mean of a measurement over the batches."""
    values = [m[key][0] if isinstance(m[key], tuple) else m[key] for m in measured]
    return torch.stack([v.float().mean() for v in values]).mean().item()


for name in ("top1", "digit_accuracy"):
    values = [mean_of(key) for key in (f"{name}_chance", name, f"{name}_ceiling")]
    print("{:15} chance {:6.1%}   ours {:6.1%}   ceiling {:6.1%}".format(name, *values))
bounds = [math.log(SIZE) - loss for loss in (losses[-20:].mean(), mean_of("loss"))]
print("{:15} training {:.2f}   test {:.2f}   at most log 10 = {:.2f}".format("log N - L", *bounds, math.log(10)))
fig, ax = plt.subplots(figsize=(6.5, 3.3), layout="constrained")
ax.plot(losses, color="C0", label="training")
ax.axhline(math.log(SIZE), color="0.5", linestyle="--", label="chance, log 32")
ax.axhline(math.log(SIZE / 10), color="0.5", linestyle=":", label="only the digit is known, log 3.2")
ax.set(title="InfoNCE on grey digits", xlabel="step", ylabel="loss")
ax.legend()

# %%
# The loss falls from one line towards the other, but does not reach it, although the best candidate almost always shows
# the correct digit. The loss asks for more than the best one: all candidates of that digit should have the same
# probability, and the others none. Being sure of the wrong one of the same digit costs most.
#
# Below you see the context (blue) and the four candidates that fit the predictions best. In green rows, which the plot
# calls real, all four digits are correct, in whatever handwriting. We show up to two sequences of each kind.
batch = data[64:]
with torch.no_grad():
    z, c = embed_and_read(networks, batch)
    best = torch.stack([(w(c[:, 3]) @ z[:, 4 + k].T).argmax(1) for k, w in enumerate(networks[2])], 1)  # (N, 4)
steps = torch.arange(4)
found, found_digits = batch.future[best, steps], batch.digits[:, 4:][best, steps]
correct = (found_digits == batch.digits[:, 4:]).all(1)
rows = torch.cat([correct.nonzero()[:2, 0], (~correct).nonzero()[:2, 0]])
print(f"{correct.float().mean():.0%} of these rows have four correct digits")
plot_sequences(
    batch.context[rows], found[rows], correct[rows], torch.cat([batch.digits[:, :4], found_digits], 1)[rows], low=-1
)

# %%
# Probes: what does the encoder know?
# -----------------------------------
# Now we use labels for the first time, to *measure*. The encoder stays frozen.
#
# - linear probe: logistic regression on the embeddings, with all training labels;
# - one label a digit: ten labelled test images, and each other one gets the label of the most similar embedding (mean
#   over 20 draws). Chance is 10 %.
#
# An untrained encoder is the reference that a probe needs: random features are not nothing. The pretrained ones come
# with torchdl and learned in the same way, without labels, from the pictures of 50,000 digits, which may include these;
# the one for colour is a larger network for 64 x 64 pixels.


@torch.no_grad()
def embed(encoder, data):
    """Return embeddings (N, D), standardised by their own mean and deviation, which takes no labels."""
    z = torch.cat([encoder.eval()(part) for part in data[: len(data)][0].split(500)])
    return (z - z.mean(0)) / z.std(0)


def one_label(z, labels):
    """Return the mean accuracy of the nearest of ten labelled embeddings."""
    z, scores = F.normalize(z), []
    for draw in range(20):
        order = torch.randperm(len(z), generator=torch.Generator().manual_seed(draw))
        known = torch.stack([order[labels[order] == digit][0] for digit in range(10)])
        right = (z @ z[known].T).argmax(1) == labels
        scores.append((right.sum() - 10) / (len(z) - 10))  # the ten know themselves
    return torch.stack(scores).mean()


encoders = {"untrained": untrained[0], "ours": networks[0]}
encoders |= {
    f"pretrained, {name}": torchdl.pretrained(f"cpc-{name}", "cpu").model.encoder for name in ("grey", "colour")
}
large = torchdl.load_digits("test", 64, name="mnist_5k")
for name, encoder in encoders.items():
    data = large if "colour" in name else test
    z = embed(encoder, data)
    probe = "   -  "  # 64 x 64 pixels would take too long
    if data is test:
        regression = LogisticRegression(max_iter=300).fit(embed(encoder, digits), digits.labels)
        probe = f"{regression.score(z, test.labels):6.1%}"
    print(f"{name:20} linear probe {probe}   one label a digit {one_label(z, data.labels):6.1%}")

# %%
# The embeddings of the test digits, flattened to two dimensions by t-SNE. The colours are the labels, which no training
# has seen.
flat = TSNE(random_state=0).fit_transform(embed(networks[0], test).numpy())
plot_embeddings(flat, test.labels.numpy(), test.classes, "our encoder, grey test digits")

# %%
# What breaks it: another loss, in colour
# ---------------------------------------
# The Keras original has another loss. It takes one future at a time, real or false, and classifies it by the mean
# product of predictions and embeddings, with a binary cross-entropy. Guessing costs :math:`\log 2`.


def match(networks, batch):
    """Return logits (N,): how well the futures match the predictions from the last term of context."""
    z, c = embed_and_read(networks, batch)
    predicted = torch.stack([predictor(c[:, 3]) for predictor in networks[2]], 1)  # (N, 4, D)
    return (predicted * z[:, 4:]).mean((1, 2))


def paired(networks, batch):
    """Return the loss of telling real futures from false ones, each by itself."""
    return F.binary_cross_entropy_with_logits(match(networks, batch), batch.label.float())


runs = {"InfoNCE, grey": losses[:200] / math.log(SIZE)}
runs["InfoNCE, colour"] = train(new_networks(), colored, info_nce, 200) / math.log(SIZE)
for name, images, tests in (("grey", digits, test), ("colour", colored, colored_test)):
    by_pairs = new_networks()
    runs[f"paired, {name}"] = train(by_pairs, images, paired, 200, real=16) / math.log(2)
    batch = sequences(tests, 16)[:96]
    with torch.no_grad():
        right = ((match(by_pairs.eval(), batch) > 0) == (batch.label == 1)).float().mean()
    print(f"paired, {name}: real or false? accuracy {right:.0%} of {len(batch.label)} test sequences, chance 50%")
fig, ax = plt.subplots(figsize=(6.5, 3.3), layout="constrained")
ax.axhline(1, color="0.5", linestyle="--", label="guessing")
for name, loss in runs.items():
    hue, style = ("C0" if "InfoNCE" in name else "C1"), (":" if "colour" in name else "-")
    ax.plot(range(10, 201), loss.unfold(0, 10, 1).mean(1), color=hue, linestyle=style, linewidth=2, label=name)
    print(f"{name}: last 20 steps {loss[-20:].mean():.2f} of the loss of guessing")
ax.set(title="losses beside guessing (means of 10 steps)", xlabel="step", ylabel="loss / loss of guessing")
ax.legend()

# %%
# In grey both losses work. In colour InfoNCE starts late, and the paired loss stays at that of guessing; its accuracy
# is about chance. Users of the original reported 50 %, too (its issues 4 and 17; see RESULTS). One reason is what an
# *untrained* encoder shows: this is the share of the embeddings' variance between the digits, rather than within them.


def share_between(z, labels):
    """Return the variance of the digits' means over the whole variance."""
    means = torch.stack([z[labels == digit].mean(0) for digit in range(10)])[labels]  # (N, D)
    return ((means - z.mean(0)).square().sum() / (z - z.mean(0)).square().sum()).item()


z = embed(untrained[0], colored_test)
colored_test.set_epoch(1)  # the same pictures in other colours
recolored = (z - embed(untrained[0], colored_test)).square().mean().item() / 2
print(f"untrained, grey:    {share_between(embed(untrained[0], test), test.labels):.1%}")
print(f"untrained, colour:  {share_between(z, colored_test.labels):.1%}; by other colours alone {recolored:.1%}")
print(f"pretrained, colour: {share_between(embed(encoders['pretrained, colour'], large), large.labels):.1%}")

# %%
# In grey, too, most variance is handwriting. But in colour the digit has even less, and most of the rest comes from the
# colours, which say nothing about the label. The paired loss gets one bit for a sequence, so its gradient is mostly
# noise. InfoNCE compares each prediction with all futures of the batch at once, which is a stronger signal.
#
# With more steps the paired loss works in colour as well if the colours weigh less: if each image's mean colour is
# subtracted (``center_images=True``), or if the first convolution is normalised for each image alone
# (``first_norm="instance"``). 200 steps are too few to show it; RESULTS has the runs and their accuracies.

# %%
# Exercise 1: a ceiling
# ---------------------
# A batch has 40 sequences. At a step, 20 of them show a 3, and five other digits are there four times each. Which top-1
# accuracy does a model reach at this step that always predicts the correct digit, and nothing else?
ceiling = ...

check(ceiling, (20 * 1 / 20 + 20 * 1 / 4) / 40, hint="It guesses among the candidates of the same digit.")

# %%
# .. dropdown:: Solution
#
#    Each digit that is there is found once, on average. So it is the number of digits over the number of candidates.
#
#    .. code-block:: python
#
#       ceiling = 6 / 40

# %%
# Exercise 2: InfoNCE without cross_entropy
# -----------------------------------------
# Write a function of scores (N, N), whose diagonal belongs to the correct candidates. It returns the mean loss. Do
# without ``cross_entropy`` and ``log_softmax``, and let scores in the thousands be no problem.
nce = ...


def compare(f):
    """Compare a loss with cross-entropy, for small and large scores."""
    scores = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    for scale, size in ((1, "small"), (1000, "large")):
        wanted = F.cross_entropy(scale * scores, torch.arange(6)).item()
        if not math.isclose(float(f(scale * scores)), wanted, rel_tol=1e-3):
            return f"the loss of {size} scores has another value"
    return True


check(nce, compare, hint="Write the logarithm of the fraction as a difference, and take the mean.")

# %%
# .. dropdown:: Solution
#
#    The logarithm of the denominator is ``logsumexp`` over the candidates; that of the numerator is the score.
#
#    .. code-block:: python
#
#       def nce(scores):
#           return (scores.logsumexp(1) - scores.diagonal()).mean()

# %%
# Exercise 3: the encoder for 64 pixels
# -------------------------------------
# The original's encoder for 64 x 64 pixels has four such convolutions, with kernels of 3, stride 2 and no padding. What
# is the side of the last map?
side = ...

check(
    side,
    nn.Sequential(*(nn.Conv2d(1, 1, 3, stride=2) for _ in range(4)))(torch.zeros(1, 1, 64, 64)).shape[-1],
    hint="From 28 it was 13, 6, 2.",
)

# %%
# .. dropdown:: Solution
#
#    Each convolution turns a side s into (s - 3) // 2 + 1: 64, 31, 15, 7, 3.
#
#    .. code-block:: python
#
#       side = 3

# %%
# Where next
# ----------
# ``python scripts/train_cpc.py`` trains on colour, ``--head paired`` with the original's loss, ``--as-given`` with all
# of its conventions; ``python scripts/probe_cpc.py RUN`` probes the result. RESULTS has both beside the original's
# accuracies. ``python scripts/train_cpc_signals.py`` does the same for movements recorded by a watch. In the API:
# :class:`torchdl.CPCTask`, :class:`torchdl.SortedNumbers`, :class:`torchdl.SameNumbers` (7 7 7 7),
# :class:`torchdl.OrderedSequences` for data of your own, and :func:`torchdl.image_cpc`. The last lesson,
# :doc:`/learn/26_your_own`, brings your data, your model and your loss.
