"""Mixing of the images of a batch with each other, labels included: MixUp and CutMix.

A mixing is any function `(images, labels, seed) -> (images, labels, others, shares)`: an image has
the label `labels` with the weight `shares`, at least 1/2, and `others` with the rest. It draws from
the seed alone. A `RobustModel` takes it as `mixing=`.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_robust.core import random
from keras_robust.core.config import serializable
from keras_robust.core.types import Images, Labels
from keras_robust.core.validation import check_number

Mixed = tuple[Images, Labels, Labels, tf.Tensor]
Mixing = Callable[[Images, Labels, tf.Tensor], Mixed]


@serializable
class MixUp:
    """`share * x + (1 - share) * x'`, with another image x' of the batch; see `mixup`."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("mixup: alpha", self.alpha, above=0)

    def __call__(self, x: Images, y: Labels, seed: tf.Tensor) -> Mixed:
        """Mixes images `[batch, ...]` with a seed of shape `[2]`."""
        partners, of_share = tf.unstack(random.split(seed, 2))
        share = _beta(tf.shape(x)[0], self.alpha, of_share)
        share = tf.maximum(share, 1 - share)  # the distribution is symmetric
        other = random.permutation(tf.shape(x)[0], partners)
        weight = tf.cast(tf.reshape(share, [-1, *[1] * (len(x.shape) - 1)]), x.dtype)
        partner = tf.gather(x, other)
        # In this form the result stays between both images.
        return partner + weight * (x - partner), y, tf.gather(y, other), share


@serializable
class CutMix:
    """A rectangle of each image is replaced by that of another image; see `cutmix`."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_number("cutmix: alpha", self.alpha, above=0)

    def __call__(self, x: Images, y: Labels, seed: tf.Tensor) -> Mixed:
        """Mixes images `[batch, h, w, c]` with a seed of shape `[2]`."""
        if len(x.shape) != 4:
            raise ValueError(f"cutmix: images have shape {x.shape}; expected [batch, h, w, c].")
        partners, of_share, of_center = tf.unstack(random.split(seed, 3))
        count, (height, width) = tf.shape(x)[0], x.shape[1:3]
        side = tf.sqrt(1 - _beta(count, self.alpha, of_share))
        center = random.uniform([2, count], of_center)
        rows = _segment(height, side, center[0])
        columns = _segment(width, side, center[1])
        inside = rows[:, :, None] & columns[:, None, :]
        other = random.permutation(count, partners)
        mixed = tf.where(inside[..., None], tf.gather(x, other), x)
        share = 1 - tf.reduce_mean(tf.cast(inside, tf.float32), axis=[1, 2])
        first, second = y, tf.gather(y, other)
        most = share >= 0.5
        labels, others = tf.where(most, first, second), tf.where(most, second, first)
        return mixed, labels, others, tf.maximum(share, 1 - share)


def mixup(alpha: float = 1.0) -> MixUp:
    """Mixes each image with another one of its batch: `share * x + (1 - share) * x'`.

    Each image draws a share of its own from Beta(alpha, alpha), and has the larger one.

    Args:
        alpha: parameter of the distribution, > 0; the smaller, the less images are mixed.

    Returns:
        A function `(images, labels, seed) -> (images, labels, others, shares)`.

    Raises:
        ValueError: alpha is not > 0.

    Example:
        >>> x, y = tf.reshape([0.0, 1.0], [2, 1, 1, 1]), tf.constant([0, 1])
        >>> images, labels, others, shares = mixup()(x, y, tf.constant([0, 1]))
        >>> labels.numpy().tolist(), bool(tf.reduce_all(shares >= 0.5))
        ([0, 1], True)

    Reference: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), Eq. 1.
    """
    return MixUp(alpha)


def cutmix(alpha: float = 1.0) -> CutMix:
    """Replaces a rectangle of each image by that of another image of its batch.

    The sides of the rectangle are `sqrt(1 - share)` of the image's, with a share from Beta(alpha,
    alpha); its center is uniform, and what lies outside the image is cut off. Labels have the
    weights of their numbers of pixels.

    Args:
        alpha: parameter of the distribution, > 0; 1 in the paper.

    Returns:
        A function `(images [batch, h, w, c], labels, seed) -> (images, labels, others, shares)`.

    Raises:
        ValueError: alpha is not > 0; when called, images of another rank.

    Example:
        >>> x, y = tf.zeros([2, 4, 4, 1]), tf.constant([0, 1])
        >>> cutmix()(x, y, tf.constant([0, 1]))[0].shape
        TensorShape([2, 4, 4, 1])

    Reference: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features" (2019), Eq. 1 and 2; in adversarial training, Rebuffi et al., "Data
    Augmentation Can Improve Robustness" (2021).
    """
    return CutMix(alpha)


def _beta(count: tf.Tensor, alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha), float32 `[count]`."""
    # In float64, where gamma variates of a small alpha do not vanish.
    first, second = tf.unstack(random.gamma([2, count], seed, alpha, tf.float64))
    return tf.cast(first / (first + second), tf.float32)


def _segment(length: int, share: tf.Tensor, center: tf.Tensor) -> tf.Tensor:
    """Which of `length` pixels lie in a segment of a share of them, bool `[batch, length]`."""
    place = tf.floor(center * length)[:, None]
    half = tf.floor(share * length / 2)[:, None]
    pixel = tf.range(length, dtype=tf.float32)
    return (pixel >= place - half) & (pixel < place + half)
