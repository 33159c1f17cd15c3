"""Vision transformers for small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

from keras_robust.core.config import register
from keras_robust.core.validation import check_choice, check_integer, check_number
from keras_robust.models.architectures import blocks
from keras_robust.models.building import (
    PerChannel,
    checked_image_shape,
    classifier,
    image_input,
)

Tensor: TypeAlias = keras.KerasTensor
POOLS = ("token", "mean")


@register
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector to each token, after prepending a learned class token.

    Args:
        class_token: whether to prepend one.
        **kwargs: of a layer.

    Example:
        >>> PositionEmbedding()(keras.ops.zeros((2, 16, 8))).shape
        TensorShape([2, 17, 8])
    """

    def __init__(self, class_token: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_token = class_token

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Creates the position embedding and the class token."""
        _, tokens, dim = self.compute_output_shape(input_shape)
        self.position = self.add_weight(
            (1, tokens, dim), blocks.truncated_normal(), name="position"
        )
        if self.class_token:
            self.token = self.add_weight((1, 1, dim), blocks.truncated_normal(), name="token")

    def call(self, tokens: Tensor) -> Tensor:
        """`[batch, tokens, dim]` to `[batch, tokens + 1, dim]`, or the same without a token."""
        position = keras.ops.cast(self.position, tokens.dtype)
        if not self.class_token:
            return tokens + position
        token = keras.ops.pad(
            keras.ops.cast(self.token, tokens.dtype), ((0, 0), (0, tokens.shape[1]), (0, 0))
        )
        return keras.ops.pad(tokens, ((0, 0), (1, 0), (0, 0))) + (token + position)

    def compute_output_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """`(batch, tokens, dim)` to `(batch, tokens + 1, dim)`."""
        batch, tokens, dim = input_shape
        return batch, tokens + self.class_token, dim

    def get_config(self) -> dict[str, Any]:
        """The configuration, with `class_token`."""
        return {**super().get_config(), "class_token": self.class_token}


def vit(
    input_shape: Sequence[int],
    classes: int,
    patch: int = 4,
    dim: int = 192,
    depth: int = 6,
    heads: int = 3,
    pool: str = "token",
    dropout: float = 0.0,
    mean: PerChannel | None = None,
    std: PerChannel | None = None,
) -> keras.Model:
    """A vision transformer: tokens of patches, `depth` pre-norm encoder blocks; 2.69 M parameters.

    The dimension and the heads are those of DeiT-Ti with half its blocks, for patches of 4 x 4
    pixels. The features are the class token after the last layer normalization, `dim` values. The
    tokens after a block are `models.adapt(vit(...), features="block4_add2")`, flattened.

    Args:
        input_shape, classes, mean, std: see `build`.
        patch: side of a patch in pixels; must divide height and width.
        dim: number of values of a token, a multiple of `heads`.
        depth: number of blocks.
        heads: number of heads of each attention.
        pool: `"token"`, as the paper, or `"mean"` of all tokens, without a class token.
        dropout: fraction of values dropped in training after each attention and MLP.

    Raises:
        ValueError: a `patch` that does not divide the image, or a `dim` that is not a multiple of
            `heads`.

    Example:
        >>> model = vit((8, 8, 1), classes=10, dim=16, depth=2, heads=2)
        >>> model.get_layer("positions").output.shape, model.output["features"].shape
        ((None, 5, 16), (None, 16))

    Reference:
        Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021, section 3.1; Touvron et al.,
        Training data-efficient image transformers, ICML 2021, table 1 and its initialization.
    """
    shape = checked_image_shape(input_shape)
    _check(shape, patch, dim, depth, heads)
    check_choice("pool", pool, POOLS)
    check_number("dropout", dropout, below=1)
    inputs, x = image_input(shape, classes, mean, std)
    x = keras.layers.Conv2D(dim, patch, strides=patch, name="patches")(x)
    x = keras.layers.Reshape((-1, int(dim)), name="tokens")(x)
    x = PositionEmbedding(pool == "token", name="positions")(x)
    for block in range(1, depth + 1):
        x = _block(x, heads, dropout, f"block{block}")
    x = blocks.layer_norm(x, "last_norm")
    if pool == "mean":
        x = keras.layers.GlobalAveragePooling1D(name="pool")(x)
    else:
        x = keras.layers.Cropping1D((0, x.shape[1] - 1), name="class_token")(x)
        x = keras.layers.Flatten(name="pool")(x)
    return classifier(inputs, x, classes)


def _check(shape: tuple[int, int, int], patch: int, dim: int, depth: int, heads: int) -> None:
    for name, value in {"patch": patch, "dim": dim, "depth": depth, "heads": heads}.items():
        check_integer(name, value, 1)
    height, width, _ = shape
    if height % patch or width % patch:
        raise ValueError(
            f"patch is {patch}, and images have {height} x {width} pixels; expected a patch that "
            "divides both."
        )
    if dim % heads:
        raise ValueError(f"dim is {dim} and heads is {heads}; expected a multiple of heads.")


def _block(x: Tensor, heads: int, dropout: float, name: str) -> Tensor:
    """Attention of the normalized tokens, added; an MLP of the normalized sum, added."""
    dim = x.shape[-1]
    y = blocks.layer_norm(x, f"{name}_norm1")
    y = keras.layers.MultiHeadAttention(
        int(heads),
        dim // heads,
        kernel_initializer=blocks.truncated_normal(),
        name=f"{name}_attention",
    )(y, y)
    x = keras.layers.Add(name=f"{name}_add1")([x, _dropped(y, dropout, f"{name}_dropout1")])
    y = _dense(blocks.layer_norm(x, f"{name}_norm2"), 4 * dim, f"{name}_fc1")
    y = keras.layers.Activation("gelu", name=f"{name}_gelu")(y)
    y = _dense(y, dim, f"{name}_fc2")
    return keras.layers.Add(name=f"{name}_add2")([x, _dropped(y, dropout, f"{name}_dropout2")])


def _dense(x: Tensor, units: int, name: str) -> Tensor:
    return keras.layers.Dense(units, kernel_initializer=blocks.truncated_normal(), name=name)(x)


def _dropped(x: Tensor, dropout: float, name: str) -> Tensor:
    return keras.layers.Dropout(dropout, name=name)(x) if dropout else x
