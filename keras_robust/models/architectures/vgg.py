"""VGG networks for small images: VGG16 with batch norm."""

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

# Filters of the 3x3 convolutions of each stage, which a 2x2 max pool ends: column D of table 1.
_STAGES = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


def vgg16(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """VGG16 with batch norm: five stages of 3x3 convolutions, each ended by a max pool; 14.7 M.

    The features are the pooled output of the last stage, 512 values. An image may be of any size:
    a pool keeps the odd row and column at its end, so that 28 pixels become 14, 7, 4, 2 and 1 as
    32 become 16, 8, 4, 2 and 1. Up to 16 pixels the last stage sees a single one.

    Args:
        input_shape, classes, width, mean, std: see `build`.

    Example:
        >>> vgg16((8, 8, 1), 10, width=0.125)(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 64])

    Reference:
        Simonyan & Zisserman, Very deep convolutional networks for large-scale image recognition,
        ICLR 2015, table 1, column D.
    """
    # Differs: batch norm before each relu, and one dense layer in the place of three with dropout,
    # as is in common use on CIFAR; the convolutions keep their biases there, 14,728,266 parameters.
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    for stage, convolutions in enumerate(_STAGES, start=1):
        for number, filters in enumerate(convolutions, start=1):
            name = f"stage{stage}_{number}"
            x = blocks.conv_bn_relu(x, blocks.scaled(filters, width), name, bias=True)
        x = keras.layers.MaxPooling2D(2, padding="same", name=f"stage{stage}_pool")(x)
    return classifier(inputs, blocks.pooled(x), classes)
