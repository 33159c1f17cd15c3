"""The strided network: its sizes, and what it refuses."""

from __future__ import annotations

import keras
import pytest

from keras_robust.models import strided_cnn


def test_the_default_on_mnist():
    """5x5/2 and 4x4/2 on 28 pixels leave 12 and 5, so that 64 * 25 values meet 256 units."""
    model = strided_cnn((28, 28, 1), 10)
    kernels = (5 * 5 * 32) + (4 * 4 * 32 * 64) + (64 * 25 * 256) + (256 * 10 + 10)
    batch_norm = 4 * (32 + 64 + 256)
    assert model.count_params() == kernels + batch_norm


def test_batch_norm_and_a_rectifier_follow_every_layer_but_the_last():
    model = strided_cnn((8, 8, 1), 3, filters=(2, 3), kernels=(3, 2), strides=(1, 2), dense=(5, 4))
    kinds = [type(layer).__name__ for layer in model.layers if layer.weights or "ReLU" in
             type(layer).__name__]  # fmt: skip
    block = ["BatchNormalization", "ReLU"]
    assert kinds == ["Conv2D", *block, "Conv2D", *block, "Dense", *block, "Dense", *block, "Dense"]
    assert [model.get_layer(f"conv{n}").strides for n in (1, 2)] == [(1, 1), (2, 2)]


def test_without_hidden_dense_layers():
    model = strided_cnn((8, 8, 1), 3, (2,), (3,), (2,), dense=())
    assert model.output["features"].shape == (None, 3 * 3 * 2)
    assert not any(
        isinstance(layer, keras.layers.Dense) for layer in model.layers if layer.name != "logits"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kernels": (5,)}, r"kernels=\(5,\), .*one number of each"),
        ({"filters": (), "kernels": (), "strides": ()}, "at least one convolution"),
        ({"strides": (2, 0)}, "strides is 0"),
        ({"dense": (2.5,)}, "dense units is 2.5"),
        ({"kernels": (5, 13)}, "Images of 28 pixels are too small: a kernel of 13 meets 12"),
    ],
)
def test_invalid_options(options, text):
    with pytest.raises(ValueError, match=text):
        strided_cnn((28, 28, 1), 10, **options)
