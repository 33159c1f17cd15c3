"""Random augmentation of training images: padded crops, small shifts, horizontal flips.

An augmentation is any function `(image, seed) -> image` that keeps the shape: `image` float32
`[h, w, c]`, `seed` an int64 tensor of shape `[2]`. It draws from the seed alone
(`tf.random.stateless_*`, `tf.random.split`), so that the same seed always gives the same image.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.validation import check_choice, check_integer, check_number

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_PADDING_MODES = {"zero": "CONSTANT", "reflect": "REFLECT"}


@serializable
class PadCropFlip:
    """Random crop of the padded image, and a random horizontal flip; see `pad_crop_flip`."""

    padding: int = 4
    mode: str = "zero"
    flip: bool = True

    def __post_init__(self) -> None:
        check_integer("padding", self.padding)
        check_choice("mode", self.mode, _PADDING_MODES)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one image `[h, w, c]` with a seed of shape `[2]`."""
        smaller = min(image.shape[0], image.shape[1])
        if self.mode == "reflect" and self.padding >= smaller:
            raise ValueError(
                f"padding is {self.padding} with mode='reflect' for an image of shape "
                f"{tuple(image.shape)}; expected padding <= {smaller - 1}, or mode='zero'."
            )
        position, coin = tf.unstack(tf.random.split(seed))
        border = [self.padding, self.padding]
        padded = tf.pad(image, [border, border, [0, 0]], _PADDING_MODES[self.mode])
        corner = tf.random.stateless_uniform([2], position, 0, 2 * self.padding + 1, tf.int32)
        cropped = tf.slice(padded, tf.concat([corner, [0]], axis=0), image.shape)
        return _random_flip(cropped, coin) if self.flip else cropped


@serializable
class ShiftFlip:
    """Random shift by a fraction of the size, and a random horizontal flip; see `shift_flip`."""

    fraction: float = 0.1
    flip: bool = True

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction, 0, below=1, hint=" of the image's size")

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one image `[h, w, c]` with a seed of shape `[2]`."""
        position, coin = tf.unstack(tf.random.split(seed))
        offsets = tf.random.stateless_uniform([2], position, -self.fraction, self.fraction)
        for axis in (0, 1):
            image = _shift(image, offsets[axis] * image.shape[axis], axis)
        return _random_flip(image, coin) if self.flip else image


def pad_crop_flip(padding: int = 4, mode: str = "zero", flip: bool = True) -> PadCropFlip:
    """Random crop of the padded image, and a horizontal flip with probability 1/2.

    The usual augmentation of CIFAR images. All `(2 * padding + 1) ** 2` crops are equally likely.

    Args:
        padding: pixels added at each of the four borders.
        mode: `"zero"`, or `"reflect"` for the image mirrored at its border.
        flip: whether to flip images horizontally. Use `False` for digits.

    Returns:
        A function `(image [h, w, c], seed [2]) -> image [h, w, c]`.

    Raises:
        ValueError: an invalid `padding` or `mode`; when called, an image too small to be reflected
            that far.

    Example:
        >>> image = tf.ones([8, 8, 1])
        >>> pad_crop_flip(padding=2, flip=False)(image, tf.constant([0, 1])).shape
        TensorShape([8, 8, 1])

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2.
    """
    return PadCropFlip(padding=padding, mode=mode, flip=flip)


def shift_flip(fraction: float = 0.1, flip: bool = True) -> ShiftFlip:
    """Random shift by up to `fraction` of the size, and a horizontal flip with probability 1/2.

    Both offsets are uniform on `[-fraction, fraction]` times the height or the width, not rounded
    to pixels: values between pixels are interpolated linearly, and the border is extended by its
    nearest pixel. This is what Keras's `ImageDataGenerator` does with `width_shift_range`,
    `height_shift_range` and `horizontal_flip`.

    Args:
        fraction: the largest offset as a fraction of the image's size, in [0, 1).
        flip: whether to flip images horizontally. Use `False` for digits.

    Returns:
        A function `(image [h, w, c], seed [2]) -> image [h, w, c]`.

    Raises:
        ValueError: `fraction` is not in [0, 1).

    Example:
        >>> image = tf.ones([8, 8, 1])
        >>> bool(tf.reduce_all(shift_flip()(image, tf.constant([0, 1])) == image))
        True

    Reference:
        Pang et al., "Improving Adversarial Robustness via Promoting Ensemble Diversity", 2019,
        whose experiments use this augmentation.
    """
    return ShiftFlip(fraction=fraction, flip=flip)


def _random_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    heads = tf.random.stateless_uniform([], seed) < 0.5
    return tf.where(heads, tf.reverse(image, axis=[1]), image)


def _shift(image: tf.Tensor, offset: tf.Tensor, axis: int) -> tf.Tensor:
    """Shifts the content by `offset` pixels along `axis`: out[i] = image[clip(i - offset)]."""
    last = image.shape[axis] - 1
    source = tf.clip_by_value(tf.range(last + 1, dtype=tf.float32) - offset, 0.0, float(last))
    below = tf.floor(source)
    left = tf.cast(below, tf.int32)
    right = tf.minimum(left + 1, last)
    near, far = tf.gather(image, left, axis=axis), tf.gather(image, right, axis=axis)
    weight = tf.reshape(source - below, [-1 if a == axis else 1 for a in range(3)])
    # near + weight * (far - near), rather than two products, stays between near and far.
    return near + weight * (far - near)
