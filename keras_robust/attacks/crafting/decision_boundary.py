"""What attacks share that ask a model for its predictions and nothing else.

They begin at an image that the model gets wrong, however far away, and walk along the boundary of
its decision towards the clean image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting import minimum_norm
from keras_robust.attacks.crafting.base import check_attack
from keras_robust.attacks.crafting.gradient_ascent import noinline
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample, Seed
from keras_robust.losses import classification as losses
from keras_robust.threat_models.balls import clipped

Decide = Callable[[Images], tf.Tensor]  # images -> where the model is mistaken, [batch] bool
TRIES = 50  # images of noise, of which the first that is mistaken is taken


class Begun(NamedTuple):
    """Where a walk begins.

    Attributes:
        x: mistaken images `[batch, ...]`, on the boundary; the clean image where there is none.
        found: where there is one, `[batch]`.
    """

    x: Images
    found: tf.Tensor


def check_start(owner: str, start: Any) -> None:
    """Refuses a start that is neither None nor an attack that gives one batch."""
    if start is not None:
        check_attack(f"{owner}: start", start)
        if start.per_member:
            raise ValueError(f"{owner}: the start {start.name} gives a batch for each member.")


def decision(forward: Forward, y: Labels) -> Decide:
    """Asks for predictions: where are they another class than the label?"""
    return noinline(lambda x: losses.misclassified(forward(x)["logits"], y))


def begin(ball: Ball, start: Any, forward: Forward, x: Images, y: Labels, seed: Seed) -> Begun:
    """Mistaken images, brought back to the boundary along the way to the clean ones.

    Args:
        ball: the norm in which to come back, and the range of a pixel.
        start: an attack in a ball as large as it takes; None for uniform noise.
        forward: the model.
        x: clean images.
        y: their labels.
        seed: an int tensor of shape `[2]`.
    """
    decide = decision(forward, y)
    if start is None:
        begun = _noise(ball, decide, x, seed)
    else:
        x_start = clipped(ball.bounds, start.craft(forward, x, y, seed, None), x.dtype)
        begun = Begun(x_start, decide(x_start))
    back = binary_search_boundary(ball, decide, x, begun.x, halvings=10)
    return Begun(tf.where(broadcast_to_images(begun.found, x), back, x), begun.found)


def _noise(ball: Ball, decide: Decide, x: Images, seed: Seed) -> Begun:
    """Uniform noise that the model does not take for the label."""
    low, high = ball.bounds
    dtype = upcast_half(x).dtype

    def body(tried: tf.Tensor, x_start: Images, found: tf.Tensor) -> tuple:
        own = tf.random.experimental.stateless_fold_in(seed, tried)
        noise = tf.random.stateless_uniform(tf.shape(x), own, dtype=dtype) * (high - low) + low
        noise = clipped(ball.bounds, noise, x.dtype)
        taken = decide(noise) & ~found
        x_start = tf.ensure_shape(tf.where(broadcast_to_images(taken, x), noise, x_start), x.shape)
        return tried + 1, x_start, tf.ensure_shape(found | taken, x.shape[:1])

    none = tf.zeros(tf.shape(x)[:1], tf.bool)
    _, x_start, found = tf.while_loop(
        lambda tried, _, found: (tried < TRIES) & ~tf.reduce_all(found),
        body,
        (tf.constant(0), x, tf.ensure_shape(none, x.shape[:1])),
        parallel_iterations=1,
    )
    return Begun(x_start, found)


def binary_search_boundary(
    ball: Ball, decide: Decide, x: Images, x_adv: Images, halvings: int
) -> Images:
    """The last mistaken image on the way from mistaken images to clean ones, by halving the way.

    Args:
        ball: the norm in which the way is the shortest.
        decide: where the model is mistaken.
        x: clean images.
        x_adv: mistaken images.
        halvings: how often; what is left of the way is unknown up to `2 ** -halvings` of it.
    """
    return minimum_norm.binary_search_boundary(
        decide, lambda share: toward(ball, x, x_adv, share), x, halvings
    )


def toward(ball: Ball, x: Images, x_adv: Images, share: PerExample) -> Images:
    """The point at a share of the distance from clean images to others; at 1 the others themselves.

    The nearest one to `x_adv`, in the norm of the ball: in Linf each pixel is cut to the distance,
    in other norms all of them shrink.
    """
    if ball.p != math.inf:
        return minimum_norm.interpolate(ball, x, x_adv, share)
    clean, delta = upcast_half(x), upcast_half(x_adv) - upcast_half(x)
    share = broadcast_to_images(tf.cast(share, delta.dtype), x)
    most = share * broadcast_to_images(ball.distance(x_adv, x), x)
    near = clean + tf.clip_by_value(delta, -most, most)
    return clipped(ball.bounds, tf.where(share < 1, near, upcast_half(x_adv)), x.dtype)


def euclidean(x: tf.Tensor) -> PerExample:
    """The Euclidean length of each, `[batch]`."""
    return tf.sqrt(tf.reduce_sum(tf.square(x), axis=list(range(1, x.shape.rank))))


def pixels_of(x: Images) -> int:
    """How many numbers an image has."""
    return math.prod(x.shape[1:])
