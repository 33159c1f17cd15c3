"""Residual networks with an activation of choice."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_robust import models
from keras_robust.models.architectures.blocks import ACTIVATIONS, activated

SMALL = {
    "resnet20": {"width": 0.125},
    "resnet18": {"width": 0.0625},
    "pre_act_resnet18": {"width": 0.0625},
    "wide_resnet": {"depth": 10, "widen_factor": 0.25},
}
# With two rectifiers in a block, one after the stem or at the end.
COUNTS = {"resnet20": 19, "resnet18": 17, "pre_act_resnet18": 17, "wide_resnet": 7}


def rectifiers(model):
    return [layer.name for layer in model.layers if isinstance(layer, keras.layers.ReLU)]


@pytest.mark.parametrize("name", SMALL)
def test_every_rectifier_is_replaced(name, tmp_path):
    """By a layer of the same place and of no weights; and saved with the model."""
    relu, silu = (
        models.build(name, (8, 8, 1), 3, activation=activation, **SMALL[name])
        for activation in ("relu", "silu")
    )
    assert len(rectifiers(relu)) == COUNTS[name] and not rectifiers(silu)
    assert not [layer for layer in relu.layers if isinstance(layer, keras.layers.Activation)]
    found = [layer for layer in silu.layers if isinstance(layer, keras.layers.Activation)]
    assert {layer.name for layer in found} == {
        other.replace("relu", "silu") for other in rectifiers(relu)
    }
    assert {layer.activation for layer in found} == {keras.activations.silu}
    assert silu.count_params() == relu.count_params()
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 1)).astype("float32")
    silu.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x)["logits"], silu(x)["logits"])
    silu.set_weights(relu.get_weights())
    assert np.any(silu(x)["logits"] != relu(x)["logits"])


@pytest.mark.parametrize(
    ("activation", "value"),
    [
        ("relu", [0, 2]),
        ("silu", [-1 / (1 + np.e), 2 / (1 + np.exp(-2))]),  # x sigmoid(x)
        ("gelu", [-0.15865525, 1.9544997]),  # x Phi(x)
        ("softplus", [np.log(1 + np.exp(-1)), np.log(1 + np.exp(2))]),
        ("elu", [np.exp(-1) - 1, 2]),
        ("leaky_relu", [-0.2, 2]),  # Keras's slope
    ],
)
def test_activations_are_functions_on_paper(activation, value):
    image = keras.Input([2])
    model = keras.Model(image, activated(image, "a_relu", activation))
    found = model(tf.constant([[-1.0, 2.0]]))
    np.testing.assert_allclose(found[0], value, rtol=1e-5)
    assert model.layers[-1].name == f"a_{activation}"
    assert activation in ACTIVATIONS


@pytest.mark.parametrize("name", [*SMALL, "wrn_34_10"])
def test_another_one_is_refused(name):
    with pytest.raises(ValueError, match=r"activation is 'swish'; expected one of 'relu', 'silu'"):
        models.build(name, (8, 8, 1), 3, activation="swish")
