"""Differentiable transformations of images with a strength.

Each is a function of images `[batch, height, width, channels]` in [0, 1] and of a strength `p`, a
number or scalar tensor in [0, 1] that all images share. `transform(x, p)` has the shape and dtype
of `x`, and a finite gradient. `ALL` are the seven of Bui et al., "Generating Adversarial Examples
with Task Oriented Multi-Objective Optimization" (2023): with `p = 1` its deterministic setting
(Table 9), with `p` drawn from [0, 1] its stochastic one. Settings out of range raise ValueError.

Those with `unit_range` clip to [0, 1], or fill with 0; `keras_robust.tasks.Transformations` scales
the images of a ball with other bounds for them.
"""

from __future__ import annotations

import math

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Images, Scalar
from keras_robust.core.validation import check_number, is_number

__all__ = [
    "ALL",
    "Brightness",
    "CenterCrop",
    "Gamma",
    "HorizontalFlip",
    "Identity",
    "Rotation",
    "VerticalFlip",
]

# Pixels below it are interpolated linearly, as the slope of a power below 1 is unbounded at 0.
_DARK = 1e-4

Strength = Scalar  # in [0, 1]


def __dir__() -> list[str]:
    return __all__


@serializable
class Identity:
    """Returns the images unchanged."""

    name = "identity"

    def __call__(self, x: Images, p: Strength) -> Images:
        """The images."""
        del p
        return _images(x)


@serializable
class HorizontalFlip:
    """Flips left and right if `p >= 0.5`.

    Example:
        >>> x = tf.constant([1.0, 0.0])[None, None, :, None]
        >>> HorizontalFlip()(x, 0.5).numpy().ravel().tolist()
        [0.0, 1.0]
    """

    name = "horizontal flip"

    def __call__(self, x: Images, p: Strength) -> Images:
        """The images, flipped or not."""
        return _flip(x, p, axis=2)


@serializable
class VerticalFlip:
    """Flips top and bottom if `p >= 0.5`."""

    name = "vertical flip"

    def __call__(self, x: Images, p: Strength) -> Images:
        """The images, flipped or not."""
        return _flip(x, p, axis=1)


@serializable
class CenterCrop:
    """Crops the center and resizes it to the image's size by bilinear interpolation.

    The crop keeps `floor(side (1 - (1 - smallest) p))` pixels of a side, at least one.

    Args:
        smallest: the fraction of each side that is kept at `p = 1`, in (0, 1].

    Example:
        >>> x = tf.range(5.0)[None, None, :, None] / 4
        >>> CenterCrop(smallest=0.2)(x, 1.0).numpy().ravel().tolist()  # the center pixel
        [0.5, 0.5, 0.5, 0.5, 0.5]
    """

    smallest: float = 0.6
    name = "center crop"

    def __post_init__(self) -> None:
        check_number("CenterCrop: smallest", self.smallest, most=1, above=0)

    def __call__(self, x: Images, p: Strength) -> Images:
        """The resized crops."""
        x = _images(x)
        rows, columns = (
            tf.cast(self._resampling(side, p), upcast_half(x).dtype) for side in _sides(x)
        )
        cropped = tf.einsum("ij,bjkc->bikc", rows, upcast_half(x))
        return _like(x, tf.einsum("ij,bkjc->bkic", columns, cropped))

    def _resampling(self, side: int | tf.Tensor, p: Strength) -> tf.Tensor:
        """The matrix `[side, side]` that crops and resizes a side.

        As a matrix the shapes do not depend on the strength, and every dtype keeps its precision.
        """
        size, pixels = tf.cast(side, tf.float64), tf.range(side, dtype=tf.float64)
        kept = tf.maximum(
            tf.floor(size * (1 - (1 - self.smallest) * _strength(p, tf.float64))), 1.0
        )
        at = tf.clip_by_value((pixels + 0.5) * kept / size - 0.5, 0.0, kept - 1)
        at += tf.round((size - kept) / 2)
        return tf.nn.relu(1 - tf.abs(at[:, None] - pixels))


@serializable
class Gamma:
    """Raises pixels to a power, from `low` at `p = 0` to `high` at `p = 1`.

    Args:
        low: the power at `p = 0`, > 0; below 1 images become brighter.
        high: the power at `p = 1`, > 0.

    Example:
        >>> Gamma(low=1.0, high=2.0)(tf.fill([1, 1, 1, 1], 0.5), 1.0).numpy().item()
        0.25

    Differs: linear up to 1e-4, as the slope of a power below 1 is unbounded at 0, where many pixels
    are.
    """

    low: float = 0.7
    high: float = 1.3
    name = "gamma"
    unit_range = True

    def __post_init__(self) -> None:
        check_number("Gamma: low", self.low, above=0)
        check_number("Gamma: high", self.high, above=0)

    def __call__(self, x: Images, p: Strength) -> Images:
        """The powers of the pixels, clipped to [0, 1]."""
        x = _images(x)
        pixels = upcast_half(x)
        power = self.low + (self.high - self.low) * _strength(p, pixels.dtype)
        dark = scalar(_DARK, pixels.dtype)
        line = pixels * dark ** (power - 1)
        curve = tf.maximum(pixels, dark) ** power
        return _like(x, _clip(tf.where(pixels < dark, line, curve)))


@serializable
class Brightness:
    """Multiplies pixels by a factor, from 1 at `p = 0` to `high` at `p = 1`.

    Args:
        high: the factor at `p = 1`, >= 0.

    Example:
        >>> Brightness(high=1.5)(tf.fill([1, 1, 1, 1], 0.5), 1.0).numpy().item()
        0.75
    """

    high: float = 1.3
    name = "brightness"
    unit_range = True

    def __post_init__(self) -> None:
        check_number("Brightness: high", self.high)

    def __call__(self, x: Images, p: Strength) -> Images:
        """The scaled images, clipped to [0, 1]."""
        x = _images(x)
        pixels = upcast_half(x)
        factor = 1 + (self.high - 1) * _strength(p, pixels.dtype)
        return _like(x, _clip(pixels * factor))


@serializable
class Rotation:
    """Rotates about the center, from `-degrees` at `p = 0` to `degrees` at `p = 1`.

    Nearest-neighbor interpolation; pixels from outside the image are 0.

    Args:
        degrees: the largest angle; positive is counter-clockwise.

    Example:
        >>> x = tf.constant([[1.0, 0.5], [0.25, 0.0]])[None, :, :, None]
        >>> Rotation(degrees=90)(x, 1.0).numpy()[0, :, :, 0].tolist()
        [[0.5, 0.0], [1.0, 0.25]]
    """

    degrees: float = 10.0
    name = "rotation"
    unit_range = True

    def __post_init__(self) -> None:
        check_number("Rotation: degrees", self.degrees, -math.inf)

    def __call__(self, x: Images, p: Strength) -> Images:
        """The rotated images."""
        x = _images(x)
        height, width = _sides(x)
        row, column = self._source(height, width, p)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = tf.reshape(tf.where(inside, row * width + column, 0), [-1])
        flat = tf.reshape(x, [tf.shape(x)[0], height * width, x.shape[-1]])
        # A gather, as the gradient of TensorFlow's ImageProjectiveTransform is the inverse
        # transformation and not the transpose of the interpolation.
        rotated = tf.reshape(tf.gather(flat, index, axis=1), tf.shape(x))
        return _like(x, tf.where(inside[:, :, None], rotated, tf.zeros_like(rotated)))

    def _source(
        self, height: int | tf.Tensor, width: int | tf.Tensor, p: Strength
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The source row and column of each pixel, `[height, width]`, int32."""
        angle = math.radians(self.degrees) * (2 * _strength(p, tf.float64) - 1)
        middle = [(tf.cast(side, tf.float64) - 1) / 2 for side in (height, width)]
        down = (tf.range(height, dtype=tf.float64) - middle[0])[:, None]
        across = tf.range(width, dtype=tf.float64) - middle[1]
        row = tf.sin(angle) * across + tf.cos(angle) * down + middle[0]
        column = tf.cos(angle) * across - tf.sin(angle) * down + middle[1]
        return tf.cast(tf.round(row), tf.int32), tf.cast(tf.round(column), tf.int32)


# In the order of the paper's tables.
ALL = (
    Identity(),
    HorizontalFlip(),
    VerticalFlip(),
    CenterCrop(),
    Gamma(),
    Brightness(),
    Rotation(),
)


def _images(x: Images) -> tf.Tensor:
    x = tf.convert_to_tensor(x)
    if x.shape.rank != 4 or not x.dtype.is_floating:
        raise ValueError(
            f"Images are {x.dtype.name} of shape {tuple(x.shape)}; expected floats [batch, height, "
            "width, channels]."
        )
    return x


def _sides(x: tf.Tensor) -> tuple[int | tf.Tensor, ...]:
    """Height and width: integers, or scalar tensors if they are not static."""
    dynamic = tf.shape(x)
    return tuple(dynamic[i] if x.shape[i] is None else x.shape[i] for i in (1, 2))


def _strength(p: Strength, dtype: tf.DType) -> tf.Tensor:
    if is_number(p):
        check_number("The strength p", p, most=1)
    return scalar(p, dtype)


def _flip(x: Images, p: Strength, axis: int) -> Images:
    x = _images(x)
    return tf.where(_strength(p, tf.float64) >= 0.5, tf.reverse(x, [axis]), x)


def _clip(pixels: Images) -> Images:
    return tf.clip_by_value(pixels, 0.0, 1.0)


def _like(x: Images, result: Images) -> Images:
    """The result in the dtype and static shape of the images."""
    result = tf.cast(result, x.dtype)
    result.set_shape(x.shape)
    return result
