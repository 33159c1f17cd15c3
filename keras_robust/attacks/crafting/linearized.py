"""Decision boundaries, linearized at the present point."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.gradient_ascent import logits_and_jacobian, value_and_gradient
from keras_robust.core.numerics import upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample


class Hyperplane(NamedTuple):
    """The closest decision boundary of each image, linearized: `value + normal . d = 0`."""

    value: PerExample  # another logit minus the label's
    normal: tf.Tensor  # its gradient, the shape of the images


def closest_boundary(
    ball: Ball, forward: Forward, x_adv: Images, y: Labels, targets: Labels | None
) -> Hyperplane:
    """The boundary with the target, or else with the class whose boundary is closest.

    Reference: Croce and Hein, "Minimally Distorted Adversarial Examples with a Fast Adaptive
    Boundary Attack" (2020), Eq. 7.
    """
    if targets is not None:

        def target_margin(x_adv: Images) -> PerExample:
            logits = upcast_half(forward(x_adv)["logits"])
            label, target = (tf.gather(logits, c, axis=1, batch_dims=1) for c in (y, targets))
            return target - label

        value, normal = value_and_gradient(target_margin, x_adv)
        # Logits and images may differ in dtype.
        return Hyperplane(tf.cast(value, upcast_half(normal).dtype), upcast_half(normal))
    logits, jacobian = logits_and_jacobian(forward, x_adv)
    value = logits - tf.gather(logits, y[:, None], axis=1, batch_dims=1)
    normal = jacobian - tf.gather(jacobian, y[:, None], axis=1, batch_dims=1)
    flat = tf.reshape(normal, tf.concat([[-1], tf.shape(normal)[2:]], axis=0))
    slope = tf.cast(tf.reshape(ball.dual_norm(flat), tf.shape(value)), value.dtype)
    # Without a slope a boundary is out of reach; the label has none with itself.
    distance = tf.where(slope > 0, tf.abs(value) / slope, value.dtype.max)
    is_label = tf.one_hot(y, value.shape[1], on_value=True, off_value=False, dtype=tf.bool)
    closest = tf.argmin(tf.where(is_label, tf.constant(math.inf, value.dtype), distance), axis=1)
    value, normal = (tf.gather(a, closest, axis=1, batch_dims=1) for a in (value, normal))
    return Hyperplane(tf.cast(value, normal.dtype), normal)
