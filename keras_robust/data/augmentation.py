"""Random augmentation of training images: padded crops, small shifts, flips, erased rectangles.

An augmentation is any function `(image, seed) -> image` that keeps the shape: `image` float32
`[h, w, c]`, `seed` an int64 tensor of shape `[2]`. It draws from the seed alone
(`tf.random.stateless_*`, or `keras_robust.core.random`): the same seed always gives the same image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from keras_robust.core import random
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
        position, coin = tf.unstack(random.split(seed, 2))
        border = [self.padding, self.padding]
        padded = tf.pad(image, [border, border, [0, 0]], _PADDING_MODES[self.mode])
        corner = random.integers([2], position, 2 * self.padding + 1)
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
        position, coin = tf.unstack(random.split(seed, 2))
        offsets = random.uniform([2], position, -self.fraction, self.fraction)
        for axis in (0, 1):
            image = _shift(image, offsets[axis] * image.shape[axis], axis)
        return _random_flip(image, coin) if self.flip else image


@serializable
class RandomErasing:
    """Fills a random rectangle of the image with noise; see `random_erasing`."""

    probability: float = 0.5
    least: float = 0.02
    most: float = 0.33
    aspect: float = 0.3

    def __post_init__(self) -> None:
        check_number("probability", self.probability, most=1)
        check_number("least", self.least, above=0, hint=", a fraction of the image's area")
        check_number("most", self.most, self.least, 1, hint=", a fraction of the image's area")
        check_number("aspect", self.aspect, above=0, below=1)

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one image `[h, w, c]` with a seed of shape `[2]`."""
        of_coin, of_shape, of_corner, of_noise = tf.unstack(random.split(seed, 4))
        size = tf.constant(list(image.shape[:2]), tf.float32)
        share, tilt = tf.unstack(random.uniform([2], of_shape))
        area = (self.least + share * (self.most - self.least)) * tf.reduce_prod(size)
        bound = -math.log(self.aspect)
        slope = tf.exp(tf.stack([0.5, -0.5]) * bound * (2 * tilt - 1))
        sides = tf.clip_by_value(tf.round(tf.sqrt(area) * slope), 1.0, size)
        corner = tf.floor(random.uniform([2], of_corner) * (size - sides + 1))
        row, column = (_inside(image.shape[axis], corner[axis], sides[axis]) for axis in (0, 1))
        erased = row[:, None, None] & column[None, :, None]
        erased &= random.uniform([], of_coin) < self.probability
        noise = random.uniform(image.shape, of_noise, dtype=image.dtype)
        return tf.where(erased, noise, image)


@serializable
class Chain:
    """Augmentations one after the other; see `chain`."""

    augmentations: tuple[Augmentation, ...]

    def __call__(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments one image `[h, w, c]` with a seed of shape `[2]`."""
        seeds = tf.unstack(random.split(seed, len(self.augmentations)))
        for augment, own in zip(self.augmentations, seeds, strict=True):
            image = augment(image, own)
        return image


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


def random_erasing(
    probability: float = 0.5, least: float = 0.02, most: float = 0.33, aspect: float = 0.3
) -> RandomErasing:
    """Fills a random rectangle of the image with uniform noise in [0, 1].

    Its area is uniform between the fractions `least` and `most`, its ratio of height and width
    log-uniform in `[aspect, 1 / aspect]`, its place uniform.

    Args:
        probability: the fraction of images that are changed, in [0, 1].
        least: the smallest fraction of the area, > 0.
        most: the largest one, at most 1.
        aspect: the smallest ratio of height and width, in (0, 1).

    Returns:
        A function `(image [h, w, c], seed [2]) -> image [h, w, c]`.

    Raises:
        ValueError: a number out of range.

    Example:
        >>> image = tf.zeros([8, 8, 1])
        >>> erased = random_erasing(1.0, 0.25, 0.25, aspect=0.99)(image, tf.constant([0, 1]))
        >>> int(tf.reduce_sum(tf.cast(erased > 0, tf.int32)))
        16

    Reference:
        Zhong et al., "Random Erasing Data Augmentation", 2020, Algorithm 1 (RE-R).

    Differs: a side that is longer than the image is cut, where the paper draws again, and the ratio
    is log-uniform, so that neither direction is preferred.
    """
    return RandomErasing(probability, least, most, aspect)


def chain(*augmentations: Augmentation) -> Chain:
    """Augmentations one after the other, with seeds of their own.

    Args:
        *augmentations: functions `(image, seed) -> image`, at least one.

    Returns:
        A function `(image [h, w, c], seed [2]) -> image [h, w, c]`.

    Raises:
        ValueError: no augmentation, or one that is not a function.

    Example:
        >>> chain(pad_crop_flip(), random_erasing())(tf.ones([8, 8, 1]), tf.constant([0, 1])).shape
        TensorShape([8, 8, 1])
    """
    if not augmentations or not all(map(callable, augmentations)):
        raise ValueError(
            f"chain received {augmentations!r}; expected functions (image, seed) -> image, such as "
            "`pad_crop_flip()`."
        )
    return Chain(augmentations)


def _random_flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    heads = random.uniform([], seed) < 0.5
    return tf.where(heads, tf.reverse(image, axis=[1]), image)


def _inside(length: int, begin: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Which of `length` pixels lie in a segment, bool `[length]`."""
    place = tf.range(length, dtype=tf.float32)
    return (place >= begin) & (place < begin + size)


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
