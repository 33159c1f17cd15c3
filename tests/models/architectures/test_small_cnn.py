"""The small CNN: which variant and padding are taken, layer by layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_robust.models import adapt, small_cnn
from keras_robust.models.architectures.small_cnn import VARIANTS


def layers(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


def filters(model):
    return [layer.filters for layer in layers(model, keras.layers.Conv2D)]


@pytest.mark.parametrize(
    ("shape", "classes", "expected"),
    [
        ((28, 28, 1), 10, [32, 32, 64, 64]),
        ((28, 28, 1), 100, [32, 32, 64, 64]),
        ((32, 32, 3), 10, [64, 64, 128, 128]),
        ((32, 32, 3), 99, [64, 64, 128, 128]),
        ((32, 32, 3), 100, [64] * 3 + [128] * 3),
    ],
)
def test_variant_follows_from_channels_and_classes(shape, classes, expected):
    assert filters(small_cnn(shape, classes)) == expected


def test_adr_chapter_has_equal_stages():
    assert filters(small_cnn((28, 28, 1), 10, variant="adr_mnist")) == [32] * 4
    assert filters(small_cnn((32, 32, 3), 10, variant="adr_cifar10")) == [64] * 4


def test_order_of_the_layers():
    names = [layer.name for layer in small_cnn((32, 32, 3), 100).layers]
    assert names == [
        *("images", "conv1_1", "conv1_2", "conv1_3", "pool1"),
        *("conv2_1", "conv2_2", "conv2_3", "pool2", "flatten"),
        *("fc1", "dropout", "fc2", "fc3", "features", "logits"),
    ]


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_valid_where_it_fits_same_where_it_does_not(variant):
    smallest = VARIANTS[variant].smallest()
    fits = small_cnn((smallest, smallest, 1), 10, variant=variant)
    assert {layer.padding for layer in layers(fits, keras.layers.Conv2D)} == {"valid"}
    assert fits.get_layer("flatten").input.shape[1:3] == (1, 1)
    small = small_cnn((smallest - 1, smallest, 1), 10, variant=variant)
    assert {layer.padding for layer in layers(small, keras.layers.Conv2D)} == {"same"}
    with pytest.raises(ValueError, match=f"needs {smallest} pixels.*use padding='same'"):
        small_cnn((smallest - 1, smallest, 1), 10, variant=variant, padding="valid")


def test_digits_just_work():
    model = small_cnn((8, 8, 1), 10)
    assert model(np.ones((2, 8, 8, 1), "float32"))["logits"].shape == (2, 10)
    assert model.get_layer("flatten").output.shape == (None, 2 * 2 * 64)


def test_same_padding_on_request():
    """The CCE chapter's network: the same widths, padded; 8 * 8 * 128 values before the dense."""
    model = small_cnn((32, 32, 3), 10, padding="same", dropout=0.0)
    assert model.get_layer("flatten").output.shape == (None, 8 * 8 * 128)
    assert layers(model, keras.layers.Dropout) == []


def test_latent_of_the_adr_chapter():
    """Another latent: the flattened output of the last convolution, the same weights and logits."""
    model = small_cnn((8, 8, 1), 10)
    other = adapt(model, features="flatten")
    x = np.random.default_rng(0).uniform(size=(3, 8, 8, 1)).astype("float32")
    outputs = other(x, training=False)
    assert outputs["features"].shape == (3, 256)
    np.testing.assert_array_equal(outputs["logits"], model(x, training=False)["logits"])
    assert {id(weight) for weight in other.weights} == {id(weight) for weight in model.weights}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"variant": "cifar-10"},
            "no variant 'cifar-10'; expected one of mnist, cifar10, .*mean 'cifar10'",
        ),
        ({"padding": "full"}, "padding is 'full'; expected one of 'valid', 'same'"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=text):
        small_cnn((32, 32, 3), 10, **options)


def test_an_image_too_small_for_two_pools():
    with pytest.raises(ValueError, match="too small for 2 max pools.*use `mlp`"):
        small_cnn((3, 8, 1), 10)
