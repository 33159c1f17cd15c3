"""The vision transformer by hand, and under every defense and attack."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import erf, softmax

import keras_robust as kr
from keras_robust.models import adapt, vit
from tests.contracts.attack_table import BALLS, ROWS
from tests.contracts.defense_table import CERTIFIED, DEFENSES, ENSEMBLES

TINY = {"dim": 8, "depth": 2, "heads": 2}
SHAPE = (8, 4, 3)


@pytest.fixture(scope="module")
def model():
    """A model whose biases, scales and tokens are not those of a new one."""
    keras.utils.set_random_seed(0)
    model = vit(SHAPE, 4, **TINY)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + rng.normal(scale=0.3, size=weight.shape))
    return model


def images(count=3, shape=SHAPE):
    return np.random.default_rng(1).uniform(size=(count, *shape)).astype("float32")


def norm(x, layer):
    centered = x - x.mean(axis=-1, keepdims=True)
    scaled = centered / np.sqrt(np.mean(np.square(centered), axis=-1, keepdims=True) + 1e-6)
    return scaled * layer.gamma.numpy() + layer.beta.numpy()


def attention(x, layer):
    """Of each head: softmax(q k^T / sqrt(d)) v, over the tokens of an image."""
    q, k, v = (
        np.einsum("btd,dhe->bhte", x, dense.kernel.numpy()) + dense.bias.numpy()[:, None]
        for dense in (layer.query_dense, layer.key_dense, layer.value_dense)
    )
    weights = softmax(q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1]), axis=-1)
    output = layer.output_dense
    return np.einsum("bhte,hed->btd", weights @ v, output.kernel.numpy()) + output.bias.numpy()


def dense(x, layer):
    return x @ layer.kernel.numpy() + layer.bias.numpy()


def test_on_paper(model):
    """Patches row by row, the class token before them, two pre-norm blocks, the last norm."""
    x, layer = images(), model.get_layer
    patches = [x[:, 0:4], x[:, 4:8]]
    kernel = layer("patches").kernel.numpy().reshape(48, 8)
    tokens = np.stack([patch.reshape(3, 48) @ kernel for patch in patches], axis=1)
    tokens += layer("patches").bias.numpy()
    positions = layer("positions")
    token = np.broadcast_to(positions.token.numpy(), (3, 1, 8))
    x = np.concatenate([token, tokens], axis=1) + positions.position.numpy()
    for block in ("block1", "block2"):
        x = x + attention(norm(x, layer(f"{block}_norm1")), layer(f"{block}_attention"))
        y = dense(norm(x, layer(f"{block}_norm2")), layer(f"{block}_fc1"))
        y = y * (1 + erf(y / np.sqrt(2))) / 2
        x = x + dense(y, layer(f"{block}_fc2"))
    features = norm(x, layer("last_norm"))[:, 0]
    outputs = model(images(), training=False)
    np.testing.assert_allclose(outputs["features"], features, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["logits"], dense(features, layer("logits")), atol=1e-4)


def test_the_mean_of_tokens_does_not_know_their_order_without_positions():
    keras.utils.set_random_seed(0)
    model = vit(SHAPE, 4, pool="mean", **TINY)
    positions = model.get_layer("positions")
    assert [weight.name for weight in positions.weights] == ["position"]
    assert positions.output.shape == (None, 2, 8)
    x = images()
    swapped = np.concatenate([x[:, 4:], x[:, :4]], axis=1)
    assert np.any(np.abs(model(x)["logits"] - model(swapped)["logits"]) > 1e-4)
    positions.position.assign(tf.zeros_like(positions.position))
    np.testing.assert_allclose(model(x)["logits"], model(swapped)["logits"], atol=1e-6)


def test_the_tokens_of_a_block_can_be_the_features(model):
    found = adapt(model, features="block1_add2")(images())["features"]
    assert found.shape == (3, 3 * 8)


def test_dropout_after_each_attention_and_mlp():
    model = vit(SHAPE, 4, dropout=0.5, **TINY)
    assert sum(isinstance(layer, keras.layers.Dropout) for layer in model.layers) == 4
    first, second = (model(images(), training=True)["logits"] for _ in range(2))
    assert np.any(first != second)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"patch": 3}, "patch is 3, and images have 8 x 4 pixels; expected a patch that divides"),
        ({"heads": 3}, "dim is 8 and heads is 3; expected a multiple of heads"),
        ({"depth": 0}, "depth is 0; expected an integer >= 1"),
        ({"dim": 8.5}, "dim is 8.5; expected an integer >= 1"),
        ({"pool": "max"}, "pool is 'max'; expected one of 'token', 'mean'"),
        ({"dropout": 1.0}, "dropout is 1.0; expected"),
    ],
)
def test_refused(options, text):
    with pytest.raises(ValueError, match=text):
        vit(SHAPE, 4, **{**TINY, **options})


def test_bounds_refuse_it_by_the_names_of_its_layers(model):
    with pytest.raises(ValueError, match="Bounds do not cover these layers of model") as caught:
        kr.certification.check_supported(model)
    for text in (
        "'positions' (PositionEmbedding: not covered)",
        "'block1_norm1', 'block1_norm2', 'block2_norm1' and 2 more (LayerNormalization: not cov",
        "'block1_attention', 'block2_attention' (MultiHeadAttention: not covered)",
        "'block1_gelu', 'block2_gelu' (Activation: activation 'gelu')",
    ):
        assert text in str(caught.value)


@pytest.mark.slow
def test_crafting_in_half_precision_and_on_parts_of_a_batch(model):
    """A copy of every layer in bfloat16, with the weights of the model."""
    ball = kr.LinfBall(0.05)
    robust = kr.defenses.pgd_at(
        keras.models.clone_model(model), ball, steps=1, crafting_dtype="bfloat16", microbatches=2
    )
    robust.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    logs = robust.train_on_batch(images(4), np.arange(4), return_dict=True)
    assert np.isfinite(logs["loss"])


SINGLE = sorted(set(DEFENSES) - set(CERTIFIED))


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
def test_every_defense_trains_it(name):
    keras.utils.set_random_seed(0)
    classifier = vit((8, 8, 1), 4, **TINY)
    if any(name.startswith(each) or f"over {each}" in name for each in ENSEMBLES):
        cnn = kr.models.small_cnn((8, 8, 1), 4, variant="tiny")
        classifier = kr.models.ensemble([cnn, classifier])
    robust = DEFENSES[name][0](classifier)
    robust.compile(keras.optimizers.Adam(1e-3))
    before = classifier.get_weights()
    x, y = images(8, (8, 8, 1)), np.arange(8) % 4
    history = robust.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert np.all(np.isfinite(history["loss"]))
    # Some have a term with the gradient of the features alone; none leaves the layers as they are.
    changed = [np.any(a != b) for a, b in zip(before, classifier.get_weights(), strict=True)]
    assert np.mean(changed) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROWS))
def test_every_attack_runs_on_it(name):
    row = ROWS[name]
    keras.utils.set_random_seed(0)
    classifier = vit((8, 8, 1), 4, **TINY)
    if row.members:
        cnn = kr.models.small_cnn((8, 8, 1), 4, variant="tiny")
        classifier = kr.models.ensemble([cnn, classifier])
    ball = BALLS["l2" if "l2" in row.norms else row.norms[0]]
    x = tf.constant(images(6, (8, 8, 1)))
    y = row.labels(classifier, (x, np.arange(6) % 4))
    targets = (np.asarray(y) + 1) % 4 if row.targeted else None
    kwargs = {} if targets is None else {"targets": targets}
    crafted = row.build(ball)(classifier, x, y, seed=0, **kwargs)
    for x_adv in crafted if isinstance(crafted, tuple) else (crafted,):
        assert x_adv.shape == x.shape
        assert np.all(ball.distance(x_adv, x) <= ball.radius + 1e-4)


@pytest.mark.slow
def test_compiled_by_xla():
    keras.utils.set_random_seed(0)
    robust = kr.defenses.trades(vit((8, 8, 1), 4, **TINY), kr.LinfBall(0.1), steps=2)
    robust.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    x, y = images(8, (8, 8, 1)), np.arange(8) % 4
    assert np.isfinite(robust.fit(x, y, batch_size=8, verbose=0).history["loss"][0])
