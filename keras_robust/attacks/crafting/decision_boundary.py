"""Shared parts of decision-based (hard-label) attacks, which query predictions only.

They start at a misclassified image, however far away, and move along the decision boundary toward
the clean image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting import minimum_norm
from keras_robust.attacks.crafting.base import Attack, check_attack
from keras_robust.attacks.crafting.gradient_ascent import noinline
from keras_robust.core import random
from keras_robust.core.numerics import broadcast_to_images, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample, Seed
from keras_robust.core.validation import check_bounded
from keras_robust.losses import classification as losses
from keras_robust.threat_models.clipping import allowed
from keras_robust.threat_models.masks import mask_of

IsAdversarial = Callable[[Images], tf.Tensor]  # images -> where they are misclassified, [batch]
NOISE_TRIES = 50  # noise images, of which the first misclassified one is taken
_START_SEARCH_STEPS = 10


class StartingPoint(NamedTuple):
    """Misclassified images at the decision boundary, where a walk along it starts."""

    x: Images  # the clean image where none was found
    found: tf.Tensor  # where one was found, [batch]


def check_start(owner: str, start: Attack | None, ball: Ball | None = None) -> None:
    """Raises unless `start` is an attack that returns one batch, or None.

    None stands for noise in the range of the pixels of `ball`, if a ball is passed.
    """
    if start is None and ball is not None:
        check_bounded(f"{owner} without `start`", ball)
    if start is not None:
        check_attack(f"{owner}: start", start)
        if start.per_member:
            raise ValueError(
                f"{owner}: start is {start.name}, which returns one batch per member; expected an "
                "attack that returns one batch."
            )


def label_query(forward: Forward, y: Labels) -> IsAdversarial:
    """A function that queries predictions, and returns where they differ from the labels."""
    return noinline(lambda x: losses.misclassified(forward(x)["logits"], y))


def starting_point(
    ball: Ball, start: Attack | None, forward: Forward, x: Images, y: Labels, seed: Seed
) -> StartingPoint:
    """Misclassified images, moved to the decision boundary on the path to the clean ones.

    `start` is an attack whose radius is large enough to succeed; None for uniform noise.
    """
    is_adversarial = label_query(forward, y)
    if start is None:
        begin = _noise(ball, is_adversarial, x, seed)
    else:
        x_start = allowed(ball, start.craft(forward, x, y, seed, None), x)
        begin = StartingPoint(x_start, is_adversarial(x_start))
    at_boundary = binary_search_boundary(ball, is_adversarial, x, begin.x, _START_SEARCH_STEPS)
    return StartingPoint(tf.where(broadcast_to_images(begin.found, x), at_boundary, x), begin.found)


def _noise(ball: Ball, is_adversarial: IsAdversarial, x: Images, seed: Seed) -> StartingPoint:
    """The first misclassified of `NOISE_TRIES` uniform noise images."""
    low, high = ball.bounds
    dtype = upcast_half(x).dtype

    def body(index: tf.Tensor, x_start: Images, found: tf.Tensor) -> tuple:
        step_seed = random.fold_in(seed, index)
        noise = random.uniform(tf.shape(x), step_seed, dtype=dtype)
        noise = allowed(ball, noise * (high - low) + low, x)
        taken = is_adversarial(noise) & ~found
        x_start = tf.ensure_shape(tf.where(broadcast_to_images(taken, x), noise, x_start), x.shape)
        return index + 1, x_start, tf.ensure_shape(found | taken, x.shape[:1])

    none = tf.zeros(tf.shape(x)[:1], tf.bool)
    _, x_start, found = tf.while_loop(
        lambda index, _, found: (index < NOISE_TRIES) & ~tf.reduce_all(found),
        body,
        (tf.constant(0), x, tf.ensure_shape(none, x.shape[:1])),
        parallel_iterations=1,
    )
    return StartingPoint(x_start, found)


def binary_search_boundary(
    ball: Ball, is_adversarial: IsAdversarial, x: Images, x_adv: Images, steps: int
) -> Images:
    """The last misclassified image on the path from `x_adv` to `x`, up to `2 ** -steps` of it."""
    return minimum_norm.binary_search_boundary(
        is_adversarial, lambda fraction: project_toward(ball, x, x_adv, fraction), x, steps
    )


def project_toward(ball: Ball, x: Images, x_adv: Images, fraction: PerExample) -> Images:
    """The point closest to `x_adv` at a fraction of its distance from `x`; at 1, `x_adv` itself.

    In Linf each pixel is clipped to that distance; in other norms the perturbation is scaled.
    """
    if ball.p != math.inf:
        return minimum_norm.interpolate(ball, x, x_adv, fraction)
    clean, delta = upcast_half(x), upcast_half(x_adv) - upcast_half(x)
    fraction = broadcast_to_images(tf.cast(fraction, delta.dtype), x)
    limit = fraction * broadcast_to_images(ball.distance(x_adv, x), x)
    mask = mask_of(ball)
    if mask is not None:
        limit *= mask.fractions(limit.dtype)
    point = clean + tf.clip_by_value(delta, -limit, limit)
    return allowed(ball, tf.where(fraction < 1, point, upcast_half(x_adv)), x)


def euclidean(x: tf.Tensor) -> PerExample:
    """The Euclidean length of each example, `[batch]`."""
    return tf.sqrt(tf.reduce_sum(tf.square(x), axis=list(range(1, x.shape.rank))))
