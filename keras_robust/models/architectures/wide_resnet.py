"""Wide residual networks; WRN-34-10 is the usual one in the study of robustness."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_robust.core.validation import check_integer, check_number
from keras_robust.models.architectures import blocks
from keras_robust.models.building import (
    PerChannel,
    checked_image_shape,
    classifier,
    image_input,
)


def wide_resnet(
    input_shape: Sequence[int],
    classes: int,
    depth: int = 34,
    widen_factor: int = 10,
    dropout: float = 0.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    activation: str = "relu",
    padding: str = "symmetric",
) -> keras.Model:
    """A wide residual network: three stages of `(depth - 4) / 6` pre-activation blocks.

    The features are the globally pooled output of the last batch norm and relu,
    `64 * widen_factor` values.

    Args:
        input_shape, classes, mean, std, activation: see `build`.
        depth: number of layers with weights, `6 n + 4`: 10, 16, 22, 28, 34, 40, ...
        widen_factor: factor on the 16, 32 and 64 filters of the three stages.
        dropout: fraction of values dropped between the two convolutions of a block in training.
        padding: how strided convolutions pad: `"symmetric"` as PyTorch, or `"same"` as TensorFlow
            and JAX (the networks of Gowal et al. and Rebuffi et al.).

    Example:
        >>> model = wide_resnet((8, 8, 1), classes=10, depth=10, widen_factor=1)
        >>> model(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 64])

    Reference:
        Zagoruyko & Komodakis, Wide residual networks, BMVC 2016, table 1.
    """
    check_integer("depth", depth)
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(
            f"depth is {depth}; expected 6 n + 4 with n >= 1: 10, 16, 22, 28, 34, 40, ..."
        )
    check_number("widen_factor", widen_factor, above=0)
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = blocks.convolution(x, 16, "stem_conv", initializer=_he_fan_out())
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, (depth - 4) // 6 + 1):
            x = blocks.pre_activation_block(
                x,
                blocks.scaled(filters, widen_factor),
                blocks.stride_of(stage, block),
                f"stage{stage}_block{block}",
                blocks.PreActivation(_he_fan_out(), dropout, activation, padding=padding),
            )
    x = blocks.activated(blocks.batch_norm(x, "last_bn"), "last_relu", activation)
    return classifier(inputs, blocks.pooled(x), classes)


def wrn_34_10(
    input_shape: Sequence[int],
    classes: int,
    dropout: float = 0.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
    activation: str = "relu",
    padding: str = "symmetric",
) -> keras.Model:
    """WRN-34-10: the wide residual network of depth 34 and factor 10; 46.2 M parameters.

    Args:
        input_shape, classes, mean, std, activation: see `build`.
        dropout, padding: see `wide_resnet`.

    Reference:
        Zagoruyko & Komodakis, Wide residual networks, BMVC 2016; Madry et al., ICLR 2018, brought
        the factor of 10 to adversarial training.
    """
    return wide_resnet(input_shape, classes, 34, 10, dropout, mean, std, activation, padding)


def _he_fan_out() -> keras.initializers.Initializer:
    # Variance 2 / (k * k * out), as the paper's code. A new one each time, since one initializer
    # draws the same numbers twice.
    return keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
