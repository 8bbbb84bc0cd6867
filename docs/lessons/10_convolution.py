"""
Convolution
===========

What does a convolution compute, and why do networks for images consist of it? A small kernel slides over an image, and
every number of the result is a dot product with one window.

At the end you can

- compute a convolution by loops, by windows and by a matrix, and show that all of them agree with PyTorch,
- predict the size of the result in the modes valid, same and full,
- tell cross-correlation from true convolution,
- read a convolution as a search for a pattern, and say why Pearson's correlation searches better,
- count the parameters of a convolutional layer, and learn a kernel from examples.
"""

# %%
# The idea
# --------
# Take a signal :math:`a` of N numbers and a kernel :math:`w` of K numbers. Lay the kernel over the first K numbers,
# multiply, add up; then move it by one place, until it reaches the end:
#
# .. math:: b_i = \sum_{k=0}^{K-1} a_{i+k}\, w_k, \qquad i = 0, \dots, N-K.
#
# There are :math:`N-K+1` places, so the result is shorter than the signal. An image has one index more, and so has
# the kernel. Images may have any sides; kernels are nearly always square:
#
# .. math:: b_{ij} = \sum_{k=0}^{h-1} \sum_{l=0}^{w-1} a_{i+k,\,j+l}\, w_{kl},
#    \qquad (H, W),\ (h, w) \to (H-h+1,\ W-w+1).
#
# What the kernel holds decides what comes out. Equal numbers blur, because each pixel becomes a mean of its
# neighbourhood. Numbers that add up to 0 give 0 wherever the image is flat, so they find edges. A convolution is a
# transformation of features with very few parameters.
#
# By hand: four loops
# -------------------
# The sums can be written down as they stand. Our image is a photograph that comes with scikit-learn.

import time

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from scipy.signal import convolve2d
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

import torchdl
from torchdl.convolution import SOBEL_X, as_matrix, convolve, correlate, correlate_by_loops, correlate_color, gaussian

torch.manual_seed(0)
photo = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1) / 255  # (H, W, 3) -> (3, H, W)
grey = photo.mean(0)  # (H, W)
small = grey[100:160, 100:200]  # (60, 100)


def by_loops(image: Tensor, kernel: Tensor) -> Tensor:
    """Slide a kernel (h, w) over an image (H, W)."""
    (height, width), (h, w) = image.shape, kernel.shape
    result = torch.zeros(height - h + 1, width - w + 1)
    for i in range(result.shape[0]):
        for j in range(result.shape[1]):
            for k in range(h):
                for m in range(w):
                    result[i, j] += image[i + k, j + m] * kernel[k, m]
    return result


print(f"image {tuple(small.shape)}, kernel {tuple(SOBEL_X.shape)}, result {tuple(by_loops(small, SOBEL_X).shape)}")

# %%
# By hand: windows
# ----------------
# Loops in Python are slow. ``unfold`` makes a view of all windows, without a copy, and one product of arrays does the
# rest. This is what "vectorized" means: the same sums, without a loop that Python sees.


def by_windows(image: Tensor, kernel: Tensor) -> Tensor:
    """Multiply every window with the kernel at once."""
    windows = image.unfold(0, kernel.shape[0], 1).unfold(1, kernel.shape[1], 1)  # (H', W', h, w)
    return torch.einsum("ijkm,km->ij", windows, kernel)  # (H', W')


def by_pytorch(image: Tensor, kernel: Tensor) -> Tensor:
    """Use PyTorch's function, which takes batches (B, C, H, W) and kernels (O, C, h, w)."""
    return F.conv2d(image[None, None], kernel[None, None])[0, 0]


for way in (by_loops, by_windows, by_pytorch):
    since = time.perf_counter()
    result = way(small, SOBEL_X)
    print(f"{way.__name__:11} {1000 * (time.perf_counter() - since):8.2f} ms")
    torch.testing.assert_close(result, by_pytorch(small, SOBEL_X))

# %%
# Valid, same and full
# --------------------
# A kernel that stays inside the image makes a smaller result, and pixels at the edge take part in fewer windows.
# Zeros around the image change that:
#
# - **valid**: no zeros. N pixels become :math:`N-K+1`. It is the default of layers.
# - **same**: :math:`K-1` zeros in total. N pixels stay N. Deep networks use it, as they would run out of pixels.
# - **full**: :math:`K-1` zeros on each side, so every overlap counts: :math:`N+K-1`. It is rare in networks.
#
# Zeros are not neutral. The figure blurs a white image, in which there is nothing to see.

white, blur = torch.ones(20, 20), gaussian(7, 2.0)
results = {mode: correlate(white, blur, mode) for mode in ("valid", "same", "full")}
fig, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
for ax, (mode, result) in zip(axes, results.items(), strict=True):
    shown = ax.imshow(result, cmap="gray", vmin=0, vmax=1)
    ax.set(
        title=f"{mode}: {result.shape[0]} x {result.shape[1]} pixels",
        xlabel="column",
        ylabel="row",
        xticks=range(0, len(result), 5),
        yticks=range(0, len(result), 5),
    )
fig.colorbar(shown, ax=axes, label="value of the result")
fig.suptitle("A white image of 20 x 20 pixels, blurred by a kernel of 7 x 7")
plt.show()

# %%
# Only valid is white everywhere. In the other modes the result is dark along the edge, because zeros are black
# pixels. A network can read from this where the edge of the image is.
#
# What breaks it: the kernel runs backwards
# -----------------------------------------
# Mathematics and signal processing define convolution with a minus sign:
#
# .. math:: c_{ij} = \sum_{k,l} a_{i-k,\,j-l}\, w_{kl}.
#
# The kernel runs backwards, so it is turned by 180 degrees. What layers compute, without the turn, is called
# **cross-correlation**. Training finds the kernel, so it does not matter which of the two a layer uses: it would learn
# the turned kernel instead. It matters when you compare numbers with SciPy's, or take a kernel from a book.

image, kernel = torch.randn(8, 9), torch.randn(3, 3)
true = torch.from_numpy(convolve2d(image.numpy(), kernel.numpy(), mode="valid"))
turned = torch.from_numpy(convolve2d(image.numpy(), kernel.flip(0, 1).numpy(), mode="valid"))
print(f"SciPy's convolution differs from PyTorch's by up to {(true - by_pytorch(image, kernel)).abs().max():.3f};")
print(f"with the kernel turned first, by up to {(turned - by_pytorch(image, kernel)).abs().max():.0e}")
torch.testing.assert_close(convolve(image, kernel), true)

# %%
# A pattern finder
# ----------------
# Each number of the result is a dot product of two vectors: a window and the kernel, both as :math:`hw` numbers.
#
# .. math:: a^\top w = |a|\,|w| \cos\theta.
#
# The cosine is 1 if window and kernel point the same way, 0 at a right angle, -1 if they are opposite. So a large
# result says "here the image looks like the kernel", or "here the image is bright", since :math:`|a|` is a factor,
# too. Pearson's correlation removes both brightness and contrast: it is the cosine after the mean is subtracted,
#
# .. math:: \rho = \frac{\sum_k (a_k - \bar a)(w_k - \bar w)}
#    {\sqrt{\sum_k (a_k - \bar a)^2}\, \sqrt{\sum_k (w_k - \bar w)^2}}.
#
# What breaks it: brightness
# ~~~~~~~~~~~~~~~~~~~~~~~~~~
# We cut a piece out of the photograph and search for it, once by the plain dot product, once by Pearson's.


def pearson(image: Tensor, kernel: Tensor) -> Tensor:
    """Return Pearson's correlation (H', W') of every window with the kernel."""
    windows = image.unfold(0, kernel.shape[0], 1).unfold(1, kernel.shape[1], 1)  # (H', W', h, w)
    windows = windows - windows.mean((2, 3), keepdim=True)
    kernel = kernel - kernel.mean()
    lengths = windows.pow(2).sum((2, 3)).sqrt() * kernel.pow(2).sum().sqrt()  # (H', W')
    return torch.einsum("ijkm,km->ij", windows, kernel) / lengths.clamp(min=1e-6)


half = grey[::2, ::2]
top, left, side = 12, 93, 24
pattern = half[top : top + side, left : left + side]
found = {}
for name, scores in {"dot product": by_pytorch(half, pattern), "Pearson": pearson(half, pattern)}.items():
    found[name] = divmod(int(scores.argmax()), scores.shape[1])
    print(f"{name:11} is largest, {scores.max():6.2f}, at row {found[name][0]:3}, column {found[name][1]:3}")

fig, (ax, piece) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", width_ratios=(4, 1))
ax.imshow(half, cmap="gray")
for (name, (row, column)), color in zip(found.items(), ("C1", "C0"), strict=True):
    ax.add_patch(plt.Rectangle((column, row), side, side, fill=False, edgecolor=color, linewidth=3, label=name))
ax.set(title="Where is the piece?", xlabel="column", ylabel="row")
ax.legend(loc="lower left")
piece.imshow(pattern, cmap="gray")
piece.set(title="The piece", xticks=[], yticks=[])
plt.show()

# %%
# The dot product finds the bright sky. Pearson's correlation is 1 at the place where the piece was cut out, and
# nowhere else. Networks do not divide by the length of each window, but they subtract means and use biases, and a
# kernel whose numbers add up to 0 ignores brightness.
#
# A matrix with shared weights
# ----------------------------
# A convolution is linear, so it is a product with a matrix. In one dimension each row holds the same K numbers, one
# place further to the right. In two dimensions the image is flattened first.

line, w = torch.randn(8), torch.tensor([1.0, 2.0, 3.0])
toeplitz = torch.zeros(6, 8)
for i in range(6):
    toeplitz[i, i : i + 3] = w
torch.testing.assert_close(toeplitz @ line, F.conv1d(line[None, None], w[None, None])[0, 0])

matrix = as_matrix(torch.arange(1.0, 10.0).view(3, 3), 6, 6)  # (4 * 4, 6 * 6)
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", width_ratios=(1, 2))
axes[0].imshow(toeplitz, cmap="Blues")
axes[0].set(title="8 numbers, kernel (1, 2, 3)")
axes[1].imshow(matrix, cmap="Blues")
axes[1].set(title="6 x 6 pixels, kernel of 3 x 3 with weights 1 to 9", yticks=range(0, 16, 4))
for ax in axes:
    ax.set(xlabel="place in the input", ylabel="place in the result")
plt.show()

# %%
# The darker, the larger the weight. Every row has the same weights in other columns; everything else is 0. A dense
# layer would have a weight of its own in each cell. For an image of 224 x 224 pixels the matrix would fill the memory
# of many machines. The kernel has 9 numbers.

cells = (224 - 2) ** 2 * 224**2
print(f"the matrix has {cells:,} cells, {4 * cells / 2**30:.1f} GiB in float32")

# %%
# Shared weights have a second effect. If the input moves, the result moves with it, and is the same otherwise. A
# dense layer has to learn a pattern anew at each place.

moved = torch.roll(small, shifts=(0, 5), dims=(0, 1))
torch.testing.assert_close(by_windows(moved, SOBEL_X)[:, 5:], by_windows(small, SOBEL_X)[:, :-5])
dense = nn.Linear(60 * 100, 1)
before, after = (float(dense(x.flatten()).detach()) for x in (small, moved))
print(f"a dense unit changes from {before:.3f} to {after:.3f} when the image moves by 5 pixels")

# %%
# Colour, many kernels, biases
# ----------------------------
# A colour image is a box (C, H, W) with C = 3. A kernel is a box of the same depth (C, h, w): it moves along rows and
# columns only, and the products are summed over the channels, too. So the third dimension vanishes. O kernels make O
# maps. The bias has one number a map, (O,), and is added to all of its pixels, which is called broadcasting:
#
# .. math:: z_{oij} = b_o + \sum_{c,k,l} x_{c,\,i+k,\,j+l}\, w_{ockl},
#    \qquad (C, H, W),\ (O, C, h, w) \to (O,\ H-h+1,\ W-w+1).

layer = nn.Conv2d(in_channels=3, out_channels=16, kernel_size=5)
crop = photo[:, :32, :32]
windows = crop.unfold(1, 5, 1).unfold(2, 5, 1)  # (C, H', W', h, w)
by_hand = torch.einsum("cijkm,ockm->oij", windows, layer.weight) + layer.bias[:, None, None]
torch.testing.assert_close(by_hand, layer(crop[None])[0])
torch.testing.assert_close(by_hand, correlate_color(crop, layer.weight, layer.bias))

convolutional = sum(p.numel() for p in layer.parameters())
fully = 3 * 32 * 32 * by_hand.numel() + by_hand.numel()
print(f"{tuple(crop.shape)} -> {tuple(by_hand.shape)}: a convolution has {convolutional:,} parameters")
print(f"a dense layer between the same shapes would have {fully:,}, {fully / convolutional:,.0f} times as many")

# %%
# The count is :math:`O\,(C\,h\,w + 1)`. The size of the image is not in it.
#
# With torchdl
# ------------
# :mod:`torchdl.convolution` has all of these steps as functions that are meant to be read.

for mode, pad in {"valid": 0, "same": 1, "full": 2}.items():
    wanted = F.conv2d(small[None, None], SOBEL_X[None, None], padding=pad)[0, 0]
    torch.testing.assert_close(correlate(small, SOBEL_X, mode), wanted)
    product = as_matrix(SOBEL_X, 12, 10, mode) @ small[:12, :10].flatten()  # (H' * W',)
    torch.testing.assert_close(product, correlate(small[:12, :10], SOBEL_X, mode).flatten())
torch.testing.assert_close(correlate_by_loops(small, SOBEL_X), by_loops(small, SOBEL_X))

# %%
# Look
# ----
# Six results on one photograph. A blur of each colour by itself needs kernels (3, 3, 9, 9) that are 0 between
# different channels. The last kernel adds red, a little green, and subtracts blue: it answers how orange a place is.

blur = gaussian(9, 2.0)
each = torch.zeros(3, 3, 9, 9)  # (O, C, h, w)
each[range(3), range(3)] = blur
orange = torch.tensor([1.0, 0.3, -1.0])[None, :, None, None] * blur  # (1, C, h, w)
x_edges, y_edges = correlate(grey, SOBEL_X, "same"), correlate(grey, SOBEL_X.T, "same")
torchdl.plots.plot_images(
    {
        "photograph": photo,
        "blurred by a 9 x 9 Gaussian": correlate_color(photo, each, mode="same"),
        "vertical edges: Sobel": x_edges,
        "horizontal edges: Sobel, transposed": y_edges,
        "edges of all directions": (x_edges**2 + y_edges**2).sqrt(),
        "orange: one kernel of 3 channels": correlate_color(photo, orange, mode="same"),
    }
)

# %%
# Grey is 0 in the two pictures of edges: white is a step from dark to bright, black the opposite. Columns show in one
# of them, the edges of the roofs in the other.
#
# Kernels can be learned
# ----------------------
# Nobody chooses the kernels of a network. The result depends on them linearly, so gradient descent finds them, as it
# finds any weight. We show a layer the photograph and its vertical edges, and do not tell it the kernel.

inputs, targets = grey[None, None, ::2, ::2], correlate(grey[::2, ::2], SOBEL_X)[None, None]  # (1, 1, H, W)
learner = nn.Conv2d(1, 1, 3, bias=False)
start = learner.weight.detach().clone()
optimizer = torch.optim.Adam(learner.parameters(), lr=0.05)
for _ in range(300):
    loss = F.mse_loss(learner(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"loss {loss:.1e}; the learned kernel:\n{learner.weight.detach()[0, 0].round(decimals=2)}")

# %%
# It is Sobel's, found from examples. The same with torchdl, from the same weights:

again = nn.Conv2d(1, 1, 3, bias=False)
again.load_state_dict({"weight": start})
task = torchdl.Supervised(again, F.mse_loss, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.05))
torchdl.Trainer(epochs=300, device="cpu").fit(task, torchdl.BatchLoader(torchdl.ArrayDataset(inputs, targets), 1))
torch.testing.assert_close(again.weight, learner.weight)

# %%
# From Keras and SciPy to PyTorch
# -------------------------------
# .. list-table::
#    :header-rows: 1
#
#    * - there
#      - here
#      - the trap
#    * - ``Conv2D(32, (3, 3))`` reads (B, H, W, C)
#      - ``nn.Conv2d(C, 32, 3)`` reads (B, C, H, W)
#      - channels come first; PyTorch wants to be told C
#    * - kernels (h, w, C, O)
#      - kernels (O, C, h, w)
#      - copied weights need ``permute(3, 2, 0, 1)``
#    * - ``padding="same"``
#      - ``padding="same"``, or ``padding=1`` for 3 x 3
#      - with a stride, PyTorch refuses the word
#    * - Glorot-uniform kernels, biases 0
#      - Kaiming-uniform kernels, uniform biases
#      - equal networks start differently
#    * - ``convolve2d(a, w, mode)``
#      - ``torchdl.convolution.convolve(a, w, mode)``
#      - for what layers compute, turn the kernel first

# %%
# Exercise 1: How large is the result?
# ------------------------------------
# An image has 48 rows and 64 columns, a kernel 5 rows and 7 columns. Which size [rows, columns] has the result in
# mode valid?

size = ...
check(size, list(correlate(torch.zeros(48, 64), torch.zeros(5, 7)).shape), hint="Each side loses K - 1.")

# %%
# .. dropdown:: Solution
#
#    Each side of N pixels has N - K + 1 places for K pixels.
#
#    .. code-block:: python
#
#       size = [48 - 5 + 1, 64 - 7 + 1]

# %%
# Exercise 2: How many parameters?
# --------------------------------
# A layer reads 32 maps and makes 64, by kernels of 3 x 3, with biases.

parameters = ...
check(
    parameters,
    sum(p.numel() for p in nn.Conv2d(32, 64, 3).parameters()),
    hint="A kernel has as many channels as the input; each map has one bias.",
)

# %%
# .. dropdown:: Solution
#
#    There are 64 kernels of 32 x 3 x 3 numbers, each with a bias.
#
#    .. code-block:: python
#
#       parameters = 64 * (32 * 3 * 3 + 1)

# %%
# Exercise 3: True convolution from PyTorch
# -----------------------------------------
# Write a function of an image (H, W) and a kernel (h, w) that returns their true convolution in mode **full**, by
# ``F.conv2d`` with its argument ``padding``.

full_convolution = ...
wide, wanted = kernel[:, :2], torch.from_numpy(convolve2d(image.numpy(), kernel[:, :2].numpy()))
check(
    full_convolution,
    lambda function: torch.allclose(function(image, wide), wanted, atol=1e-5) or "SciPy has other numbers",
    hint="Turn the kernel by 180 degrees; pad by its sides less 1.",
)

# %%
# .. dropdown:: Solution
#
#    ``flip`` along both axes turns the kernel; ``padding`` takes a number for each axis.
#
#    .. code-block:: python
#
#       def full_convolution(a, w):
#           around = (w.shape[0] - 1, w.shape[1] - 1)
#           return F.conv2d(a[None, None], w.flip(0, 1)[None, None], padding=around)[0, 0]

# %%
# Where next
# ----------
# - ``python scripts/show_convolution.py`` draws the photographs in a clone, and measures how far all ways differ.
# - :mod:`torchdl.convolution` is the code of this lesson in 100 lines.
# - RESULTS.md lists the largest difference from PyTorch's and SciPy's numbers, in float64: a rounding error.
# - The next lesson stacks convolutions to a network: :doc:`/learn/11_convolutional_networks`.
