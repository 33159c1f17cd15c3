"""EfficientNet-B0 for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import keras

from keras_robust.models.architectures import blocks
from keras_robust.models.building import (
    PerChannel,
    checked_image_shape,
    classifier,
    image_input,
)

Tensor: TypeAlias = keras.KerasTensor


class Stage(NamedTuple):
    """A row of the paper's table 1: blocks, their expansion, filters, kernel and first stride."""

    blocks: int
    expansion: int
    filters: int
    size: int
    stride: int


_STAGES = (
    Stage(1, 1, 16, 3, 1),
    Stage(2, 6, 24, 3, 2),
    Stage(2, 6, 40, 5, 2),
    Stage(3, 6, 80, 3, 2),
    Stage(3, 6, 112, 5, 1),
    Stage(4, 6, 192, 5, 2),
    Stage(1, 6, 320, 3, 1),
)
_BLOCKS = sum(stage.blocks for stage in _STAGES)


def efficientnet_b0(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    dropout: float = 0.2,
    drop_connect: float = 0.2,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """EfficientNet-B0 for small images: a 3x3 stem and 16 inverted residual blocks; 3.60 M.

    The features are the globally pooled output of the last block, 320 values, after dropout. An
    image may be of any size; it is halved four times, so that up to 16 pixels the last block sees
    a single one.

    Args:
        input_shape, classes, width, mean, std: see `build`.
        dropout: fraction of the features dropped in training.
        drop_connect: fraction of the images for which a block with a shortcut is skipped in
            training; it grows linearly from 0 at the first block towards this at the last one.

    Example:
        >>> model = efficientnet_b0((8, 8, 1), classes=10, width=0.25)
        >>> model(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 80])

    Reference:
        Tan & Le, EfficientNet: Rethinking model scaling for convolutional neural networks, ICML
        2019, table 1; Sandler et al., MobileNetV2, CVPR 2018, figure 4d; Hu et al.,
        Squeeze-and-excitation networks, CVPR 2018; Huang et al., Deep networks with stochastic
        depth, ECCV 2016.
    """
    # Differs: as in common use on CIFAR, a stem of stride 1, and no 1x1 convolution to 1280
    # channels before the pool. Copies of that network count 3,599,686 parameters; 1,088 of these
    # belong to a convolution and batch norm of the first block (expansion 1) that are never run.
    # They are left out here: 3,598,598. Filters are rounded to a whole number, not to 8.
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = _swish(blocks.convolution(x, blocks.scaled(32, width), "stem_conv"), "stem")
    number = 0
    for stage in _STAGES:
        scaled = stage._replace(filters=blocks.scaled(stage.filters, width))
        for block in range(stage.blocks):
            row = scaled if block == 0 else scaled._replace(stride=1)
            x = _block(x, row, drop_connect * number / _BLOCKS, f"block{number + 1}")
            number += 1
    x = blocks.pooled(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return classifier(inputs, x, classes)


def _swish(x: Tensor, name: str) -> Tensor:
    """BN - swish."""
    return keras.layers.Activation("swish", name=f"{name}_swish")(
        blocks.batch_norm(x, f"{name}_bn")
    )


def _block(x: Tensor, row: Stage, drop: float, name: str) -> Tensor:
    """1x1 expansion - depthwise - squeeze and excitation - 1x1; plus `x` where the shapes agree."""
    inputs = x.shape[-1]
    y = x
    if row.expansion > 1:
        y = blocks.convolution(y, row.expansion * inputs, f"{name}_expand", size=1)
        y = _swish(y, f"{name}_expand")
    y = blocks.depthwise(y, f"{name}_depthwise", row.size, row.stride)
    y = _excited(_swish(y, f"{name}_depthwise"), max(1, inputs // 4), name)
    y = blocks.convolution(y, row.filters, f"{name}_project", size=1)
    y = blocks.batch_norm(y, f"{name}_project_bn")
    if row.stride != 1 or inputs != row.filters:
        return y
    y = blocks.drop_connect(y, drop, f"{name}_drop")
    return keras.layers.Add(name=f"{name}_add")([x, y])


def _excited(x: Tensor, filters: int, name: str) -> Tensor:
    """Squeeze and excitation: each channel times a factor in (0, 1) computed from all means."""
    weight = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(x)
    weight = blocks.convolution(weight, filters, f"{name}_reduce", size=1, bias=True)
    weight = keras.layers.Activation("swish", name=f"{name}_swish")(weight)
    weight = blocks.convolution(weight, x.shape[-1], f"{name}_excite", size=1, bias=True)
    weight = keras.layers.Activation("sigmoid", name=f"{name}_sigmoid")(weight)
    return keras.layers.Multiply(name=f"{name}_excited")([x, weight])
