"""ConvNeXt: its blocks, its sizes, and what it refuses."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scipy.special import erf

import keras_robust as kr
from keras_robust.models import convnext

TINY = {"width": 0.1, "depths": (1, 1, 1, 1), "kernel": 3}


def images(shape=(8, 8, 3)):
    return np.random.default_rng(1).uniform(size=(2, *shape)).astype("float32")


def test_a_block_on_paper():
    """Of a 1x1 depthwise convolution, so that every pixel is on its own."""
    keras.utils.set_random_seed(0)
    model = convnext((4, 4, 3), 5, patch=1, layer_scale=0.5, **{**TINY, "kernel": 1})
    layer, name = model.get_layer, "stage1_block1"
    inputs = keras.Model(model.input, layer("stem_norm").output)(images((4, 4, 3))).numpy()
    found = keras.Model(model.input, layer(f"{name}_add").output)(images((4, 4, 3)))
    y = inputs * layer(f"{name}_depthwise").kernel.numpy()[0, 0, :, 0]
    centered = y - y.mean(axis=-1, keepdims=True)
    y = centered / np.sqrt(np.mean(np.square(centered), axis=-1, keepdims=True) + 1e-6)
    y = y @ layer(f"{name}_expand").kernel.numpy()[0, 0]
    y = y * (1 + erf(y / np.sqrt(2))) / 2
    y = 0.5 * y @ layer(f"{name}_project").kernel.numpy()[0, 0]
    np.testing.assert_allclose(found, inputs + y, rtol=1e-4, atol=1e-5)


def test_a_new_block_passes_its_input_on():
    """Almost: its branch counts for a millionth; without the scale it counts."""
    keras.utils.set_random_seed(0)
    with_scale, without = (
        convnext((8, 8, 3), 5, **TINY, **options) for options in ({}, {"layer_scale": 0})
    )
    for model, at_least, at_most in ((with_scale, 0, 1e-6), (without, 1e-4, 10)):
        layers = [model.get_layer(f"stage1_{name}").output for name in ("block1_add",)]
        stem = model.get_layer("stem_norm").output
        before, after = keras.Model(model.input, [stem, *layers])(images())
        assert at_least <= np.max(np.abs(after - before)) <= at_most
    kinds = [type(layer).__name__ for layer in without.layers]
    assert "LayerScale" not in kinds


@pytest.mark.parametrize(
    ("size", "patch", "sizes"),
    [
        (28, 4, [7, 4, 2, 1]),
        pytest.param(32, 2, [16, 8, 4, 2], marks=pytest.mark.slow),
        pytest.param(9, 1, [9, 5, 3, 2], marks=pytest.mark.slow),
    ],
)
def test_what_is_left_of_an_image(size, patch, sizes):
    model = convnext((size, size, 1), 10, patch=patch, **TINY)
    left = [model.get_layer(f"stage{n}_block1_add").output.shape[1] for n in (1, 2, 3, 4)]
    assert left == sizes


def test_blocks_are_skipped_in_training():
    """More of them the deeper they are: 0, 0.2, 0.4 and 0.6."""
    model = convnext((8, 8, 3), 5, drop_connect=0.6, **TINY)
    drops = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    np.testing.assert_allclose([layer.rate for layer in drops], [0.2, 0.4, 0.6])
    assert all(layer.noise_shape == (None, 1, 1, 1) for layer in drops)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"depths": (1, 1)}, r"depths is \(1, 1\); expected the blocks of four stages"),
        ({"depths": (1, 1, 0, 1)}, "a stage of depths is 0; expected an integer >= 1"),
        ({"kernel": 4}, "kernel is 4; expected an odd size, such as 7 or 3"),
        ({"patch": 0}, "patch is 0; expected an integer >= 1"),
        ({"layer_scale": -1}, "layer_scale is -1; expected"),
        ({"drop_connect": 1.0}, "drop_connect is 1.0; expected"),
    ],
)
def test_refused(options, text):
    with pytest.raises(ValueError, match=text):
        convnext((8, 8, 3), 5, **{**TINY, **options})


@pytest.mark.slow
def test_it_trains_robustly():
    keras.utils.set_random_seed(0)
    model = kr.defenses.trades(convnext((8, 8, 1), 10, patch=1, **TINY), kr.LinfBall(0.1), steps=2)
    model.compile(keras.optimizers.AdamW(3e-3))
    train, validation, _ = kr.data.load("digits", batch_size=64)
    model.fit(train, epochs=12, verbose=0)
    logs = model.evaluate(validation, return_dict=True, verbose=0)
    assert logs["accuracy"] > 0.8 and logs["robust_accuracy"] > 0.3
