"""The range of images that a model takes: seen in its first layers, mapped by `preprocessing`."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

import keras_robust as kr

L = keras.layers


def model(*first):
    return keras.Sequential([keras.Input((2, 2, 3)), *first, L.Flatten(), L.Dense(3)], name="mine")


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (
            L.Rescaling(1 / 255),
            r"begins with Rescaling\(0.00392157\): it expects images of 0 to 25",
        ),
        (L.Rescaling(1 / 127.5, offset=-1), r"begins with Rescaling\(0.00784314\)"),
        (L.Normalization(mean=120.0, variance=3600.0), "begins with Normalization: it expects"),
    ],
)
def test_a_leading_layer_of_bytes_is_seen(first, says):
    with pytest.warns(UserWarning, match=says) as caught:
        kr.models.adapt(model(first))
    assert "preprocess=keras.layers.Rescaling(255.0)" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_models_of_unit_images_and_preprocessed_ones_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kr.models.adapt(model(L.Rescaling(2.0, offset=-1)))
        kr.models.adapt(model())
        kr.models.adapt(model(L.Rescaling(1 / 255)), preprocess=kr.models.preprocessing("bytes"))


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_preprocessing_is_that_of_keras_applications(mode):
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    expected = keras.applications.imagenet_utils.preprocess_input(x.copy(), mode=mode)
    np.testing.assert_allclose(kr.models.preprocessing(mode)(x / 255), expected, atol=1e-3)


def test_preprocessing_before_an_adapted_model():
    own = model()
    x = np.random.default_rng(0).uniform(size=(2, 2, 2, 3)).astype(np.float32)
    adapted = kr.models.adapt(own, preprocess=kr.models.preprocessing("caffe"))
    pixels = (x * 255)[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)
    np.testing.assert_allclose(adapted(x)["logits"], own(pixels), rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="no preprocessing 'cafe'.*mean 'caffe'"):
        kr.models.preprocessing("cafe")
