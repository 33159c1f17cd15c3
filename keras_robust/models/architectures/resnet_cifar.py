"""Residual networks for small images: ResNet20, ResNet18 and PreActResNet18."""

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

_FILTERS = (64, 128, 256, 512)  # of the four stages of the networks with 18 layers


def resnet20(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    activation: str = "relu",
) -> keras.Model:
    """ResNet20 (v1): three stages of three blocks with 16, 32 and 64 filters; 0.27 M parameters.

    The features are the globally pooled output of the last stage, 64 values.

    Args:
        input_shape, classes, width, mean, std, activation: see `build`.

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
    x = blocks.activated(blocks.batch_norm(x, "stem_bn"), "stem_relu", activation)
    for stage, filters in enumerate((16, 32, 64), start=1):
        filters = blocks.scaled(filters, width)
        for block in range(1, 4):
            name = f"stage{stage}_block{block}"
            stride = blocks.stride_of(stage, block)
            y = _conv_bias(x, filters, f"{name}_conv1", stride=stride)
            y = blocks.activated(blocks.batch_norm(y, f"{name}_bn1"), f"{name}_relu1", activation)
            y = blocks.batch_norm(_conv_bias(y, filters, f"{name}_conv2"), f"{name}_bn2")
            if stride == 2:
                x = _conv_bias(x, filters, f"{name}_shortcut", size=1, stride=stride)
            x = blocks.activated(
                keras.layers.Add(name=f"{name}_add")([x, y]), f"{name}_relu2", activation
            )
    return classifier(inputs, blocks.pooled(x), classes)


def resnet18(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    activation: str = "relu",
) -> keras.Model:
    """ResNet18 for small images: a 3x3 stem, four stages of two blocks, 64 to 512 filters; 11.2 M.

    The features are the globally pooled output of the last stage, 512 values.

    Args:
        input_shape, classes, width, mean, std, activation: see `build`.

    Example:
        >>> resnet18((8, 8, 1), 10, width=0.125)(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 64])

    Reference:
        He et al., Deep residual learning for image recognition, CVPR 2016, table 1; the stem for
        32x32 images is the one in common use on CIFAR.
    """
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = blocks.convolution(x, blocks.scaled(64, width), "stem_conv")
    x = blocks.activated(blocks.batch_norm(x, "stem_bn"), "stem_relu", activation)
    for stage, filters in enumerate(_FILTERS, start=1):
        for block in (1, 2):
            name, stride = f"stage{stage}_block{block}", blocks.stride_of(stage, block)
            x = blocks.basic_block(x, blocks.scaled(filters, width), stride, name, activation)
    return classifier(inputs, blocks.pooled(x), classes)


def pre_act_resnet18(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    activation: str = "relu",
    shortcut: str = "activated",
    last_norm: bool = True,
    padding: str = "symmetric",
) -> keras.Model:
    """PreActResNet18: a 3x3 stem, four stages of two pre-activation blocks, 64 to 512 filters.

    The features are the globally pooled output of the last batch norm and activation, 512 values.

    Args:
        input_shape, classes, width, mean, std, activation: see `build`.
        shortcut: what is convolved where the shape changes: `"activated"`, the first activation of
            the block, by 1x1; `"input"`, its input; or `"input_3x3"`, its input, by 3x3.
        last_norm: whether the last sum is normalized and rectified, as in the paper; copies of this
            network pool it as it is (11,171,146 parameters instead of 11,172,170).
        padding: see `wide_resnet`.

    Example:
        >>> model = pre_act_resnet18((8, 8, 1), classes=10, width=0.125)
        >>> model(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 64])

    Reference:
        He et al., Identity mappings in deep residual networks, ECCV 2016, figure 1b.
    """
    settings = blocks.PreActivation("he_normal", 0.0, activation, shortcut, padding)
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = blocks.convolution(x, blocks.scaled(64, width), "stem_conv")
    for stage, filters in enumerate(_FILTERS, start=1):
        for block in (1, 2):
            name, stride = f"stage{stage}_block{block}", blocks.stride_of(stage, block)
            x = blocks.pre_activation_block(
                x, blocks.scaled(filters, width), stride, name, settings
            )
    if last_norm:
        x = blocks.activated(blocks.batch_norm(x, "last_bn"), "last_relu", activation)
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
