"""Projections and proximal operators in Lp norms, with a radius or a weight for each image.

A ball has one radius for all images of a batch; minimum-norm attacks have one for each. They see a
perturbation in units of the range of a pixel, and of the fractions of a mask, in which the norm is
the plain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from keras_robust.core.numerics import broadcast_to_images
from keras_robust.core.types import PerExample
from keras_robust.threat_models import l0_projection
from keras_robust.threat_models.l1_projection import onto_ball
from keras_robust.threat_models.norms import flatten, l1_norm, l2_norm, l2_unit, linf_norm

_NORMS: dict[float | None, Callable] = {1.0: l1_norm, 2.0: l2_norm, math.inf: linf_norm}
_DUALS: dict[float | None, Callable] = {1.0: linf_norm, 2.0: l2_norm, math.inf: l1_norm}
_DUAL_ORDERS: dict[float | None, float] = {1.0: math.inf, 2.0: 2.0, math.inf: 1.0}


def norm(p: float | None, delta: tf.Tensor) -> PerExample:
    """The length of each perturbation, `[batch]`, for `p` of 1, 2 or infinity."""
    return _NORMS[p](delta)


def dual_norm(p: float | None, gradient: tf.Tensor) -> PerExample:
    """The dual norm of each gradient, `[batch]`, for `p` of 1, 2 or infinity."""
    return _DUALS[p](gradient)


def onto_radius(
    p: float | None, delta: tf.Tensor, radius: PerExample, per_channel: bool = False
) -> tf.Tensor:
    """Projects each perturbation onto the ball of its own radius.

    Args:
        p: 0, 1, 2 or infinity.
        delta: perturbations `[batch, ...]`.
        radius: `[batch]`, >= 0.
        per_channel: in L0, whether a pixel is a single value; see `keras_robust.L0Ball`.

    Example:
        >>> delta = tf.constant([[2.0, 1.5], [2.0, 1.5]])
        >>> for p in (0.0, 1.0, 2.0, math.inf):
        ...     print(onto_radius(p, delta, tf.constant([1.0, 9.0])).numpy().round(2).tolist())
        [[2.0, 0.0], [2.0, 1.5]]
        [[0.75, 0.25], [2.0, 1.5]]
        [[0.800000011920929, 0.6000000238418579], [2.0, 1.5]]
        [[1.0, 1.0], [2.0, 1.5]]
    """
    limit = broadcast_to_images(radius, delta)
    if p == math.inf:
        return tf.clip_by_value(delta, -limit, limit)
    if p == 2:
        length = l2_norm(delta)
        shorter = broadcast_to_images(tf.minimum(length, radius), delta) * l2_unit(delta)
        return tf.where(broadcast_to_images(length <= radius, delta), delta, shorter)
    if p == 1:
        inside = broadcast_to_images(l1_norm(delta) <= radius, delta)
        shorter = tf.reshape(onto_ball(flatten(delta), radius[:, None]), tf.shape(delta))
        return tf.where(inside, delta, shorter)
    pixels = l0_projection.as_pixels(delta, per_channel)
    count = tf.cast(tf.minimum(radius, tf.cast(tf.shape(pixels)[1], radius.dtype)), tf.int32)
    kept = l0_projection.largest(tf.reduce_sum(tf.abs(pixels), axis=2), count)[..., None]
    return tf.reshape(tf.where(kept, pixels, tf.zeros_like(pixels)), tf.shape(delta))


def proximal(p: float | None, delta: tf.Tensor, weight: PerExample) -> tf.Tensor:
    """The proximal operator of a norm: minimizes `weight |z|_p + |z - delta|_2^2 / 2` over `z`.

    Args:
        p: 1, 2 or infinity.
        delta: perturbations `[batch, ...]`.
        weight: `[batch]`, >= 0.

    Example:
        >>> delta, weight = tf.constant([[3.0, -4.0]]), tf.constant([1.0])
        >>> [proximal(p, delta, weight).numpy().round(2).tolist() for p in (1.0, 2.0, math.inf)]
        [[[2.0, -3.0]], [[2.4000000953674316, -3.200000047683716]], [[3.0, -3.0]]]

    Reference: Parikh and Boyd, "Proximal Algorithms" (2014), section 6.5: what is left after the
    projection onto the ball of the dual norm.
    """
    dual = _DUAL_ORDERS[p]
    return delta - onto_radius(dual, delta, weight)
