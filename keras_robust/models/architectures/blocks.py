"""Layers and blocks that the architectures share.

`x` is the input `[batch, height, width, channels]`, `filters` the number of output channels, `name`
the name of the layer or the prefix of several; a kernel has an odd `size`, and a `stride` of 1 or 2
divides height and width by it, rounded up.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import keras

from keras_robust.core.validation import check_choice, check_number

Tensor: TypeAlias = keras.KerasTensor
Initializer: TypeAlias = str | keras.initializers.Initializer
# Of residual networks; smooth ones are usual in adversarial training since Xie et al., "Smooth
# Adversarial Training" (2020), and Gowal et al., "Uncovering the Limits of Adversarial Training"
# (2020).
ACTIVATIONS = ("relu", "silu", "gelu", "softplus", "elu", "leaky_relu")
# How a strided convolution pads an image: "symmetric", on all sides, as PyTorch does; "same" as
# TensorFlow and JAX do, an even image on two sides only.
PADDINGS = ("symmetric", "same")
# What a pre-activation block convolves where the shapes differ.
SHORTCUTS = ("activated", "input", "input_3x3")


def batch_norm(x: Tensor, name: str) -> Tensor:
    """Batch normalization with the settings of the published networks."""
    # 0.9 and 1e-5 are PyTorch's defaults (there written as momentum 0.1), with which the published
    # networks were trained; Keras's own defaults are 0.99 and 1e-3.
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def relu(x: Tensor, name: str) -> Tensor:
    """Rectifies `x`, as a named layer so that it can be chosen as the features."""
    return keras.layers.ReLU(name=name)(x)


def activated(x: Tensor, name: str, activation: str = "relu") -> Tensor:
    """Activates `x`, as a named layer: `name` with "relu" replaced by another activation.

    Raises:
        ValueError: not one of `ACTIVATIONS`.

    Example:
        >>> image = keras.Input([4])
        >>> keras.Model(image, activated(image, "stem_relu", "silu")).layers[-1].name
        'stem_silu'
    """
    check_choice("activation", activation, ACTIVATIONS)
    if activation == "relu":
        return relu(x, name)
    return keras.layers.Activation(activation, name=name.replace("relu", activation))(x)


def convolution(
    x: Tensor,
    filters: int,
    name: str,
    size: int = 3,
    stride: int = 1,
    initializer: Initializer = "he_normal",
    bias: bool = False,
    padding: str = "symmetric",
) -> Tensor:
    """A convolution; a `bias` is superfluous before batch normalization.

    Raises:
        ValueError: the padding is not one of `PADDINGS`.
    """
    check_choice("padding", padding, PADDINGS)
    if padding == "symmetric":
        x, padding = _padded(x, size, stride, name)
    return keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding=padding,
        use_bias=bias,
        kernel_initializer=initializer,
        name=name,
    )(x)


def depthwise(x: Tensor, name: str, size: int = 3, stride: int = 1, bias: bool = False) -> Tensor:
    """A convolution of each channel by itself."""
    x, padding = _padded(x, size, stride, name)
    return keras.layers.DepthwiseConv2D(
        size,
        strides=stride,
        padding=padding,
        use_bias=bias,
        # Variance 2 / (size * size), the intention of "he_normal", which would count all channels
        # as inputs of each one.
        depthwise_initializer=keras.initializers.VarianceScaling(2.0, "fan_out"),
        name=name,
    )(x)


def max_pool(x: Tensor, name: str, stride: int = 2) -> Tensor:
    """The maximum over 3x3 windows of a non-negative `x`."""
    x, padding = _padded(x, 3, stride, name)  # zeros never exceed what is not negative
    return keras.layers.MaxPooling2D(3, strides=stride, padding=padding, name=name)(x)


def _padded(x: Tensor, size: int, stride: int, name: str) -> tuple[Tensor, str]:
    """`x`, padded where Keras's own padding differs from the published one; and Keras's padding."""
    if stride == 1 or size == 1:
        return x, "same"
    # "same" pads an even image on one side only, which shifts the kernel's center by a pixel
    # relative to the 1x1 shortcut; the published networks pad both sides.
    return keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x), "valid"


def conv_bn_relu(
    x: Tensor, filters: int, name: str, size: int = 3, stride: int = 1, bias: bool = False
) -> Tensor:
    """conv - BN - relu."""
    x = convolution(x, filters, f"{name}_conv", size, stride, bias=bias)
    return relu(batch_norm(x, f"{name}_bn"), f"{name}_relu")


def basic_block(
    x: Tensor, filters: int, stride: int, name: str, activation: str = "relu"
) -> Tensor:
    """conv - BN - relu - conv - BN, added to the shortcut, relu; or another activation.

    The shortcut is `x` itself, or a 1x1 convolution and BN of it where the shapes differ.

    Reference:
        He et al., Deep residual learning for image recognition, CVPR 2016, figure 2.
    """
    y = convolution(x, filters, f"{name}_conv1", stride=stride)
    y = activated(batch_norm(y, f"{name}_bn1"), f"{name}_relu1", activation)
    y = batch_norm(convolution(y, filters, f"{name}_conv2"), f"{name}_bn2")
    if stride != 1 or x.shape[-1] != filters:
        x = convolution(x, filters, f"{name}_shortcut", size=1, stride=stride)
        x = batch_norm(x, f"{name}_shortcut_bn")
    return activated(keras.layers.Add(name=f"{name}_add")([x, y]), f"{name}_relu2", activation)


class PreActivation(NamedTuple):
    """Settings of `pre_activation_block`.

    Attributes:
        initializer: of the kernels.
        dropout: fraction of values dropped between the convolutions in training.
        activation: one of `ACTIVATIONS`.
        shortcut: one of `SHORTCUTS`: a 1x1 convolution of the first activation, or of the input, or
            a 3x3 convolution of the input.
        padding: one of `PADDINGS`.
    """

    initializer: Initializer = "he_normal"
    dropout: float = 0.0
    activation: str = "relu"
    shortcut: str = "activated"
    padding: str = "symmetric"


_PLAIN = PreActivation()


def pre_activation_block(
    x: Tensor, filters: int, stride: int, name: str, settings: PreActivation = _PLAIN
) -> Tensor:
    """BN - relu - conv - BN - relu - (dropout) - conv, and the shortcut; or another activation.

    The shortcut is `x` itself, or where the shapes differ the convolution of `settings.shortcut`.

    Raises:
        ValueError: an activation, a shortcut or a padding that there is not.

    Reference:
        He et al., Identity mappings in deep residual networks, ECCV 2016, figure 1b.
    """
    initializer, dropout, activation, shortcut, padding = settings
    check_choice("shortcut", shortcut, SHORTCUTS)
    y = activated(batch_norm(x, f"{name}_bn1"), f"{name}_relu1", activation)
    if stride != 1 or x.shape[-1] != filters:
        source, size = y if shortcut == "activated" else x, 3 if shortcut == "input_3x3" else 1
        x = convolution(
            source, filters, f"{name}_shortcut", size, stride, initializer, padding=padding
        )
    y = convolution(y, filters, f"{name}_conv1", 3, stride, initializer, padding=padding)
    y = activated(batch_norm(y, f"{name}_bn2"), f"{name}_relu2", activation)
    if dropout:
        y = keras.layers.Dropout(dropout, name=f"{name}_dropout")(y)
    y = convolution(y, filters, f"{name}_conv2", 3, 1, initializer)
    return keras.layers.Add(name=f"{name}_add")([x, y])


def drop_connect(x: Tensor, fraction: float, name: str) -> Tensor:
    """A branch that is left out for a fraction of the images in training (stochastic depth)."""
    if not fraction:
        return x
    # One draw per image: the whole branch is kept or left out.
    shape = (None,) + (1,) * (len(x.shape) - 1)
    return keras.layers.Dropout(fraction, noise_shape=shape, name=name)(x)


def layer_norm(x: Tensor, name: str) -> Tensor:
    """Layer normalization of the channels with the settings of the published networks."""
    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def truncated_normal() -> keras.initializers.Initializer:
    """The initializer of vision transformers and of ConvNeXt."""
    # A new one each time, since one initializer draws the same numbers twice.
    return keras.initializers.TruncatedNormal(stddev=0.02)


def pooled(x: Tensor) -> Tensor:
    """The mean over height and width, `[batch, channels]`.

    On 32x32 images this is the 4x4 or 8x8 average pool of the published networks.
    """
    return keras.layers.GlobalAveragePooling2D(name="pool")(x)


def scaled(filters: int, width: float) -> int:
    """`filters` times `width`, rounded, at least 1.

    Raises:
        ValueError: `width` is not positive.

    Example:
        >>> scaled(64, 0.25)
        16
    """
    check_number("width", width, above=0, hint="; 1.0 is the published network")
    return max(1, round(filters * width))


def stride_of(stage: int, block: int) -> int:
    """The stride of a block: the first one of each stage but the first halves height and width."""
    return 2 if stage > 1 and block == 1 else 1
