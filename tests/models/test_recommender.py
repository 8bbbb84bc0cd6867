from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import fill_

import torchdl
from torchdl import InputError, MatrixFactorization, RatingModel

USERS, ITEMS = 7, 11
MODELS = {
    "course": lambda: RatingModel(USERS, ITEMS, 3.5),
    "network": lambda: RatingModel(USERS, ITEMS, 3.5, dim=3, hidden=8, dropout=0.5, factors=4),
    "mf": lambda: MatrixFactorization(USERS, ITEMS, 3.5, dim=4),
    "bias": lambda: MatrixFactorization(USERS, ITEMS, 3.5, dim=0),
}
PAIRS = torch.cartesian_prod(torch.arange(1, USERS + 1), torch.arange(1, ITEMS + 1))


def built(name: str):
    model = MODELS[name]()
    for seed, part in enumerate(model.modules()):
        if any(p.numel() for p in part.parameters(recurse=False)):  # those of dim 0 are empty
            fill_(part, seed)
    with torch.no_grad():  # 0 has no vector
        for part in model.modules():
            if isinstance(part, torch.nn.Embedding):
                part.weight[0] = 0
    return model.eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras' own
def test_the_course_network_with_the_listings_weights_gives_its_ratings(keras):
    layers = keras.layers
    u, m = keras.Input((1,)), keras.Input((1,))
    x = layers.Concatenate()([layers.Flatten()(layers.Embedding(n, 10)(i)) for n, i in ((USERS, u), (ITEMS, m))])
    listing = keras.Model([u, m], layers.Dense(1)(layers.Dense(1024, activation="relu")(x)))
    random = np.random.default_rng(0)
    for weight in listing.weights:
        weight.assign(random.standard_normal(weight.shape).astype(np.float32) / np.sqrt(weight.shape[0]))
    shaped = {tuple(weight.shape): weight.value.detach().cpu() for weight in listing.weights}
    shapes = ((USERS, 10), (ITEMS, 10), (20, 1024), (1024,), (1024, 1), (1,))
    users, items, kernel, bias, last, last_bias = (shaped[shape] for shape in shapes)
    ours = MODELS["course"]().eval()
    assert sum(p.numel() for p in ours.parameters()) == listing.count_params() + 2 * 10  # number 0's vectors
    with torch.no_grad():
        ours.user_vectors.weight[1:], ours.item_vectors.weight[1:] = users, items
        ours.layers[1].weight.copy_(kernel.T)
        ours.layers[1].bias.copy_(bias)
        ours.layers[4].weight.copy_(last.T)
        ours.layers[4].bias.copy_(last_bias)
        found = ours(PAIRS)
    numbers = (PAIRS - 1).numpy()
    expected = listing([numbers[:, :1], numbers[:, 1:]], training=False).detach().cpu().numpy()[:, 0]
    assert expected.std() > 0.1
    np.testing.assert_allclose(found.numpy() - 3.5, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_rating_is_what_its_formula_says(name):
    model = built(name)
    with torch.no_grad():
        found = model(PAIRS)
    state = {key: value.double().numpy() for key, value in model.state_dict().items()}
    expected = []
    for user, item in PAIRS.tolist():
        deep = product = biases = 0.0
        if name in ("course", "network"):
            both = np.concatenate([state["user_vectors.weight"][user], state["item_vectors.weight"][item]])
            hidden = np.maximum(state["layers.1.weight"] @ both + state["layers.1.bias"], 0)
            deep = float((state["layers.4.weight"] @ hidden + state["layers.4.bias"])[0])
        if name != "course":
            prefix = "factorization." if name == "network" else ""
            biases = state[f"{prefix}user_bias.weight"][user, 0] + state[f"{prefix}item_bias.weight"][item, 0]
            product = state[f"{prefix}user_vectors.weight"][user] @ state[f"{prefix}item_vectors.weight"][item]
        expected.append(3.5 + biases + ((deep + product) / 2 if name == "network" else deep + product))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    assert found.std() > 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_unseen_users_and_items_get_the_mean_and_the_biases_that_are_known(name):
    model = built(name)
    with torch.no_grad():
        neither, no_user, no_item = (model(torch.tensor([pair])).item() for pair in ([0, 0], [0, 2], [2, 0]))
    assert neither == 3.5
    if name == "course":
        assert no_user == no_item == 3.5
    else:
        part = model.factorization if name == "network" else model
        assert no_user == pytest.approx(3.5 + part.item_bias.weight[2].item())
        assert no_item == pytest.approx(3.5 + part.user_bias.weight[2].item())
        assert no_user != no_item


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
@pytest.mark.parametrize("name", MODELS)
def test_every_weight_learns_but_not_the_unseen_ones(name, kind):
    torch.manual_seed(0)
    model = built(name).train()
    pairs = torch.cat([PAIRS, torch.tensor([[0, 1], [1, 0], [0, 0]])]).to(kind)
    F.mse_loss(model(pairs), torch.linspace(1, 5, len(pairs))).backward()
    for key, parameter in model.named_parameters():
        if parameter.numel() and not (name == "bias" and "vectors" in key):
            assert parameter.grad.abs().sum() > 0, key
            if "vectors" in key or "_bias" in key:
                assert parameter.grad[0].abs().sum() == 0, key
    model.zero_grad()
    optimizer = torch.optim.Adam(model.parameters(), 0.1, weight_decay=0.1)
    F.mse_loss(model(pairs), torch.linspace(1, 5, len(pairs))).backward()
    optimizer.step()
    assert model.eval()(torch.tensor([[0, 0]], dtype=kind)).item() == 3.5


def test_in_training_the_network_or_the_product_stands_for_both():
    model = built("network")
    model.dropout, model.layers[0].p, model.layers[3].p = 0.0, 0.0, 0.0
    with torch.no_grad():
        biases, product = model.factorization.parts(PAIRS)
        whole = model(PAIRS)
        deep = 2 * (whole - 3.5 - biases) - product
        torch.manual_seed(0)
        found = model.train()(PAIRS) - 3.5 - biases
    is_product, is_deep = ((found - one).abs() < 1e-6 for one in (product, deep))
    assert bool((is_product | is_deep).all())
    assert 0.3 < is_product.float().mean() < 0.7


@pytest.mark.parametrize("name", MODELS)
def test_what_is_saved_is_loaded(tmp_path, name):
    model = built(name)
    torchdl.save(model, tmp_path)
    with torch.no_grad():
        assert torch.equal(torchdl.load(tmp_path)(PAIRS), model(PAIRS))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RatingModel(0, 1), "users"),
        (lambda: RatingModel(1, 1, dim=0), "dim"),
        (lambda: RatingModel(1, 1, dropout=1.0), "dropout.*1.0"),
        (lambda: RatingModel(1, 1, factors=-1), "factors.*-1"),
        (lambda: MatrixFactorization(1, 1, dim=-1), "dim.*-1"),
        (lambda: MODELS["mf"]()(torch.zeros(3, dtype=torch.int64)), "pairs"),
        (
            lambda: RatingModel(9, 3)(torch.tensor([[9, 3], [10, 0]])),
            "users .*from 1 to 9, .*from 9 to 10: count from 1",
        ),
        (lambda: RatingModel(9, 3, factors=2)(torch.tensor([[1, 4]])), "items .*from 1 to 3,.*from 4 to 4"),
        (lambda: MatrixFactorization(9, 3)(torch.tensor([[1, -1]])), "items .*from -1 to -1"),
    ],
)
def test_bad_arguments_are_refused(build, message):
    with pytest.raises(InputError, match=message):
        build()
