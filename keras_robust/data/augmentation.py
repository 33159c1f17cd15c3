"""Random transformations of training images: padded crops, small shifts, mirror images.

An augmentation is any function `(image, seed) -> image`: `image` float32 `[h, w, c]`, `seed` an
int64 tensor of shape `[2]`, the result of the image's own shape. It draws from the seed alone
(`tf.random.stateless_*`, `tf.random.split`), so that the same seed always gives the same image.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_robust.core.config import serializable
from keras_robust.core.validation import check_integer

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

_PADDING_MODES = {"zero": "CONSTANT", "reflect": "REFLECT"}


@serializable
class PadCropFlip:
    """Pads each border, crops the old size at a random place, mirrors half of the images.

    See `pad_crop_flip`, which makes one.
    """

    padding: int = 4
    mode: str = "zero"
    flip: bool = True

    def __post_init__(self) -> None:
        check_integer("padding", self.padding)
        if self.mode not in _PADDING_MODES:
            known = ", ".join(repr(mode) for mode in _PADDING_MODES)
            raise ValueError(f"mode {self.mode!r} is not a way to pad; the ways are {known}")

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Transforms one image `[h, w, c]`, drawing from `seed` of shape `[2]`."""
        smaller = min(image.shape[0], image.shape[1])
        if self.mode == "reflect" and self.padding >= smaller:
            raise ValueError(
                f"A border of {self.padding} pixels cannot be reflected out of an image of shape "
                f"{tuple(image.shape)}; use padding <= {smaller - 1} or mode='zero'"
            )
        place, coin = tf.unstack(tf.random.split(seed))
        border = [self.padding, self.padding]
        padded = tf.pad(image, [border, border, [0, 0]], _PADDING_MODES[self.mode])
        corner = tf.random.stateless_uniform([2], place, 0, 2 * self.padding + 1, tf.int32)
        cropped = tf.slice(padded, tf.concat([corner, [0]], axis=0), image.shape)
        return _mirror_half(cropped, coin) if self.flip else cropped


@serializable
class ShiftFlip:
    """Moves each image by a random part of its size, mirrors half of the images.

    See `shift_flip`, which makes one.
    """

    fraction: float = 0.1
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1:
            raise ValueError(
                f"fraction is a part of the image's size, in [0, 1); received {self.fraction!r}"
            )

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Transforms one image `[h, w, c]`, drawing from `seed` of shape `[2]`."""
        place, coin = tf.unstack(tf.random.split(seed))
        offsets = tf.random.stateless_uniform([2], place, -self.fraction, self.fraction)
        for axis in (0, 1):
            image = _shift(image, offsets[axis] * image.shape[axis], axis)
        return _mirror_half(image, coin) if self.flip else image


def pad_crop_flip(padding: int = 4, mode: str = "zero", flip: bool = True) -> PadCropFlip:
    """Pads each border, crops the old size at a random place, mirrors half of the images.

    The usual augmentation of CIFAR images. All `(2 * padding + 1) ** 2` crops are equally likely.

    Args:
        padding: pixels added at each of the four borders.
        mode: what they hold: `"zero"`, or `"reflect"` for the image mirrored at its border.
        flip: whether half of the images are mirrored, left to right. Digits want `False`.

    Returns:
        A function `(image [h, w, c], seed [2]) -> image [h, w, c]`.

    Raises:
        ValueError: if `padding` is negative or `mode` unknown; when called, if an image is too
            small to be reflected that far.

    Example:
        >>> image = tf.ones([8, 8, 1])
        >>> pad_crop_flip(padding=2, flip=False)(image, tf.constant([0, 1])).shape
        TensorShape([8, 8, 1])

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2.
    """
    return PadCropFlip(padding=padding, mode=mode, flip=flip)


def shift_flip(fraction: float = 0.1, flip: bool = True) -> ShiftFlip:
    """Moves each image by up to `fraction` of its size, mirrors half of the images.

    Both offsets are uniform on `[-fraction, fraction]` times the height or the width, not rounded
    to pixels: values between pixels are interpolated linearly. What moves in from outside repeats
    the nearest pixel of the border. This is what Keras' `ImageDataGenerator` does with
    `width_shift_range`, `height_shift_range` and `horizontal_flip`.

    Args:
        fraction: the largest offset as a part of the image's size, in [0, 1).
        flip: whether half of the images are mirrored, left to right. Digits want `False`.

    Returns:
        A function `(image [h, w, c], seed [2]) -> image [h, w, c]`.

    Raises:
        ValueError: if `fraction` is not in [0, 1).

    Example:
        >>> image = tf.ones([8, 8, 1])
        >>> bool(tf.reduce_all(shift_flip()(image, tf.constant([0, 1])) == image))
        True

    Reference:
        Pang et al., "Improving Adversarial Robustness via Promoting Ensemble Diversity", 2019,
        whose experiments use this augmentation.
    """
    return ShiftFlip(fraction=fraction, flip=flip)


def _mirror_half(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    heads = tf.random.stateless_uniform([], seed) < 0.5
    return tf.where(heads, tf.reverse(image, axis=[1]), image)


def _shift(image: tf.Tensor, offset: tf.Tensor, axis: int) -> tf.Tensor:
    """Moves the content by `offset` pixels along `axis`: out[i] = image[clip(i - offset)]."""
    last = image.shape[axis] - 1
    source = tf.clip_by_value(tf.range(last + 1, dtype=tf.float32) - offset, 0.0, float(last))
    below = tf.floor(source)
    left = tf.cast(below, tf.int32)
    right = tf.minimum(left + 1, last)
    near, far = tf.gather(image, left, axis=axis), tf.gather(image, right, axis=axis)
    weight = tf.reshape(source - below, [-1 if a == axis else 1 for a in range(3)])
    # near + weight * (far - near), rather than two products, stays between near and far.
    return near + weight * (far - near)
