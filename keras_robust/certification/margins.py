"""Margins `z_y - z_j` and what they say."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_robust.core.labels import class_numbers
from keras_robust.core.types import Labels, Logits, PerExample


def worst_logits(margins: Logits) -> Logits:
    """The logits of the worst case that bounds allow: `-margins`, `[batch, classes]`.

    Their cross-entropy is an upper bound of the cross-entropy of every image in the ball, since
    softmax does not change when `z_y` is subtracted from all logits.

    Example:
        >>> worst_logits(tf.constant([[0.0, 2.0, -1.0]])).numpy().tolist()
        [[-0.0, -2.0, 1.0]]

    Reference: Wong and Kolter, "Provable Defenses against Adversarial Examples via the Convex Outer
    Adversarial Polytope" (2018), theorem 2.
    """
    return -margins


def is_certified(margins: Logits, y: Labels) -> PerExample:
    """Whether no image in the ball is misclassified, `[batch]` bool.

    Args:
        margins: lower bounds `[batch, classes]` of `z_y - z_j`; those of `j = y` do not count.
        y: labels `[batch]`.

    Returns:
        True where all margins are larger than 0; a tie or NaN is not certified.

    Example:
        >>> margins = tf.constant([[0.0, 2.0], [0.0, -1.0], [0.0, float("nan")]])
        >>> is_certified(margins, [0, 0, 0]).numpy().tolist()
        [True, False, False]
    """
    margins = tf.convert_to_tensor(margins)
    return tf.reduce_all((margins > 0) | label_mask(y, margins), axis=1)


def label_mask(y: Any, margins: Logits) -> tf.Tensor:
    """Where `j = y`, `[batch, classes]` bool."""
    classes = margins.shape[1]
    return tf.one_hot(
        class_numbers("Labels", y, margins, classes), classes, True, False, dtype=tf.bool
    )
