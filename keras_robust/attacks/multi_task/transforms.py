"""Transformations of images by a strength: what an image may go through before a model sees it.

Each is a function of images `[batch, height, width, channels]` in [0, 1] and of a strength `p`, a
number or scalar tensor in [0, 1] that all images share: `transform(x, p)` has the shape and dtype
of `x`, and a finite gradient in it. `ALL` are the seven of Bui et al., "Generating Adversarial
Examples with Task Oriented Multi-Objective Optimization" (2023): with `p = 1` those of its
deterministic setting (Table 9), with `p` drawn from [0, 1] those of its stochastic one.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.numerics import scalar, upcast_half
from keras_robust.core.types import Images

# Below this a power whose exponent is less than 1 is a straight line: its slope has no bound at 0.
_DARK = 1e-4


@serializable
class Identity:
    """The image as it is.

    Example:
        >>> Identity()(tf.fill([1, 1, 1, 1], 0.5), 1.0).numpy().item()
        0.5
    """

    name = "identity"

    def __call__(self, x: Images, p: Any) -> Images:
        """The images themselves."""
        del p
        return _images(x)


@serializable
class HorizontalFlip:
    """Left and right exchanged, where `p >= 0.5`.

    Example:
        >>> x = tf.constant([1.0, 0.0])[None, None, :, None]
        >>> HorizontalFlip()(x, 0.5).numpy().ravel().tolist()
        [0.0, 1.0]
    """

    name = "horizontal flip"

    def __call__(self, x: Images, p: Any) -> Images:
        """The images, flipped or not."""
        return _flipped(x, p, axis=2)


@serializable
class VerticalFlip:
    """Top and bottom exchanged, where `p >= 0.5`.

    Example:
        >>> x = tf.constant([1.0, 0.0])[None, :, None, None]
        >>> VerticalFlip()(x, 0.5).numpy().ravel().tolist()
        [0.0, 1.0]
    """

    name = "vertical flip"

    def __call__(self, x: Images, p: Any) -> Images:
        """The images, flipped or not."""
        return _flipped(x, p, axis=1)


@serializable
class CenterCrop:
    """The middle of the image, stretched to its size again by bilinear interpolation.

    What is kept of a side is `floor(side (1 - (1 - smallest) p))`, at least a pixel.

    Args:
        smallest: the share of each side that is kept at `p = 1`, in (0, 1].

    Raises:
        ValueError: a share outside of (0, 1].

    Example:
        >>> x = tf.range(5.0)[None, None, :, None] / 4
        >>> CenterCrop(smallest=0.2)(x, 1.0).numpy().ravel().tolist()  # the pixel in the middle
        [0.5, 0.5, 0.5, 0.5, 0.5]
    """

    smallest: float = 0.6
    name = "center crop"

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise ValueError(f"CenterCrop: smallest is {self.smallest!r}; expected in (0, 1].")

    def __call__(self, x: Images, p: Any) -> Images:
        """The middles of the images."""
        x = _images(x)
        rows, columns = (tf.cast(self._taken(side, p), upcast_half(x).dtype) for side in _sides(x))
        seen = tf.einsum("ij,bjkc->bikc", rows, upcast_half(x))
        return _as(x, tf.einsum("ij,bkjc->bkic", columns, seen))

    def _taken(self, side: Any, p: Any) -> tf.Tensor:
        """`[side, side]`, how much of each pixel goes into each: crop and stretch in one.

        A matrix keeps the shapes what they are whatever the strength, and any dtype its precision.
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
    """Each pixel to a power, from `low` at `p = 0` to `high` at `p = 1`.

    Args:
        low: the power at `p = 0`, positive; below 1 it makes images brighter.
        high: the power at `p = 1`, positive.

    Raises:
        ValueError: a power that is not positive.

    Example:
        >>> Gamma(low=1.0, high=2.0)(tf.fill([1, 1, 1, 1], 0.5), 1.0).numpy().item()
        0.25

    Differs: up to 1e-4 the power is a straight line. The slope of a power below 1 has no bound at
    0, where many pixels are.
    """

    low: float = 0.7
    high: float = 1.3
    name = "gamma"

    def __post_init__(self) -> None:
        if not (self.low > 0 and self.high > 0):
            raise ValueError(
                f"Gamma: the powers are {self.low!r} and {self.high!r}; expected positive numbers."
            )

    def __call__(self, x: Images, p: Any) -> Images:
        """The images to that power, clipped to [0, 1]."""
        x = _images(x)
        pixels = upcast_half(x)
        power = self.low + (self.high - self.low) * _strength(p, pixels.dtype)
        dark = scalar(_DARK, pixels.dtype)
        line = pixels * dark ** (power - 1)
        curve = tf.maximum(pixels, dark) ** power
        return _as(x, _clipped(tf.where(pixels < dark, line, curve)))


@serializable
class Brightness:
    """Each pixel times a factor, from 1 at `p = 0` to `high` at `p = 1`.

    Args:
        high: the factor at `p = 1`, at least 0.

    Raises:
        ValueError: a negative factor.

    Example:
        >>> Brightness(high=1.5)(tf.fill([1, 1, 1, 1], 0.5), 1.0).numpy().item()
        0.75
    """

    high: float = 1.3
    name = "brightness"

    def __post_init__(self) -> None:
        if not self.high >= 0:
            raise ValueError(f"Brightness: high is {self.high!r}; expected a number >= 0.")

    def __call__(self, x: Images, p: Any) -> Images:
        """The images times the factor, clipped to [0, 1]."""
        x = _images(x)
        pixels = upcast_half(x)
        factor = 1 + (self.high - 1) * _strength(p, pixels.dtype)
        return _as(x, _clipped(pixels * factor))


@serializable
class Rotation:
    """The image turned about its centre, from `-degrees` at `p = 0` to `degrees` at `p = 1`.

    A pixel takes the value of the one nearest to where it comes from, and 0 where it comes from
    outside the image; positive is counter-clockwise.

    Args:
        degrees: the largest angle.

    Raises:
        ValueError: an angle that is not finite.

    Example:
        >>> x = tf.constant([[1.0, 0.5], [0.25, 0.0]])[None, :, :, None]
        >>> Rotation(degrees=90)(x, 1.0).numpy()[0, :, :, 0].tolist()
        [[0.5, 0.0], [1.0, 0.25]]
    """

    degrees: float = 10.0
    name = "rotation"

    def __post_init__(self) -> None:
        if not math.isfinite(self.degrees):
            raise ValueError(f"Rotation: degrees is {self.degrees!r}; expected a finite number.")

    def __call__(self, x: Images, p: Any) -> Images:
        """The images, turned."""
        x = _images(x)
        height, width = _sides(x)
        row, column = self._source(height, width, p)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = tf.reshape(tf.where(inside, row * width + column, 0), [-1])
        flat = tf.reshape(x, [tf.shape(x)[0], height * width, x.shape[-1]])
        # Not the op of TensorFlow that transforms images: its gradient transforms back, which is
        # not what was taken from where.
        taken = tf.reshape(tf.gather(flat, index, axis=1), tf.shape(x))
        return _as(x, tf.where(inside[:, :, None], taken, tf.zeros_like(taken)))

    def _source(self, height: Any, width: Any, p: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The row and the column that each pixel comes from, `[height, width]`, whole numbers."""
        angle = math.radians(self.degrees) * (2 * _strength(p, tf.float64) - 1)
        middle = [(tf.cast(side, tf.float64) - 1) / 2 for side in (height, width)]
        down = (tf.range(height, dtype=tf.float64) - middle[0])[:, None]
        across = tf.range(width, dtype=tf.float64) - middle[1]
        row = tf.sin(angle) * across + tf.cos(angle) * down + middle[0]
        column = tf.cos(angle) * across - tf.sin(angle) * down + middle[1]
        return tf.cast(tf.round(row), tf.int32), tf.cast(tf.round(column), tf.int32)


# In the order of the tables of results.
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


def _sides(x: tf.Tensor) -> tuple[Any, ...]:
    """Height and width: numbers, or scalar tensors where they are not known."""
    found = tf.shape(x)
    return tuple(found[i] if x.shape[i] is None else x.shape[i] for i in (1, 2))


def _strength(p: Any, dtype: tf.DType) -> tf.Tensor:
    if isinstance(p, (int, float)) and not 0 <= p <= 1:
        raise ValueError(f"The strength p is {p!r}; expected a number in [0, 1].")
    return scalar(p, dtype)


def _flipped(x: Images, p: Any, axis: int) -> Images:
    x = _images(x)
    return tf.where(_strength(p, tf.float64) >= 0.5, tf.reverse(x, [axis]), x)


def _clipped(pixels: Images) -> Images:
    return tf.clip_by_value(pixels, 0.0, 1.0)


def _as(x: Images, seen: Images) -> Images:
    """What was computed, in the dtype and the shape of the images."""
    seen = tf.cast(seen, x.dtype)
    seen.set_shape(x.shape)
    return seen
