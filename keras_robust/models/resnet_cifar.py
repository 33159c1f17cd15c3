"""Residual networks for small images: ResNet20 and ResNet18."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_robust.models import blocks
from keras_robust.models.building import PerChannel, checked_image_shape, classifier, image_input


def resnet20(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """ResNet20 (v1): three stages of three blocks with 16, 32 and 64 filters; 0.27 M parameters.

    The features are the globally pooled output of the last stage, 64 values.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        width: factor on every number of filters; 1.0 is the published network.
        mean: subtracted from the images, a number or one per channel, in units of [0, 1].
        std: the images are then divided by it, a number or one per channel.

    Returns:
        A functional model `images -> {"logits": [batch, classes], "features": [batch, 64]}`.

    Raises:
        ValueError: for a shape, width or number of classes that cannot be built.

    Example:
        >>> resnet20((8, 8, 1), 10, width=0.25)(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 16])

    Reference:
        He et al., Deep residual learning for image recognition, CVPR 2016, section 4.2.
    """
    # Differs: He et al. pad the shortcut with zeros; the thesis's code (and Pang et al.'s, which it
    # follows) has a 1x1 convolution of stride 2 there, without batch norm, and keeps the biases
    # of the convolutions.
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = _conv_bias(x, blocks.scaled(16, width), "stem_conv")
    x = blocks.relu(blocks.batch_norm(x, "stem_bn"), "stem_relu")
    for stage, filters in enumerate((16, 32, 64), start=1):
        filters = blocks.scaled(filters, width)
        for block in range(1, 4):
            name = f"stage{stage}_block{block}"
            stride = 2 if stage > 1 and block == 1 else 1
            y = _conv_bias(x, filters, f"{name}_conv1", stride=stride)
            y = blocks.relu(blocks.batch_norm(y, f"{name}_bn1"), f"{name}_relu1")
            y = blocks.batch_norm(_conv_bias(y, filters, f"{name}_conv2"), f"{name}_bn2")
            if stride == 2:
                x = _conv_bias(x, filters, f"{name}_shortcut", size=1, stride=stride)
            x = blocks.relu(keras.layers.Add(name=f"{name}_add")([x, y]), f"{name}_relu2")
    return classifier(inputs, blocks.pooled(x), classes)


def resnet18(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """ResNet18 for small images: a 3x3 stem, four stages of two blocks, 64 to 512 filters; 11.2 M.

    The features are the globally pooled output of the last stage, 512 values.

    Args:
        input_shape: `(height, width, channels)`.
        classes: number of classes.
        width: factor on every number of filters; 1.0 is the published network.
        mean: subtracted from the images, a number or one per channel, in units of [0, 1].
        std: the images are then divided by it, a number or one per channel.

    Returns:
        A functional model `images -> {"logits": [batch, classes], "features": [batch, 512]}`.

    Raises:
        ValueError: for a shape, width or number of classes that cannot be built.

    Example:
        >>> resnet18((8, 8, 1), 10, width=0.125)(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 64])

    Reference:
        He et al., Deep residual learning for image recognition, CVPR 2016, table 1; the stem for
        32x32 images is the one in common use on CIFAR.
    """
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = blocks.convolution(x, blocks.scaled(64, width), "stem_conv")
    x = blocks.relu(blocks.batch_norm(x, "stem_bn"), "stem_relu")
    for stage, filters in enumerate((64, 128, 256, 512), start=1):
        for block in (1, 2):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage{stage}_block{block}"
            x = blocks.basic_block(x, blocks.scaled(filters, width), stride, name)
    return classifier(inputs, blocks.pooled(x), classes)


def _conv_bias(
    x: keras.KerasTensor, filters: int, name: str, size: int = 3, stride: int = 1
) -> keras.KerasTensor:
    return keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="same",
        kernel_initializer="he_normal",
        name=name,
    )(x)
