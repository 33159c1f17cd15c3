"""GoogLeNet for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import keras

from keras_robust.models.architectures import blocks
from keras_robust.models.building import (
    PerChannel,
    checked_image_shape,
    classifier,
    image_input,
)


class Inception(NamedTuple):
    """Filters of the branches of a module, in the order of the paper's table 1."""

    one: int  # 1x1
    reduce_three: int  # 1x1, before
    three: int  # 3x3
    reduce_five: int  # 1x1, before
    five: int  # 5x5, as two 3x3
    pool: int  # 1x1, after a max pool


# The modules of each stage; between two stages a max pool halves height and width.
_STAGES = (
    (Inception(64, 96, 128, 16, 32, 32), Inception(128, 128, 192, 32, 96, 64)),
    (
        Inception(192, 96, 208, 16, 48, 64),
        Inception(160, 112, 224, 24, 64, 64),
        Inception(128, 128, 256, 24, 64, 64),
        Inception(112, 144, 288, 32, 64, 64),
        Inception(256, 160, 320, 32, 128, 128),
    ),
    (Inception(256, 160, 320, 32, 128, 128), Inception(384, 192, 384, 48, 128, 128)),
)


def googlenet(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """GoogLeNet for small images: a 3x3 stem and nine inception modules; 6.17 M parameters.

    The features are the globally pooled output of the last module, 1024 values. An image may be of
    any size; it is halved twice.

    Args:
        input_shape, classes, width, mean, std: see `build`.

    Example:
        >>> googlenet((8, 8, 1), 10, width=0.125)(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 128])

    Reference:
        Szegedy et al., Going deeper with convolutions, CVPR 2015, table 1.
    """
    # Differs: as in common use on CIFAR, one 3x3 stem of 192 filters, batch norm after every
    # convolution (which keeps its bias), two 3x3 convolutions in the place of a 5x5, and neither
    # auxiliary classifiers nor dropout; 6,166,250 parameters.
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = blocks.conv_bn_relu(x, blocks.scaled(192, width), "stem", bias=True)
    for stage, modules in enumerate(_STAGES, start=3):  # numbered as the paper does
        for letter, module in zip("abcde", modules, strict=False):
            filters = Inception(*(blocks.scaled(number, width) for number in module))
            x = _inception(x, filters, f"inception_{stage}{letter}")
        if stage < 5:
            x = blocks.max_pool(x, f"pool{stage}")
    return classifier(inputs, blocks.pooled(x), classes)


def _inception(x: keras.KerasTensor, filters: Inception, name: str) -> keras.KerasTensor:
    """Four branches side by side: figure 2b of the paper."""

    def unit(x: keras.KerasTensor, filters: int, branch: str, size: int) -> keras.KerasTensor:
        return blocks.conv_bn_relu(x, filters, f"{name}_{branch}", size, bias=True)

    three = unit(x, filters.reduce_three, "reduce_three", 1)
    five = unit(unit(x, filters.reduce_five, "reduce_five", 1), filters.five, "five_1", 3)
    branches = [
        unit(x, filters.one, "one", 1),
        unit(three, filters.three, "three", 3),
        unit(five, filters.five, "five_2", 3),
        unit(blocks.max_pool(x, f"{name}_pool", stride=1), filters.pool, "after_pool", 1),
    ]
    return keras.layers.Concatenate(name=name)(branches)
