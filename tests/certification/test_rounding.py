"""Bounds in float32 contain those in float64, and what float32 makes of the weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust.certification.rounding import slack
from tests.certification.networks import draw_weights, functional, true_margins

layers = keras.layers
METHODS = {
    "ibp": kr.certification.ibp,
    "crown_ibp": kr.certification.crown_ibp,
    "crown": kr.certification.crown,
}


def wide(x):
    """Sums of up to 1,152 products."""
    x = layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    x = layers.BatchNormalization()(layers.Conv2D(128, 3)(x))
    x = layers.Flatten()(layers.ReLU()(x))
    return layers.Dense(3)(layers.Dense(64, activation="relu")(x))


@pytest.fixture(scope="module")
def network():
    return functional(wide, shape=(11, 11, 3))


@pytest.mark.parametrize("seed", range(2))
def test_float32_margins_contain_float64_ones_and_the_models_own(network, seed):
    """At radius 0 nothing but the rounding errors is between them."""
    rng = np.random.default_rng(seed)
    draw_weights(network, rng)
    x, y = rng.random((16, 11, 11, 3)).astype("float32"), rng.integers(0, 3, 16)
    own = true_margins(network(x, training=False)["logits"], y)
    for method in ("ibp", "crown_ibp"):
        for radius in (0.0, 0.01):
            bounds = METHODS[method](kr.LinfBall(radius))
            margins, exact = (bounds(network, x.astype(dtype), y) for dtype in "fd")
            assert exact.dtype == tf.float64
            assert np.all(margins.numpy() <= exact.numpy())
            assert np.all(margins.numpy() <= own)
            if radius == 0:
                np.testing.assert_allclose(margins, exact, atol=2e-2)


def test_the_slack_is_small_and_grows_with_the_sum():
    assert slack(0, tf.float32) == 0
    assert 0 < slack(9, tf.float32) < slack(1024, tf.float32) < 1e-5
    assert slack(1024, tf.float64) < 1e-13


def test_products_of_tensor_float_32_widen_the_bounds(monkeypatch):
    """A GPU may round factors to 10 bits."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind])
    assert slack(9, tf.float32) == 4 * 2.0**-10
    monkeypatch.setattr(tf.config.experimental, "tensor_float_32_execution_enabled", lambda: False)
    assert slack(9, tf.float32) == 4 * 2.0**-23


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("layer", "value"), [("conv1_1", np.nan), ("fc1", np.inf)])
def test_weights_that_are_not_finite_certify_nothing(method, value, layer):
    """Compiled, TensorFlow's ReLU and max pool turn NaN into a number."""
    model = kr.models.small_cnn((4, 4, 1), 3, variant="tiny", dropout=0.0)
    x, y = np.full((2, 4, 4, 1), 0.5, "float32"), np.array([0, 1])
    kernel = model.get_layer(layer).kernel
    kernel.assign(tf.tensor_scatter_nd_update(kernel, [[0] * kernel.shape.rank], [value]))
    bounds = METHODS[method](kr.LinfBall(0.01))
    for call in (bounds, bounds.compiled) if method == "ibp" else (bounds,):
        margins = call(model, x, y) if call is bounds else call(model)(x, y)
        assert not np.any(kr.certification.is_certified(margins, y))
        assert np.all(np.isnan(margins.numpy()[[0, 1], [1, 0]]))
        assert np.all(margins.numpy()[[0, 1], y] == 0)


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_overflow_certify_nothing(method):
    model = kr.models.small_cnn((4, 4, 1), 3, variant="tiny", dropout=0.0)
    model.set_weights([1e18 * w if w.ndim > 1 else w for w in model.get_weights()])
    x, y = np.full((2, 4, 4, 1), 0.5, "float32"), np.array([0, 1])
    margins = METHODS[method](kr.LinfBall(0.01))(model, x, y)
    assert not np.any(kr.certification.is_certified(margins, y))


def test_a_pixel_that_is_nan_certifies_nothing_in_a_graph(make_linear):
    model = make_linear(np.eye(2), [9.0, 0.0], shape=(2,))
    bounds = kr.certification.ibp(kr.LinfBall(0.01))
    margins = tf.function(lambda x: bounds(model, x, tf.constant([0, 0])))
    x = tf.constant([[0.5, np.nan], [0.5, 0.5]])
    assert kr.certification.is_certified(margins(x), [0, 0]).numpy().tolist() == [False, True]
