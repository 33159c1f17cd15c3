"""Attacks that look for the nearest adversarial image; the ball then decides whether it counts.

Such an attack asks how far the nearest mistake is, not whether there is one within a radius. It has
the interface of all others: its `ball` says in which norm distance is measured, and the radius is
applied once, at the end. An image whose nearest mistake lies within the radius comes back as that
mistake; any other comes back as it was. So one search answers for every radius, an image that the
model gets wrong already is its own nearest mistake, and nothing leaves the ball.

To see the distances themselves, take a ball that holds the whole range of pixels, such as
`L2Ball(math.sqrt(pixels))` for images in [0, 1], and ask `ball.distance(x_adv, x)`.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from keras_robust.attacks.crafting.base import Attack
from keras_robust.core.config import replace
from keras_robust.core.numerics import broadcast_to_images, scalar, upcast_half
from keras_robust.core.types import Ball, Forward, Images, Labels, PerExample
from keras_robust.threat_models.balls import clipped


class BestSoFar(NamedTuple):
    """The nearest adversarial images so far.

    Attributes:
        x: `[batch, ...]`; the clean image where none has been found.
        distance: from the clean image in the ball's norm, `[batch]`; infinite where there is none.
    """

    x: Images
    distance: PerExample


def initial_best(x: Images, mistaken: tf.Tensor) -> BestSoFar:
    """Before the search: the clean image, at distance 0 where the model is mistaken about it.

    Args:
        x: clean images.
        mistaken: where their prediction is wrong, `[batch]`, bool.
    """
    zeros = tf.zeros_like(mistaken, upcast_half(x).dtype)
    return BestSoFar(x, tf.where(mistaken, zeros, zeros.dtype.max))


def keep_closest(
    ball: Ball, best: BestSoFar, x: Images, candidate: Images, adversarial: tf.Tensor
) -> BestSoFar:
    """The nearer of the best so far and a candidate, for each image.

    Args:
        ball: measures the distance.
        best: the nearest so far.
        x: clean images.
        candidate: images of the shape and dtype of `x`, inside the bounds.
        adversarial: where the candidate is one, `[batch]`, bool.
    """
    distance = ball.distance(candidate, x)
    better = adversarial & (distance < best.distance)
    return BestSoFar(
        tf.where(broadcast_to_images(better, x), candidate, best.x),
        tf.where(better, distance, best.distance),
    )


def binary_search_boundary(
    mistaken: Callable[[Images], tf.Tensor],
    way: Callable[[PerExample], Images],
    x: Images,
    halvings: int,
) -> Images:
    """Draws mistakes towards the clean images, as long as they are mistakes, by halving the way.

    Args:
        mistaken: `images -> [batch]`, bool.
        way: shares `[batch]` of the way -> images; at 0 the clean ones, at 1 mistakes. Where one is
            none, the bisection ends close to it.
        x: clean images.
        halvings: how often; what is left of the way is unknown up to `2 ** -halvings` of it.

    Returns:
        The nearest mistakes found on the ways, of the shape and dtype of `x`.
    """

    def body(index: tf.Tensor, right: PerExample, wrong: PerExample) -> tuple:
        middle = (right + wrong) / 2
        fooled = mistaken(way(middle))
        right = tf.ensure_shape(tf.where(fooled, right, middle), x.shape[:1])
        return index + 1, right, tf.ensure_shape(tf.where(fooled, middle, wrong), x.shape[:1])

    zeros = tf.ensure_shape(tf.zeros(tf.shape(x)[:1], upcast_half(x).dtype), x.shape[:1])
    *_, share = tf.while_loop(
        lambda index, *_: index < halvings,
        body,
        (tf.constant(0), zeros, tf.ones_like(zeros)),
        parallel_iterations=1,
    )
    return way(share)


def interpolate(ball: Ball, x: Images, x_adv: Images, share: PerExample) -> Images:
    """The point at a share of the straight way from clean images to others, inside the bounds."""
    share = broadcast_to_images(tf.cast(share, upcast_half(x).dtype), x)
    here = upcast_half(x) + share * (upcast_half(x_adv) - upcast_half(x))
    # x + (x_adv - x) need not be x_adv
    return clipped(ball.bounds, tf.where(share < 1, here, upcast_half(x_adv)), x.dtype)


class MinimumNormAttack(Attack):
    """An attack whose search minds no radius: a new one implements `search`, and has a `ball`."""

    @abc.abstractmethod
    def search(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> BestSoFar:
        """The nearest adversarial image of each, measured by `self.ball.distance`."""

    def craft(
        self, forward: Forward, x: Images, y: Labels, seed: tf.Tensor, targets: Labels | None
    ) -> Images:
        """What was found, where it lies within the radius; else the clean image."""
        found = self.search(forward, x, y, seed, targets)
        within = found.distance <= scalar(self.ball.radius, found.distance.dtype)
        return tf.where(broadcast_to_images(within, x), found.x, x)

    def at_radius(self, radius: Any, step_size: Any = None) -> MinimumNormAttack:
        """The same search judged by another radius, which no step of it depends on."""
        del step_size
        return replace(self, ball=self.ball.replace(radius=radius))  # type: ignore[type-var]
