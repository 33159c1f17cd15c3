"""MobileNet for small images, the first version."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_robust.models.architectures import blocks
from keras_robust.models.building import (
    PerChannel,
    checked_image_shape,
    classifier,
    image_input,
)

# Filters and stride of each pair of a depthwise and a 1x1 convolution: table 1 of the paper.
_PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2),
          (1024, 1))  # fmt: skip


def mobilenet_v1(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """MobileNet (v1): a 3x3 stem and 13 pairs of depthwise and 1x1 convolutions; 3.22 M parameters.

    The features are the globally pooled output of the last pair, 1024 values. An image may be of
    any size; it is halved four times, so that up to 16 pixels the last pair sees a single one.

    Args:
        input_shape, classes, width, mean, std: see `build`. `width` is the paper's multiplier.

    Example:
        >>> mobilenet_v1((8, 8, 1), 10, width=0.125)(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 128])

    Reference:
        Howard et al., MobileNets: Efficient convolutional neural networks for mobile vision
        applications, 2017, table 1.
    """
    # Differs: the stem has stride 1, as is in common use on CIFAR; 3,217,226 parameters.
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = blocks.conv_bn_relu(x, blocks.scaled(32, width), "stem")
    for number, (filters, stride) in enumerate(_PAIRS, start=1):
        name = f"pair{number}"
        x = blocks.depthwise(x, f"{name}_depthwise", stride=stride)
        x = blocks.relu(blocks.batch_norm(x, f"{name}_bn"), f"{name}_relu")
        x = blocks.conv_bn_relu(x, blocks.scaled(filters, width), f"{name}_point", size=1)
    return classifier(inputs, blocks.pooled(x), classes)
