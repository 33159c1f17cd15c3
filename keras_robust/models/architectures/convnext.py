"""ConvNeXt for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

from keras_robust.core.config import register
from keras_robust.core.validation import check_integer, check_number
from keras_robust.models.architectures import blocks
from keras_robust.models.building import (
    PerChannel,
    checked_image_shape,
    classifier,
    image_input,
)

Tensor: TypeAlias = keras.KerasTensor
# Filters of the stages, and the default number of blocks, of the smallest published variant, Atto.
_FILTERS = (40, 80, 160, 320)
_DEPTHS = (2, 2, 6, 2)


@register
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned factor.

    Args:
        initial: the factor at the start.
        **kwargs: of a layer.

    Example:
        >>> LayerScale(0.5)(keras.ops.ones((1, 2))).numpy().tolist()
        [[0.5, 0.5]]

    Reference: Touvron et al., Going deeper with image transformers, ICCV 2021, equation 4.
    """

    def __init__(self, initial: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = float(initial)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the factors."""
        start = keras.initializers.Constant(self.initial)
        self.factor = self.add_weight((input_shape[-1],), start, name="factor")

    def call(self, x: Tensor) -> Tensor:
        """`[..., channels]` to the same shape."""
        return x * keras.ops.cast(self.factor, x.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The configuration, with `initial`."""
        return {**super().get_config(), "initial": self.initial}


def convnext(
    input_shape: Sequence[int],
    classes: int,
    width: float = 1.0,
    depths: Sequence[int] = _DEPTHS,
    patch: int = 2,
    kernel: int = 7,
    layer_scale: float = 1e-6,
    drop_connect: float = 0.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """ConvNeXt-Atto for small images: four stages of depthwise blocks; 3.38 M parameters.

    The features are the globally pooled output of the last stage after layer normalization, 320
    values. An image may be of any size; each stage but the first halves it, rounded up.

    Args:
        input_shape, classes, width, mean, std: see `build`.
        depths: number of blocks of the four stages.
        patch: side of the patches of the stem in pixels; 1 takes a 3x3 convolution of stride 1.
        kernel: size of the depthwise convolutions, odd: 7 as the paper, 3 for small images.
        layer_scale: initial factor of each block's branch; 0 leaves the factors out.
        drop_connect: fraction of the images for which a block is skipped in training; it grows
            linearly from 0 at the first block to this at the last one.

    Raises:
        ValueError: not four depths, an even `kernel`, or a number out of range.

    Example:
        >>> model = convnext((8, 8, 1), classes=10, width=0.1, depths=(1, 1, 1, 1), kernel=3)
        >>> model(keras.ops.ones((2, 8, 8, 1)))["features"].shape
        TensorShape([2, 32])

    Reference:
        Liu et al., A ConvNet for the 2020s, CVPR 2022, section 2 and figure 4. Atto: Woo et al.,
        ConvNeXt V2, CVPR 2023, appendix A.
    """
    # Differs: the published stem has patches of 4 pixels, which leave 8 x 8 positions of 32 x 32.
    _check(depths, patch, kernel, layer_scale, drop_connect)
    inputs, x = image_input(checked_image_shape(input_shape), classes, mean, std)
    x = blocks.layer_norm(_stem(x, blocks.scaled(_FILTERS[0], width), patch), "stem_norm")
    number = 0
    for stage, (filters, depth) in enumerate(zip(_FILTERS, depths, strict=True), start=1):
        if stage > 1:
            x = blocks.layer_norm(x, f"stage{stage}_norm")
            x = _patches(x, blocks.scaled(filters, width), 2, f"stage{stage}_down")
        for block in range(1, depth + 1):
            drop = drop_connect * number / max(1, sum(depths) - 1)
            x = _block(x, kernel, layer_scale, drop, f"stage{stage}_block{block}")
            number += 1
    return classifier(inputs, blocks.layer_norm(blocks.pooled(x), "last_norm"), classes)


def _check(
    depths: Sequence[int], patch: int, kernel: int, layer_scale: float, drop_connect: float
) -> None:
    if len(depths) != len(_FILTERS):
        raise ValueError(f"depths is {depths!r}; expected the blocks of four stages.")
    for depth in depths:
        check_integer("a stage of depths", depth, 1)
    check_integer("patch", patch, 1)
    check_integer("kernel", kernel, 1)
    if not kernel % 2:
        raise ValueError(f"kernel is {kernel}; expected an odd size, such as 7 or 3.")
    check_number("layer_scale", layer_scale)
    check_number("drop_connect", drop_connect, below=1)


def _stem(x: Tensor, filters: int, patch: int) -> Tensor:
    if patch == 1:
        return blocks.convolution(x, filters, "stem_conv", bias=True)
    return _patches(x, filters, patch, "stem_conv")


def _patches(x: Tensor, filters: int, size: int, name: str) -> Tensor:
    """A convolution of patches side by side; zeros fill those at the end of an image."""
    return keras.layers.Conv2D(
        filters,
        size,
        strides=size,
        padding="same",
        kernel_initializer=blocks.truncated_normal(),
        name=name,
    )(x)


def _block(x: Tensor, kernel: int, layer_scale: float, drop: float, name: str) -> Tensor:
    """depthwise - LN - 1x1 to four times the channels - GELU - 1x1 - scale; added to `x`."""
    filters = x.shape[-1]
    y = blocks.layer_norm(
        blocks.depthwise(x, f"{name}_depthwise", kernel, bias=True), f"{name}_norm"
    )
    y = blocks.convolution(
        y, 4 * filters, f"{name}_expand", 1, 1, blocks.truncated_normal(), bias=True
    )
    y = keras.layers.Activation("gelu", name=f"{name}_gelu")(y)
    y = blocks.convolution(
        y, filters, f"{name}_project", 1, 1, blocks.truncated_normal(), bias=True
    )
    if layer_scale:
        y = LayerScale(layer_scale, name=f"{name}_scale")(y)
    y = blocks.drop_connect(y, drop, f"{name}_drop")
    return keras.layers.Add(name=f"{name}_add")([x, y])
