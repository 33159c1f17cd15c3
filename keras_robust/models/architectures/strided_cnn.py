"""Convolutions with strides and batch norm: small networks for certified training."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_robust.core.validation import check_integer
from keras_robust.models.architectures.blocks import batch_norm, relu
from keras_robust.models.building import (
    PerChannel,
    checked_image_shape,
    classifier,
    image_input,
)


def strided_cnn(
    input_shape: Sequence[int],
    classes: int,
    filters: Sequence[int] = (32, 64),
    kernels: Sequence[int] = (5, 4),
    strides: Sequence[int] = (2, 2),
    dense: Sequence[int] = (256,),
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """A convolutional network without pooling: strided convolutions, then dense layers.

    Batch norm and a rectifier follow every layer but the last: interval bounds grow least through
    few layers, without max pools, and batch norm keeps the rectifiers in balance. The features are
    the output of the last hidden layer.

    Args:
        input_shape, classes, mean, std: see `build`.
        filters: output channels of each convolution; convolutions are not padded.
        kernels: height and width of each convolution's kernel.
        strides: stride of each convolution.
        dense: units of the hidden dense layers; may be empty.

    Example:
        >>> model = strided_cnn((28, 28, 1), classes=10)
        >>> model.get_layer("conv2").output.shape, model.get_layer("features").output.shape
        ((None, 5, 5, 64), (None, 256))

    Reference: Gowal et al., "On the Effectiveness of Interval Bound Propagation for Training
    Verifiably Robust Models" (2018), table 1; with the batch norm of Shi et al., "Fast Certified
    Robust Training with Short Warmup" (2021).
    """
    shape = checked_image_shape(input_shape)
    _check(filters, kernels, strides, dense)
    _check_size(min(shape[:2]), kernels, strides)
    inputs, x = image_input(shape, classes, mean, std)
    for number, (count, kernel, stride) in enumerate(
        zip(filters, kernels, strides, strict=True), start=1
    ):
        x = keras.layers.Conv2D(
            int(count),
            int(kernel),
            strides=int(stride),
            use_bias=False,
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        x = relu(batch_norm(x, f"conv{number}_bn"), f"conv{number}_relu")
    x = keras.layers.Flatten(name="flatten")(x)
    for number, units in enumerate(dense, start=1):
        x = keras.layers.Dense(
            int(units), use_bias=False, kernel_initializer="he_normal", name=f"fc{number}"
        )(x)
        x = relu(batch_norm(x, f"fc{number}_bn"), f"fc{number}_relu")
    return classifier(inputs, x, classes)


def _check(
    filters: Sequence[int], kernels: Sequence[int], strides: Sequence[int], dense: Sequence[int]
) -> None:
    """Raises ValueError unless there is one kernel and one stride for each convolution."""
    if not len(filters) == len(kernels) == len(strides) > 0:
        raise ValueError(
            f"filters={tuple(filters)}, kernels={tuple(kernels)}, strides={tuple(strides)}; "
            "expected one number of each for every convolution, and at least one convolution."
        )
    named = {"filters": filters, "kernels": kernels, "strides": strides, "dense units": dense}
    for name, values in named.items():
        for value in values:
            check_integer(name, value, 1)


def _check_size(size: int, kernels: Sequence[int], strides: Sequence[int]) -> None:
    """Raises ValueError if a convolution is larger than its input."""
    left = size
    for kernel, stride in zip(kernels, strides, strict=True):
        if left < kernel:
            raise ValueError(
                f"Images of {size} pixels are too small: a kernel of {kernel} meets {left}. Use "
                "smaller kernels or strides."
            )
        left = (left - kernel) // stride + 1
